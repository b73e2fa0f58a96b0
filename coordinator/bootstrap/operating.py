"""What commands do without a daemon: migrate, look at units and steer them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from coordinator import postgres_pool
from coordinator.bootstrap.assembly import announcer
from coordinator.bootstrap.journal import journal_dsn, prepare_journal
from coordinator.bootstrap.kafka_security import kafka_options
from coordinator.bootstrap.stores import connect
from coordinator.bootstrap.topics import reply_topics
from coordinator.domain.errors import ConfigurationInvalid, StoreError
from coordinator.engine.ports import JOURNAL
from coordinator.engine.units_api import UnitsApi
from coordinator.journal.migrate import pending
from coordinator.journal.operators import JournalOperators
from coordinator.journal.selection import JournalSelection
from coordinator.kafka.topics import describe_topics
from coordinator.mapping import load_entities
from coordinator.participants.mongodb import bookkeeping as mongodb_bookkeeping
from coordinator.participants.postgresql import bookkeeping as postgresql_bookkeeping
from coordinator.settings import Settings

_MESSAGE_BYTES_DEFAULT: Final = 1_048_588


async def migrate(settings: Settings) -> None:
    """Make the journal's tables and the stores' bookkeeping, or bring them to this version's shape.

    After it a daemon needs no right to make anything. Raises `StoreError` for a server that is
    away or refuses; what was done before stays.
    """
    await _migrate_journal(settings)
    declarations = load_entities(settings)
    connections = await connect(settings, "coordinator/migrate")
    try:
        for name, pool in connections.pools.items():
            if name != settings.journal.store:
                await postgresql_bookkeeping.prepare(pool, name)
        for name, driver in connections.drivers.items():
            collections = [each.entity.table for each in declarations if each.entity.store == name]
            await mongodb_bookkeeping.prepare(driver, name, collections)
    finally:
        await connections.close()


async def _migrate_journal(settings: Settings) -> None:
    pool = await postgres_pool.open_pool(journal_dsn(settings), "coordinator/migrate", max_size=1)
    try:
        async with postgres_pool.connected(pool, JOURNAL) as connection:
            await prepare_journal(connection, may_migrate=True)
    finally:
        await postgres_pool.close_pool(pool)


async def _limits(settings: Settings) -> dict[str, int]:
    """What the outcomes' topics take; Kafka's own default where Kafka cannot be asked."""
    names = [settings.topics.outcomes, *reply_topics(settings)]
    limits = dict.fromkeys(names, _MESSAGE_BYTES_DEFAULT)
    with suppress(StoreError):
        facts = await describe_topics(
            settings.kafka.bootstrap_servers,
            names,
            client_options=kafka_options(settings),
            allow_plaintext=settings.kafka.allow_plaintext,
        )
        limits.update({name: fact.max_message_bytes for name, fact in facts.items()})
    return limits


@asynccontextmanager
async def operator(settings: Settings) -> AsyncIterator[UnitsApi]:
    """Give the operator's verbs on the journal, with or without a running daemon."""
    async with _operators_pool(settings) as pool:
        yield JournalOperators(pool, announcer(settings, await _limits(settings)))


@asynccontextmanager
async def selector(settings: Settings) -> AsyncIterator[JournalSelection]:
    """Find units of the journal by what they have in common."""
    async with _operators_pool(settings) as pool:
        yield JournalSelection(pool)


@asynccontextmanager
async def _operators_pool(settings: Settings) -> AsyncIterator[postgres_pool.Pool]:
    pool = await postgres_pool.open_pool(journal_dsn(settings), "coordinator/operator", max_size=2)
    try:
        async with postgres_pool.connected(pool, JOURNAL) as connection:
            if await pending(connection):
                raise ConfigurationInvalid(
                    ["journal: its tables are not there yet; run `coordinator migrate`"]
                )
        yield pool
    finally:
        await postgres_pool.close_pool(pool)
