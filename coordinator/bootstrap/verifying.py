"""``coordinator verify``: its readers, connected for one run and closed again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

from coordinator import postgres_pool
from coordinator.bootstrap.journal import journal_dsn
from coordinator.bootstrap.kafka_security import kafka_options
from coordinator.bootstrap.stores import Connections, connect
from coordinator.domain.errors import ConfigurationInvalid
from coordinator.engine.ports import JOURNAL
from coordinator.engine.verification import (
    StoreInspection,
    Verification,
    VerificationRules,
    Verified,
)
from coordinator.journal.inspection import JournalReader
from coordinator.journal.migrate import pending
from coordinator.kafka.ends import partition_ends
from coordinator.participants.mongodb.inspection import MongodbReader
from coordinator.participants.postgresql.inspection import PostgresReader
from coordinator.settings import Settings

_NAME = "coordinator/verify"


async def verify(
    settings: Settings,
    *,
    outbox_age_seconds: float,
    looks: int,
    pause_seconds: float,
    page_rows: int,
) -> Verified:
    """Compare journal, undo records, fences and positions; change nothing.

    Raises `StoreUnavailable` when the journal is away; a store that is away is in the answer.
    """
    rules = VerificationRules(
        undo_retention_seconds=settings.units.undo_retention_seconds,
        lease_ttl_seconds=settings.worker.lease_ttl_seconds,
    )
    rules = replace(
        rules,
        outbox_age_seconds=outbox_age_seconds,
        looks=looks,
        pause_seconds=pause_seconds,
        page_rows=page_rows,
    )
    pool = await postgres_pool.open_pool(journal_dsn(settings), _NAME, max_size=2)
    connections = Connections()
    try:
        journal_id = await _journal_id(pool)
        connections = await connect(settings, _NAME)
        ends = partial(
            partition_ends,
            settings.kafka.bootstrap_servers,
            kafka_options(settings),
            settings.kafka.allow_plaintext,
        )
        stores = _stores(settings, connections, journal_id)
        run = Verification(JournalReader(pool), stores, ends, rules, asyncio.sleep)
        return await run.run()
    finally:
        await connections.close()
        await postgres_pool.close_pool(pool)


async def _journal_id(pool: postgres_pool.Pool) -> str:
    async with postgres_pool.connected(pool, JOURNAL) as connection:
        if await pending(connection):
            raise ConfigurationInvalid(
                ["journal: its tables are not up to date; run `coordinator migrate`"]
            )
        return str(await connection.fetchval("SELECT id FROM coordinator.journal"))


def _stores(settings: Settings, connections: Connections, journal_id: str) -> list[StoreInspection]:
    """Give a reader for each store but the journal's, which has no undo records."""
    readers: list[StoreInspection] = []
    for name in settings.stores:
        if name == settings.journal.store:
            continue
        if name in connections.pools:
            readers.append(PostgresReader(connections.pools[name], name, journal_id))
        else:
            readers.append(MongodbReader(connections.drivers[name], name, journal_id))
    return readers
