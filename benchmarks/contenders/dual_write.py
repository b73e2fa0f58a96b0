"""The unsafe dual write: what services do today, and hope.

A debit in PostgreSQL, then a credit in MongoDB, then, in one of its two variants, an event to
Kafka. Nobody notices when the process ends in between. It gets all that makes it fast: pools,
prepared statements (asyncpg keeps them), connections that are not reset when they are lent.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import orjson
from aiokafka import AIOKafkaProducer
from bson import Decimal128, Int64

from benchmarks.arena import Arena
from benchmarks.contenders.contender import Submit
from benchmarks.contenders.pools import mongodb_client, postgresql_pool
from benchmarks.dataset import WALLETS
from benchmarks.transfers import Transfer

_DEBIT: Final = (
    "UPDATE accounts SET balance = balance - 1, version = version + 1 WHERE id = $1"
    " RETURNING balance::text, version"
)
_CREDIT: Final = {"$inc": {"balance": Decimal128("1"), "version": Int64(1)}}


@dataclass(frozen=True, slots=True)
class DualWrite:
    """A `Contender`. ``with_event``: an event follows, and Kafka's acknowledgement is awaited."""

    with_event: bool

    @property
    def name(self) -> str:
        """A short name."""
        return "dual-write" if self.with_event else "dual-write-silent"

    @property
    def title(self) -> str:
        """What it is."""
        return "unsafe dual write, then an event" if self.with_event else "unsafe dual write"

    @property
    def missing(self) -> str | None:
        """Nothing is."""
        return None

    @asynccontextmanager
    async def start(self, arena: Arena) -> AsyncIterator[_Writing]:
        """Connect."""
        async with postgresql_pool(arena) as pool, mongodb_client(arena) as client:
            wallets = client[arena.name][WALLETS]
            if not self.with_event:
                yield _Writing(pool, wallets, None, arena.topics.transfers)
                return
            producer = AIOKafkaProducer(
                bootstrap_servers=arena.kafka, enable_idempotence=True, acks="all"
            )
            await producer.start()
            try:
                yield _Writing(pool, wallets, producer, arena.topics.transfers)
            finally:
                await producer.stop()


class _Writing:
    """A `Running`."""

    def __init__(
        self, pool: asyncpg.Pool, wallets: Any, producer: AIOKafkaProducer | None, topic: str
    ) -> None:
        self._pool = pool
        self._wallets = wallets
        self._producer = producer
        self._topic = topic

    @property
    def pids(self) -> Mapping[str, int]:
        """None: the client does everything by itself."""
        return {}

    @property
    def submit(self) -> Submit | None:
        """A client can only wait for itself."""
        return None

    async def perform(self, transfer: Transfer) -> str:
        """Write here, write there, and tell."""
        (account,), (wallet,) = transfer.debits, transfer.credits
        balance, version = await self._pool.fetchrow(_DEBIT, account)
        credited = await self._wallets.update_one({"_id": wallet}, _CREDIT)
        if credited.modified_count != 1:
            raise LookupError(f"wallet {wallet} is missing")
        if self._producer is not None:
            event = {
                "id": transfer.id,
                "ts_ms": int(time.time() * 1000),
                "account": {"id": account, "balance": balance, "version": version},
                "wallet": {"id": wallet, "amount": "1"},
            }
            await self._producer.send_and_wait(
                self._topic, orjson.dumps(event), key=b"%d" % account
            )
        return "committed"
