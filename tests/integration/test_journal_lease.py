"""Rule 4: the lease is not the fence."""

from __future__ import annotations

import asyncio

import pytest

from coordinator import postgres_pool
from coordinator.engine.ports import JOURNAL
from tests.journal_worker import a_worker

pytestmark = pytest.mark.integration


async def test_rule_4_a_loaded_worker_renews_its_lease_beside_its_transactions(
    postgres_dsn: str,
) -> None:
    """Its transactions hold the fence, a renewal updates another row: neither waits."""
    async with a_worker(postgres_dsn) as worker, a_worker(postgres_dsn) as other:
        async with postgres_pool.transaction(worker.pool, JOURNAL) as connection:
            await connection.execute("SELECT coordinator.hold_fence($1)", worker.number)
            first = await worker.workers.beat()
            # Whoever wants to fence it waits for the row that the transaction holds …
            taker = asyncio.create_task(
                other.pool.execute(
                    "SELECT 1 FROM coordinator.workers WHERE id = $1 FOR UPDATE", worker.number
                )
            )
            # … and the lease is renewed all the same.
            assert await worker.workers.beat() >= first
            taker.cancel()
            await asyncio.gather(taker, return_exceptions=True)
        expires = await worker.value(
            "SELECT expires_at FROM coordinator.heartbeats WHERE worker = $1", worker.number
        )
        assert expires > first
