"""Which worker reads which partition, and what it is about to touch: how a deadly record is found.

See the migration ``0002_readings.sql``: a row per partition and worker that has not let it go.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from coordinator import postgres_pool
from coordinator.engine.ports import Beginning, Partition, Suspicion
from coordinator.fault_points import FaultPoint, reach
from coordinator.journal.session import single_statement


class JournalReadings:
    """The readings of one worker."""

    def __init__(self, pool: postgres_pool.Pool, worker: int) -> None:
        self._pool = pool
        self._worker = worker

    async def begin_reading(self, beginnings: Sequence[Beginning]) -> Mapping[Partition, Suspicion]:
        """Journal where this worker begins; see `coordinator.engine.ports.Journal`."""
        reach(FaultPoint.BEGIN_READING_BEFORE)
        async with single_statement(self._pool) as connection:
            rows = await connection.fetch(
                "SELECT * FROM coordinator.begin_reading($1, $2, $3, $4, $5)",
                self._worker,
                [each.partition[0] for each in beginnings],
                [each.partition[1] for each in beginnings],
                [each.expected for each in beginnings],
                [each.offset for each in beginnings],
            )
        reach(FaultPoint.BEGIN_READING_AFTER)
        return {
            beginnings[row["at"] - 1].partition: Suspicion(
                row["stood"], row["marked"], row["setting_aside"], row["undecided"]
            )
            for row in rows
        }

    async def mark_reading(self, partition: Partition, offset: int, *, setting_aside: bool) -> bool:
        """Mark what is about to be touched; durable on return."""
        reach(FaultPoint.MARK_BEFORE)
        async with single_statement(self._pool) as connection:
            marked: bool = await connection.fetchval(
                "SELECT coordinator.mark_reading($1, $2, $3, $4, $5)",
                self._worker,
                *partition,
                offset,
                setting_aside,
            )
        reach(FaultPoint.MARK_AFTER)
        return marked

    async def release_reading(self, partitions: Collection[Partition]) -> None:
        """Forget that this worker reads these partitions."""
        wanted = list(partitions)
        reach(FaultPoint.RELEASE_BEFORE)
        async with single_statement(self._pool) as connection:
            await connection.execute(
                "DELETE FROM coordinator.readings r USING unnest($2::text[], $3::int[])"
                " AS w(topic, partition) WHERE r.worker = $1"
                " AND r.topic = w.topic AND r.partition = w.partition",
                self._worker,
                [topic for topic, _ in wanted],
                [number for _, number in wanted],
            )
        reach(FaultPoint.RELEASE_AFTER)
