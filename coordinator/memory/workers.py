"""Leases, fences and takeovers in memory.

Mirrors `coordinator.journal.workers`: a lease that has run out harms nobody until somebody has
fenced it, and once fenced nothing of that worker changes the journal (I9, rules 3–6).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from functools import partial

from coordinator.domain.errors import Fenced
from coordinator.engine.ports import JOURNAL, OpenUnit
from coordinator.memory.journal_tables import Epoch
from coordinator.memory.link import Link, fence_of, takeover_by, units_of
from coordinator.memory.world import World

_UNITS_AT_A_TIME = 5


class MemoryWorkers:
    """One worker's lease, and the taking over of others'."""

    def __init__(
        self, world: World, worker: int, lease_ttl_seconds: float, link: Link, epoch: Epoch
    ) -> None:
        self._epoch = epoch
        self._world = world
        self._journal = world.journal
        self._worker = worker
        self._ttl = timedelta(seconds=lease_ttl_seconds)
        self._link = link

    @property
    def worker(self) -> int:
        """This worker's number; never used again."""
        return self._worker

    async def beat(self) -> datetime:
        """Renew the lease by its TTL from now; give the journal's time; `Fenced` if it is lost."""
        return await self._link.call(JOURNAL, "beat", self._beat)

    def _beat(self) -> datetime:
        row = self._journal.workers.get(self._worker)
        if row is None or row.fenced or row.expires_at is None:
            raise Fenced("another worker has taken over this one's units")
        now = self._world.now()
        row.expires_at = now + self._ttl
        return now

    async def leave(self) -> None:
        """Let go of every partition, and the lease expire now."""
        await self._link.call(JOURNAL, "leave", self._leave)

    def _leave(self) -> None:
        row = self._journal.workers.get(self._worker)
        if row is not None and row.expires_at is not None:
            row.expires_at = self._world.now()
        for held in self._journal.readings.values():
            held.pop(self._worker, None)

    async def expired(self) -> Sequence[int]:
        """Workers whose lease has expired and that still have something to take over."""
        return await self._link.read(JOURNAL, "expired", self._expired)

    def _expired(self) -> Sequence[int]:
        now = self._world.now()
        return [
            row.id
            for row in self._journal.workers.values()
            if row.id != self._worker and row.expires_at is not None and row.expires_at < now
        ]

    async def fence(self, worker: int) -> bool:
        """Fence it in the journal; False when its lease was renewed in the meantime."""
        held = {fence_of(worker)}
        return await self._link.call(JOURNAL, "fence", partial(self._fence, worker), rows=held)

    def _fence(self, worker: int) -> bool:
        self._journal.hold_fence(self._worker)
        row = self._journal.workers.get(worker)
        if row is None or row.fenced:
            return row is not None
        if row.expires_at is None or row.expires_at >= self._world.now():
            return False
        own = self._journal.workers[self._worker].expires_at
        if own is None or own < self._world.now():
            return False  # whoever could not renew its own lease may be what is wrong
        row.fenced, row.fenced_at = True, self._world.now()
        self._world.witness.fenced(JOURNAL, worker)
        return True

    async def fenced_stores(self, worker: int) -> frozenset[str]:
        """The stores at which a takeover has fenced this worker already."""
        return await self._link.read(JOURNAL, "fenced_stores", partial(self._stores, worker))

    def _stores(self, worker: int) -> frozenset[str]:
        return frozenset(store for of, store in self._journal.takeovers if of == worker)

    async def record_fenced(self, worker: int, store: str) -> None:
        """Remember that it is fenced at this store (rule 6)."""
        await self._link.call(
            JOURNAL, "record_fenced", lambda: self._journal.takeovers.add((worker, store))
        )

    async def take_over(self, worker: int, stores: Collection[str]) -> Sequence[OpenUnit]:
        """Make some of a fenced worker's open units ours, the oldest; see the port."""
        step = partial(self._take_over, worker, frozenset(stores))
        held = {units_of(worker), takeover_by(self._worker)}
        fence = {fence_of(self._worker)}
        return await self._link.call(JOURNAL, "take_over", step, rows=held, shared=fence)

    def _take_over(self, worker: int, stores: frozenset[str]) -> Sequence[OpenUnit]:
        self._journal.hold_fence(self._worker)
        row_of = self._journal.workers.get(worker)
        if row_of is None or not row_of.fenced:
            return []
        due = [row for row in self._journal.open_units(worker) if row.stores <= stores]
        taken = due[:_UNITS_AT_A_TIME]
        for row in taken:
            row.worker = self._worker
        if taken:
            self._world.witness.changed(JOURNAL, self._worker, "take_over")
        return [self._world.open_unit(row) for row in taken]

    async def ours(self) -> Sequence[OpenUnit]:
        """Read this worker's own open units, in a new epoch of its admissions."""
        self._epoch.number = await self._link.call(
            JOURNAL, "new_epoch", self._new_epoch, rows={takeover_by(self._worker)}
        )
        return await self._link.read(JOURNAL, "ours", self._ours)

    def _new_epoch(self) -> int:
        self._journal.hold_fence(self._worker)
        row = self._journal.workers[self._worker]
        row.epoch += 1
        return row.epoch

    def _ours(self) -> Sequence[OpenUnit]:
        return [self._world.open_unit(row) for row in self._journal.open_units(self._worker)]

    async def bury(self, worker: int) -> bool:
        """Forget the lease of a fenced worker that has no open unit left; whether it was so."""
        return await self._link.call(JOURNAL, "bury", partial(self._bury, worker))

    def _bury(self, worker: int) -> bool:
        row = self._journal.workers.get(worker)
        if row is None or not row.fenced or row.expires_at is None:
            return False
        if any(True for _ in self._journal.open_units(worker)):
            return False
        row.expires_at = None
        return True
