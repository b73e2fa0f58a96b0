"""The journal opened: migrated, this worker registered, its pool named after it (rule 5)."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from coordinator import postgres_pool
from coordinator.domain.errors import ConfigurationInvalid
from coordinator.engine.ports import JOURNAL
from coordinator.fault_points import FaultPoint, reach
from coordinator.journal.mappings import JournaledMappings
from coordinator.journal.migrate import migrate, pending
from coordinator.journal.workers import application_name, register
from coordinator.log_events import LogEvent
from coordinator.logs import get_log
from coordinator.settings import PostgresqlStore, Settings

log = get_log()


@dataclass(frozen=True, slots=True)
class JournalAccess:
    """An open journal, as one worker."""

    pool: postgres_pool.Pool
    worker: int
    journal_id: str
    mappings: JournaledMappings

    @property
    def session_name(self) -> str:
        """The name of this worker's sessions at the stores: a takeover ends those that bear it."""
        return f"coordinator/{self.journal_id}/{self.worker}"

    async def close(self) -> None:
        """Let the connections go."""
        await postgres_pool.close_pool(self.pool, grace_seconds=0.5)


def journal_dsn(settings: Settings) -> str:
    """The DSN of the database that holds the journal."""
    if settings.journal.dsn is not None:
        return settings.journal.dsn.get_secret_value()
    store = settings.stores[settings.journal.store or ""]
    if not isinstance(store, PostgresqlStore):
        raise ConfigurationInvalid(["journal.store: it must name a postgresql store"])
    return store.dsn.get_secret_value()


async def open_journal(settings: Settings) -> JournalAccess:
    """Migrate if allowed, register a new worker, open its pool."""
    dsn = journal_dsn(settings)
    first = await postgres_pool.open_pool(dsn, "coordinator/start", max_size=1)
    try:
        async with postgres_pool.connected(first, JOURNAL) as connection:
            await prepare_journal(connection, may_migrate=settings.journal.migrate)
            reach(FaultPoint.REGISTER_BEFORE)
            await check_open_units(connection, settings)
            worker = await register(
                connection,
                settings.worker.name,
                settings.worker.lanes,
                settings.worker.lease_ttl_seconds,
            )
            reach(FaultPoint.REGISTER_AFTER)
            journal_id = str(await connection.fetchval("SELECT id FROM coordinator.journal"))
    finally:
        await postgres_pool.close_pool(first)
    ttl = settings.worker.lease_ttl_seconds
    pool = await postgres_pool.open_pool(
        dsn,
        application_name(worker),
        max_size=settings.worker.lanes + 6,
        lock_timeout_seconds=0.25,
        idle_in_transaction_timeout_seconds=max(1.0, ttl / 3),
        statement_timeout_seconds=min(8.0, max(1.0, ttl / 3)),
    )
    return JournalAccess(pool, worker, journal_id, JournaledMappings(pool, worker))


async def check_open_units(connection: asyncpg.Connection, settings: Settings) -> None:
    """Refuse a configuration that lacks a store which open units still need (rule 8)."""
    needed = await connection.fetch(
        "SELECT DISTINCT store FROM coordinator.units u, unnest(u.stores) AS store"
        " WHERE u.status IN ('accepted', 'compensating', 'parked')"
    )
    held = await connection.fetchval("SELECT pivot_store FROM coordinator.journal")
    is_open = await connection.fetchval(
        "SELECT EXISTS (SELECT 1 FROM coordinator.units"
        " WHERE status IN ('accepted', 'compensating', 'parked'))"
    )
    mistakes = [
        f"stores.{row['store']}: open units need it; configure it until they have ended"
        for row in needed
        if row["store"] not in settings.stores or row["store"] == settings.journal.store
    ]
    if is_open and held != settings.journal.store:
        mistakes.append(f"journal.store: open units need it to be {held or 'a database apart'}")
    if mistakes:
        raise ConfigurationInvalid(mistakes)
    if held != settings.journal.store:
        await connection.execute(
            "UPDATE coordinator.journal SET pivot_store = $1", settings.journal.store
        )


async def prepare_journal(connection: asyncpg.Connection, *, may_migrate: bool) -> None:
    """Bring the schema up to date, or say what is missing."""
    if await connection.fetchval("SHOW server_encoding") != "UTF8":
        raise ConfigurationInvalid(["journal: the database's encoding is not UTF8"])
    if not may_migrate:
        missing = await pending(connection)
        if missing:
            raise ConfigurationInvalid(
                [
                    f"journal: migration {name} is missing; run `coordinator migrate`"
                    for name in missing
                ]
            )
        return
    for name in await migrate(connection):
        log.info(LogEvent.JOURNAL_MIGRATED, "A migration was applied.", migration=name)
