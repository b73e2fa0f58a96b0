"""Takeover: the open units of a worker whose lease has expired become ours.

There is no other recovery: what is taken over simply runs again (DESIGN 5). It is resumable
(rule 6): fenced in the journal, then at each store, each step recorded, then units reassigned;
units of a store that is away wait for it, the others go on.
"""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.domain.errors import StoreError
from coordinator.engine.membership import Membership
from coordinator.engine.observer import Observer
from coordinator.engine.ports import Participant, Workers
from coordinator.engine.schedule import Schedule
from coordinator.fault_points import FaultPoint, reach


class Takeover:
    """Fences the expired and adopts their units."""

    def __init__(
        self,
        *,
        workers: Workers,
        participants: Mapping[str, Participant],
        pivot_store: str | None,
        schedule: Schedule,
        membership: Membership,
        observer: Observer,
    ) -> None:
        self._workers = workers
        self._participants = participants
        self._pivot_store = pivot_store
        self._schedule = schedule
        self._membership = membership
        self._observer = observer
        self._lost_answer = False

    async def run_once(self) -> int:
        """Take over whatever has expired; how many units came."""
        came = 0
        for worker in await self._workers.expired():
            came += await self._take_over(worker)
        return came

    async def _take_over(self, worker: int) -> int:
        reach(FaultPoint.FENCE_JOURNAL_BEFORE)
        if not await self._workers.fence(worker):
            return 0
        reach(FaultPoint.FENCE_JOURNAL_AFTER)
        fenced = set(await self._workers.fenced_stores(worker))
        for store, participant in self._participants.items():
            if store in fenced or store in self._schedule.away:
                continue
            try:
                reach(FaultPoint.FENCE_STORE_BEFORE, store)
                await participant.fence(worker)
                reach(FaultPoint.FENCE_STORE_AFTER, store)
                await self._workers.record_fenced(worker, store)
                reach(FaultPoint.FENCE_RECORDED, store)
            except StoreError as error:
                self._observer.duty_failed(f"fence worker {worker} at {store}", error)
                continue
            fenced.add(store)
        if self._pivot_store is not None:
            fenced.add(self._pivot_store)
        came = await self._adopt_all(worker, fenced)
        if came:
            self._observer.taken_over(worker, came)
        if fenced >= self._participants.keys():
            await self._workers.bury(worker)
        return came

    async def _adopt_all(self, worker: int, stores: set[str]) -> int:
        """Adopt all that is there, some at a time."""
        came = 0
        while True:
            try:
                async with self._membership.changing():
                    units = await self._workers.take_over(worker, stores)
                    self._membership.adopt(units)
            except StoreError:
                self._lost_answer = True
                raise
            came += len(units)
            if units:
                continue
            if self._lost_answer:
                # What a lost call has taken over is ours since it has let go of the rows: ask.
                self._lost_answer = False
                self._membership.doubt()
            return came
