"""Which open units are ours: one door for whatever changes that.

Admission, takeover and the question whether a unit still waits for another worker all depend on
the journal's view and the schedule's being the same. A takeover that is committed but not yet in
the schedule would let a later unit run past an earlier one on the same key (I5); an admission
whose reply was lost leaves units in the journal that no schedule knows (I7). So each of them
passes here, one at a time, and after a doubt the journal is asked what we have missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from coordinator.domain.errors import StoreBusy, StoreError
from coordinator.domain.lifecycle import Status
from coordinator.domain.refusals import cancelled
from coordinator.engine.clock import Clock
from coordinator.engine.ports import OpenUnit, Workers
from coordinator.engine.schedule import Entry, Phase, Schedule

_PHASES = {
    Status.ACCEPTED: Phase.EXECUTE,
    Status.COMPENSATING: Phase.COMPENSATE,
    Status.PARKED: Phase.PARKED,
}


class Membership:
    """Keeps the schedule's units and the journal's the same."""

    def __init__(self, workers: Workers, schedule: Schedule, clock: Clock) -> None:
        self._workers = workers
        self._schedule = schedule
        self._clock = clock
        self._door = asyncio.Lock()
        self._doubtful = False

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """Hold the door while the journal and the schedule change together."""
        async with self._door:
            try:
                yield
            except StoreBusy:
                raise  # nothing was done
            except StoreError:
                self._doubtful = True
                raise

    @property
    def is_doubtful(self) -> bool:
        """Whether there may be open units of ours that we do not know.

        Until that is settled no unit may go for not waiting on *another* worker's: the earlier
        one on its key may be ours since a takeover whose answer was lost (I5).
        """
        return self._doubtful

    def doubt(self) -> None:
        """Something may have been journaled as ours without our knowing."""
        self._doubtful = True

    async def find_missing(self) -> None:
        """After a doubt, adopt the open units that the journal says are ours."""
        if not self._doubtful:
            return
        async with self._door:
            # What a lane ends between the journal's answer and our reading of it is not open.
            with self._schedule.noting_ends() as ended:
                units = await self._workers.ours()
                self.adopt(each for each in units if each.unit.seq not in ended)
            self._doubtful = False

    def adopt(self, units: Iterable[OpenUnit]) -> None:
        """Put units that were read from the journal into the schedule, in doubt as they are."""
        now = self._clock.monotonic()
        at = self._clock.now()
        for each in sorted(units, key=lambda one: one.unit.seq):
            known = self._schedule.get(each.unit.seq)
            if known is not None:
                self._renew(known, each)
                continue
            left = (each.unit.deadline_at - at).total_seconds()
            entry = Entry(
                each.unit,
                deadline=now + left,
                phase=_PHASES[each.status],
                in_doubt=True,
                unsettled=True,
                problem=each.cause,
                elsewhere=True,
            )
            self._schedule.add(entry)
            if each.cancel_reason is not None and entry.phase is Phase.EXECUTE:
                self._schedule.refuse(entry, cancelled(each.cancel_reason))

    def _renew(self, entry: Entry, each: OpenUnit) -> None:
        """A person's verb has changed a unit that we hold."""
        cause = each.cause or entry.problem
        retried = entry.phase is Phase.PARKED and each.status is Status.COMPENSATING
        if retried and cause is not None:
            self._schedule.compensate(entry, cause)
