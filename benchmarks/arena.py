"""A place for one contender and one round: databases and topics that nobody has used before.

So a contender does not find what another one, or its own last round, has left behind: tables that
have grown, a journal, an autovacuum that is due.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import pymongo
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from benchmarks import dataset
from benchmarks.servers import Servers, settle
from benchmarks.transfers import KEYS

PARTITIONS: Final = 4
"""As many as the coordinator gives to topics that it makes itself."""


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one arena. ``transfers`` is where the dual write sends its events."""

    units: str
    outcomes: str
    accounts: str
    wallets: str
    dead_letters: str
    transfers: str

    def all(self) -> Sequence[str]:
        """Give all of them."""
        return (
            self.units,
            self.outcomes,
            self.accounts,
            self.wallets,
            self.dead_letters,
            self.transfers,
        )


@dataclass(frozen=True, slots=True)
class Arena:
    """Where one contender works. ``driver`` is MongoDB's for whoever has a choice."""

    name: str
    servers: Servers
    driver: str
    keys: int
    postgres_dsn: str
    topics: Topics

    @property
    def mongodb_uri(self) -> str:
        """Where MongoDB is."""
        return self.servers.addresses.mongodb_uri

    @property
    def kafka(self) -> str:
        """Where Kafka is."""
        return self.servers.addresses.kafka_bootstrap

    async def check(self, moved: int) -> None:
        """Raise `MoneyLost` unless the stores hold so many debits and credits."""
        await dataset.check(self.postgres_dsn, self.mongodb_uri, self.name, self.keys, moved)


@asynccontextmanager
async def opened(
    servers: Servers, name: str, driver: str, keys: int = KEYS
) -> AsyncIterator[Arena]:
    """Make databases and topics, with the accounts and wallets; drop them all at the end.

    ``name`` becomes the name of both databases and the beginning of the topics'.
    """
    await _run_sql(servers, f'CREATE DATABASE "{name}" STRATEGY wal_log')
    dsn = f"{servers.addresses.postgres_dsn.rpartition('/')[0]}/{name}"
    changes = f"{name}.changes"
    topics = Topics(
        units=f"{name}.units",
        outcomes=f"{name}.outcomes",
        accounts=f"{changes}.account",
        wallets=f"{changes}.wallet",
        dead_letters=f"{name}.units-dlt",
        transfers=f"{name}.transfers",
    )
    try:
        await dataset.make(dsn, servers.addresses.mongodb_uri, name, keys)
        await _make_topics(servers.addresses.kafka_bootstrap, topics.all())
        await settle(servers.addresses)
        yield Arena(name, servers, driver, keys, dsn, topics)
    finally:
        await _drop(servers, name, topics)


async def _drop(servers: Servers, name: str, topics: Topics) -> None:
    await _run_sql(servers, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    await asyncio.to_thread(_drop_mongodb, servers.addresses.mongodb_uri, name)
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.addresses.kafka_bootstrap)
    await admin.start()
    try:
        await admin.delete_topics(list(topics.all()))
    except KafkaError:  # they were never made
        return
    finally:
        await admin.close()


async def _make_topics(bootstrap: str, names: Sequence[str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names])
    finally:
        await admin.close()


async def _run_sql(servers: Servers, statement: str) -> None:
    connection = await asyncpg.connect(servers.addresses.postgres_dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _drop_mongodb(uri: str, name: str) -> None:
    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        client.drop_database(name)
