"""A worker on the real journal, for integration tests: everything that the daemon would give it.

`a_worker` migrates the journal, registers a worker and opens its pool under its own name, as the
daemon does; two of them on one DSN are two daemons.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from coordinator import postgres_pool
from coordinator.daemon.system_clock import SystemClock
from coordinator.domain.announce import Announcer
from coordinator.domain.errors import Fenced, StoreError
from coordinator.domain.publishing import Message
from coordinator.journal.admission import JournalAdmission
from coordinator.journal.duties import JournalDuties
from coordinator.journal.epoch import Epoch
from coordinator.journal.fresh_rows import FreshRows
from coordinator.journal.mappings import JournaledMappings
from coordinator.journal.migrate import migrate
from coordinator.journal.operators import JournalOperators
from coordinator.journal.outbox import JournalOutbox
from coordinator.journal.packing import pack
from coordinator.journal.pivot import DataTables, JournalPivot
from coordinator.journal.workers import JournalWorkers, application_name, register

OUTCOMES = "test.outcomes"
CHANGES = "test.changes.{entity}"


@dataclass(frozen=True)
class JournalWorker:
    """One worker's view of the journal. ``pivot_store`` is the store that shares its database."""

    number: int
    pool: postgres_pool.Pool
    pivot_store: str | None
    announcer: Announcer
    mappings: JournaledMappings
    tables: DataTables | None
    lease_ttl_seconds: float
    epoch: Epoch = field(default_factory=Epoch)
    fresh_rows: FreshRows = field(default_factory=FreshRows)

    @property
    def admission(self) -> JournalAdmission:
        return JournalAdmission(self.pool, self.number, self.pivot_store, self.epoch)

    @property
    def pivot(self) -> JournalPivot:
        return JournalPivot(
            self.pool,
            self.number,
            self.announcer,
            self.tables,
            self.fresh_rows,
            SystemClock(),
        )

    @property
    def duties(self) -> JournalDuties:
        return JournalDuties(self.pool, self.number, self.announcer, self.mappings)

    @property
    def workers(self) -> JournalWorkers:
        return JournalWorkers(
            self.pool, self.number, self.lease_ttl_seconds, self.mappings, self.epoch
        )

    @property
    def outbox(self) -> JournalOutbox:
        return JournalOutbox(self.pool, self.number, self.lease_ttl_seconds, self.fresh_rows)

    @property
    def operators(self) -> JournalOperators:
        return JournalOperators(self.pool, self.announcer, who="tester")

    async def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Give a query's rows as plain tuples."""
        async with self.pool.acquire() as connection:
            return [tuple(row) for row in await connection.fetch(query, *arguments)]

    async def value(self, query: str, *arguments: Any) -> Any:
        """Give the first column of the first row."""
        async with self.pool.acquire() as connection:
            return await connection.fetchval(query, *arguments)

    async def put(self, *messages: Message) -> int:
        """Add a row to the outbox; give its id."""
        row: int = await self.value(
            "INSERT INTO coordinator.outbox (messages) VALUES ($1) RETURNING id", pack(messages)
        )
        return row

    async def published(self) -> Sequence[Message]:
        """Everything in the outbox, in order."""
        return [each for _, content in await self.outbox.claim(1000) for each in content]

    async def expire(self) -> None:
        """Let this worker's lease have run out a moment ago."""
        await self.value(
            "UPDATE coordinator.heartbeats SET expires_at = clock_timestamp() - interval '1 ms'"
            " WHERE worker = $1",
            self.number,
        )


@asynccontextmanager
async def a_worker(
    dsn: str,
    *,
    pivot_store: str | None = "ledger",
    tables: DataTables | None = None,
    announcer: Announcer | None = None,
    lease_ttl_seconds: float = 60.0,
) -> AsyncIterator[JournalWorker]:
    """Register a new worker on a migrated journal; its connections go at the end."""
    connection = await asyncpg.connect(dsn)
    try:
        await migrate(connection)
        number = await register(connection, "tester", 2, lease_ttl_seconds)
    finally:
        await connection.close()
    pool = await postgres_pool.open_pool(
        dsn, application_name(number), max_size=6, lock_timeout_seconds=0.25
    )
    try:
        yield JournalWorker(
            number=number,
            pool=pool,
            pivot_store=pivot_store,
            announcer=announcer or Announcer("test", "1.2.3", OUTCOMES, CHANGES),
            mappings=JournaledMappings(pool, number),
            tables=tables,
            lease_ttl_seconds=lease_ttl_seconds,
        )
    finally:
        await postgres_pool.close_pool(pool, grace_seconds=1)


async def refused_as_fenced(act: Callable[[], Awaitable[object]]) -> None:
    """Assert that an act is refused for the fence, after the sessions that the taker has ended."""
    for _ in range(10):
        try:
            await act()
        except Fenced:
            return
        except StoreError:
            continue
        raise AssertionError("a fenced worker was let through (I9)")
    raise AssertionError("the journal never answered")
