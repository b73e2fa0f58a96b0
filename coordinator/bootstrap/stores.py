"""The stores opened: catalogs read, mapping resolved, a participant for each but the pivot."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from coordinator import postgres_pool
from coordinator.bootstrap.intakes import judge_grants
from coordinator.bootstrap.transports import refuse_members_elsewhere
from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.domain.errors import ConfigurationInvalid
from coordinator.engine.ports import Participant
from coordinator.log_events import LogEvent
from coordinator.logs import get_log
from coordinator.mapping import (
    Catalog,
    Declaration,
    Resolution,
    load_entities,
    read_mongodb_catalog,
    read_postgresql_catalog,
    resolve,
    tables_of,
)
from coordinator.participants.mongodb.bookkeeping import MongodbServerView
from coordinator.participants.mongodb.driver import Driver, open_driver
from coordinator.participants.mongodb.participant import MongodbParticipant
from coordinator.participants.postgresql.participant import PostgresParticipant
from coordinator.participants.postgresql.tables import Tables
from coordinator.settings import MongodbStore, PostgresqlStore, Settings

log = get_log()


@dataclass(frozen=True, slots=True)
class Connections:
    """A client per store; nothing connects before it is used."""

    pools: dict[str, postgres_pool.Pool] = field(default_factory=dict)
    drivers: dict[str, Driver] = field(default_factory=dict)

    async def close(self) -> None:
        """Let the connections go, in bounded time."""
        await asyncio.gather(
            *(postgres_pool.close_pool(pool, grace_seconds=0.5) for pool in self.pools.values()),
            *(driver.close() for driver in self.drivers.values()),
        )


@dataclass(frozen=True, slots=True)
class Stores:
    """The open stores of one worker.

    ``pivot_store`` is the one whose database holds the journal; its tables are written by the
    pivot and it has no participant.
    """

    mapping: EntityMapping
    participants: Mapping[str, Participant]
    pivot_store: str | None
    pivot_tables: Tables | None
    connections: Connections

    async def enrol(self, worker: int, lanes: int) -> None:
        """Make this worker's fences at every participant."""
        await asyncio.gather(*(each.enrol(worker, lanes) for each in self.participants.values()))

    async def close(self) -> None:
        """Let the connections go."""
        await self.connections.close()


async def connect(settings: Settings, application_name: str) -> Connections:
    """Make a client per store."""
    connections = Connections()
    for name, store in settings.stores.items():
        if isinstance(store, PostgresqlStore):
            connections.pools[name] = await postgres_pool.open_pool(
                store.dsn.get_secret_value(),
                application_name,
                max_size=store.pool_max_size,
                lock_timeout_seconds=store.lock_timeout_ms / 1000,
            )
        else:
            connections.drivers[name] = open_driver(
                store.uri.get_secret_value(), store.database, store.driver
            )
    return connections


async def read_catalog(
    settings: Settings,
    connections: Connections,
    store: str,
    declarations: Sequence[Declaration],
) -> Catalog:
    """Read what one store holds of what is mapped; `StoreUnavailable` when it is away."""
    if isinstance(settings.stores[store], MongodbStore):
        view = MongodbServerView(connections.drivers[store], store)
        refuse_members_elsewhere(settings, store, (await view.hello()).get("hosts", ()))
        return await read_mongodb_catalog(view)
    async with postgres_pool.connected(connections.pools[store], store) as connection:
        if await connection.fetchval("SHOW server_encoding") != "UTF8":
            raise ConfigurationInvalid([f"stores.{store}: the database's encoding is not UTF8"])
        # So that the names of types are qualified; users' triggers keep the path that they expect.
        await connection.execute("SET search_path = pg_catalog")
        try:
            return await read_postgresql_catalog(connection, tables_of(declarations, store))
        finally:
            await connection.execute("RESET search_path")


async def open_stores(settings: Settings, journal_id: str, application_name: str) -> Stores:
    """Resolve the mapping against the live catalogs, and open the participants."""
    declarations = load_entities(settings)
    connections = await connect(settings, application_name)
    try:
        catalogs = {
            name: await read_catalog(settings, connections, name, declarations)
            for name in settings.stores
        }
        resolution = resolve(declarations, catalogs, journal_store=settings.journal.store)
        judge_grants(settings, resolution.mapping)
        for warning in (*resolution.warnings, *resolution.missing_rights):
            log.warning(LogEvent.CONFIG_WARNING, warning)
        participants = await _participants(settings, connections, resolution, journal_id)
    except BaseException:
        await connections.close()
        raise
    pivot = settings.journal.store
    tables = None if pivot is None else Tables(pivot)
    return Stores(resolution.mapping, participants, pivot, tables, connections)


async def _participants(
    settings: Settings, connections: Connections, resolution: Resolution, journal_id: str
) -> dict[str, Participant]:
    """Make a participant per store but the journal's, its bookkeeping in place."""
    participants: dict[str, Participant] = {}
    for name in settings.stores:
        if name == settings.journal.store:
            continue
        if name in connections.pools:
            relational = PostgresParticipant(name, connections.pools[name], journal_id)
            await relational.prepare()
            participants[name] = relational
            continue
        documents = MongodbParticipant(name, connections.drivers[name], journal_id)
        missing = resolution.missing_collections.get(name, ())
        await documents.prepare(missing)
        participants[name] = documents
        for collection in missing:
            log.info(
                LogEvent.COLLECTION_CREATED,
                f"The collection {collection} was missing and was made.",
                store=name,
            )
    return participants
