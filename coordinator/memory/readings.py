"""Which worker reads which partition, in memory.

Mirrors `coordinator.journal.readings` and the functions of its migration.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

from coordinator.engine.ports import JOURNAL, Beginning, Partition, Suspicion
from coordinator.memory.journal_tables import ReadingRow
from coordinator.memory.link import Link, fence_of
from coordinator.memory.world import World


class MemoryReadings:
    """The readings of one worker."""

    def __init__(self, world: World, worker: int, link: Link) -> None:
        self._world = world
        self._journal = world.journal
        self._worker = worker
        self._link = link

    async def begin_reading(self, beginnings: Sequence[Beginning]) -> Mapping[Partition, Suspicion]:
        """Journal where this worker begins; see `coordinator.engine.ports.Journal`."""
        step = partial(self._begin, beginnings)
        fence = {fence_of(self._worker)}
        return await self._link.call(
            JOURNAL, "begin_reading", step, rows={"readings"}, shared=fence
        )

    def _begin(self, beginnings: Sequence[Beginning]) -> Mapping[Partition, Suspicion]:
        journal = self._journal
        journal.hold_fence(self._worker)
        told = {}
        for each in beginnings:
            if journal.positions.get(each.partition) != each.expected:
                continue
            held = journal.readings.setdefault(each.partition, {})
            held.pop(self._worker, None)
            for row in held.values():
                if row.stood_at is None:
                    row.stood_at = each.offset
            here = {one: row for one, row in held.items() if row.stood_at == each.offset}
            marked = [row for row in here.values() if row.marked == each.offset]
            told[each.partition] = Suspicion(
                stood=len(here),
                marked=len(marked),
                setting_aside=sum(row.setting_aside for row in marked),
                undecided=sum(self._may_live(one) for one in here),
            )
            journal.readings[each.partition] = {**here, self._worker: ReadingRow()}
        return told

    def _may_live(self, worker: int) -> bool:
        row = self._journal.workers.get(worker)
        if row is None or row.fenced or row.expires_at is None:
            return False
        return row.expires_at >= self._world.now()

    async def mark_reading(self, partition: Partition, offset: int, *, setting_aside: bool) -> bool:
        """Mark what is about to be touched; durable on return."""
        step = partial(self._mark_reading, partition, offset, setting_aside)
        fence = {fence_of(self._worker)}
        return await self._link.call(JOURNAL, "mark", step, rows={"readings"}, shared=fence)

    def _mark_reading(self, partition: Partition, offset: int, setting_aside: bool) -> bool:
        self._journal.hold_fence(self._worker)
        row = self._journal.readings.get(partition, {}).get(self._worker)
        if row is None or row.stood_at is not None:
            return False
        row.marked, row.setting_aside = offset, setting_aside
        return True

    async def release_reading(self, partitions: Collection[Partition]) -> None:
        """Forget that this worker reads these partitions."""
        await self._link.call(
            JOURNAL, "release", partial(self._release, partitions), rows={"readings"}
        )

    def _release(self, partitions: Collection[Partition]) -> None:
        for partition in partitions:
            self._journal.readings.get(partition, {}).pop(self._worker, None)
