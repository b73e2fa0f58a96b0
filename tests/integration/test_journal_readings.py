"""The journal on PostgreSQL keeps to the contract of readings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from coordinator.journal.readings import JournalReadings
from tests.journal_worker import a_worker, refused_as_fenced
from tests.readings_contract import CONTRACT, PLACE, Move, NewReader, Reader

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda each: each.__name__)
async def test_readings_on_postgresql(
    promise: Callable[[NewReader, Move], Awaitable[None]], postgres_dsn: str
) -> None:
    async with AsyncExitStack() as stack:
        mover = await stack.enter_async_context(a_worker(postgres_dsn))

        async def new() -> Reader:
            worker = await stack.enter_async_context(a_worker(postgres_dsn))
            readings = JournalReadings(worker.pool, worker.number)
            return Reader(readings, worker.workers.leave, worker.expire)

        async def move(offset: int) -> None:
            await mover.value(
                "INSERT INTO coordinator.positions VALUES ($1, $2, $3)"
                " ON CONFLICT (topic, partition) DO UPDATE SET next_offset = $3",
                *PLACE,
                offset,
            )

        await promise(new, move)


async def test_a_fenced_worker_neither_begins_nor_marks(postgres_dsn: str) -> None:
    """I9."""
    async with a_worker(postgres_dsn) as zombie, a_worker(postgres_dsn) as taker:
        readings = JournalReadings(zombie.pool, zombie.number)
        await zombie.expire()
        assert await taker.workers.fence(zombie.number)
        await refused_as_fenced(lambda: readings.begin_reading([]))
        await refused_as_fenced(lambda: readings.mark_reading(PLACE, 0, setting_aside=False))
