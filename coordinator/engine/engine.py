"""The engine as a set of named tasks: lanes that run batches, and duties that keep time.

The supervisor runs them; each ends soon after ``stop`` is set, a lane after the batch in its
hands. A duty that fails because a store is away says so and is tried again; `Fenced` goes up and
ends the daemon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from coordinator.domain.errors import StoreError
from coordinator.domain.refusals import cancelled, too_late
from coordinator.engine.admission import Admission
from coordinator.engine.clock import Clock
from coordinator.engine.compensation import Compensation
from coordinator.engine.execution import Execution
from coordinator.engine.membership import Membership
from coordinator.engine.observer import Observer
from coordinator.engine.ports import JOURNAL, Journal, Participant, Workers
from coordinator.engine.schedule import Phase, Schedule
from coordinator.engine.stores import StoreWatch
from coordinator.engine.sweeping import Sweeping
from coordinator.engine.takeover import Takeover

Task = Callable[[asyncio.Event], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class EngineRules:
    """Bounds and paces. Times in seconds."""

    lanes: int = 2
    batch_units_max: int = 300
    lease_ttl_seconds: float = 15.0
    tick_seconds: float = 0.25
    elsewhere_poll_seconds: float = 0.05
    takeover_poll_seconds: float = 1.0
    sweep_poll_seconds: float = 10.0
    tidy_poll_seconds: float = 600.0


class Engine:
    """Everything that runs units, ready to be supervised."""

    def __init__(
        self,
        *,
        journal: Journal,
        workers: Workers,
        participants: Mapping[str, Participant],
        schedule: Schedule,
        admission: Admission,
        execution: Execution,
        compensation: Compensation,
        takeover: Takeover,
        sweeping: Sweeping,
        watch: StoreWatch,
        membership: Membership,
        clock: Clock,
        observer: Observer,
        rules: EngineRules,
        bell: asyncio.Event,
        outbox_bell: asyncio.Event,
    ) -> None:
        self._journal = journal
        self._workers = workers
        self._participants = participants
        self.schedule = schedule
        self.admission = admission
        self._execution = execution
        self._compensation = compensation
        self._takeover = takeover
        self._sweeping = sweeping
        self._watch = watch
        self._membership = membership
        self._clock = clock
        self._observer = observer
        self._rules = rules
        self._bell = bell
        self._outbox_bell = outbox_bell
        self._may_take_over_from = clock.monotonic()
        self._trusted_until = clock.monotonic() + rules.lease_ttl_seconds

    def tasks(self) -> Mapping[str, Task]:
        """The engine's tasks by name."""
        tasks: dict[str, Task] = {"heartbeat": self._heartbeat}
        for number in range(self._rules.lanes):
            tasks[f"lane-{number}"] = self._lane_task(number)
        for store in (JOURNAL, *self._participants):
            tasks[f"probe-{store}"] = self._probe_task(store)
        tasks["deadlines"] = self._duty("deadlines", self._tick, self._rules.tick_seconds)
        tasks["elsewhere"] = self._duty(
            "elsewhere", self._ask_elsewhere, self._rules.elsewhere_poll_seconds
        )
        tasks["newcomers"] = self._duty("newcomers", self._answer, self._rules.tick_seconds)
        tasks["persons"] = self._duty("persons", self._look_at_verbs, self._rules.tick_seconds * 2)
        tasks["takeover"] = self._duty(
            "takeover", self._take_over, self._rules.takeover_poll_seconds
        )
        tasks["sweep"] = self._duty("sweep", self._sweep, self._rules.sweep_poll_seconds)
        tasks["tidy"] = self._duty("tidy", self._sweeping.tidy, self._rules.tidy_poll_seconds)
        return tasks

    # --- lanes --------------------------------------------------------------------------------

    def _lane_task(self, number: int) -> Task:
        async def lane(stop: asyncio.Event) -> None:
            while not stop.is_set():
                self._bell.clear()
                now = self._clock.monotonic()
                batch = None
                if now < self._trusted_until:
                    batch = self.schedule.take(now, self._rules.batch_units_max)
                if batch is None:
                    pause_ends = self.schedule.next_pause_ends()
                    idle = 0.25 if pause_ends is None else min(0.25, max(0.001, pause_ends - now))
                    await self._clock.wait(self._bell, idle)
                    continue
                match batch.phase:
                    case Phase.REFUSE:
                        await self._execution.refuse(batch.entries)
                    case Phase.COMPENSATE:
                        await self._compensation.compensate(number, batch.entries)
                    case _:
                        await self._execution.execute(number, batch.entries)
                self._outbox_bell.set()
                self._bell.set()

        return lane

    def _probe_task(self, store: str) -> Task:
        async def probe(stop: asyncio.Event) -> None:
            await self._watch.probe(store, stop)

        return probe

    # --- duties -------------------------------------------------------------------------------

    async def _heartbeat(self, stop: asyncio.Event) -> None:
        """Renew the lease; trust it only as long as our own clock says (I9)."""
        ttl = self._rules.lease_ttl_seconds
        late = False
        while not stop.is_set():
            sent = self._clock.monotonic()
            try:
                self._clock.journal_says(await self._workers.beat())
            except StoreError as error:
                self._watch.failed(error)
                self._observer.duty_failed("heartbeat", error)
                # After an outage of the journal every lease looks expired: let the others renew
                # theirs before judging them.
                self._may_take_over_from = self._clock.monotonic() + ttl
                if sent >= self._trusted_until and not late:
                    late = True
                    self._observer.lease_late()
                await self._clock.wait(stop, min(1.0, ttl / 15))
                continue
            late = False
            self._trusted_until = sent + ttl * 0.8
            await self._clock.wait(stop, ttl / 4)

    def _duty(self, name: str, once: Callable[[], Awaitable[None]], pause_seconds: float) -> Task:
        async def duty(stop: asyncio.Event) -> None:
            while not stop.is_set():
                try:
                    await once()
                except StoreError as error:
                    self._watch.failed(error)
                    self._observer.duty_failed(name, error)
                    await self._clock.wait(stop, max(0.5, pause_seconds))
                await self._clock.wait(stop, pause_seconds)

        return duty

    async def _tick(self) -> None:
        for entry in self.schedule.overdue(self._clock.monotonic()):
            parked = [
                other.unit.id
                for other in self.schedule.waits_for(entry)
                if other.phase is Phase.PARKED
            ]
            self.schedule.refuse(entry, too_late(entry.unit, parked))
            self._bell.set()
        await self._membership.find_missing()

    async def _ask_elsewhere(self) -> None:
        waiting = self.schedule.elsewhere
        if not waiting:
            return
        async with self._membership.changing():
            if self._membership.is_doubtful:
                return
            asked = frozenset(waiting)
            still = await self._journal.still_elsewhere(asked)
            self.schedule.no_longer_elsewhere(asked - still)
        self._bell.set()

    async def _answer(self) -> None:
        if await self._journal.answer_newcomers(1000):
            self._outbox_bell.set()

    async def _look_at_verbs(self) -> None:
        """Do what others have asked of our units: cancels, and persons' verbs on parked ones."""
        for seq, reason in (await self._journal.cancel_requests()).items():
            entry = self.schedule.get(seq)
            if entry is not None and entry.phase is Phase.EXECUTE and not entry.running:
                self.schedule.refuse(entry, cancelled(reason))
                self._bell.set()
        if self.schedule.parked:
            changed = await self._journal.reopened(frozenset(self.schedule.parked))
            for each in changed:
                if isinstance(each, int):
                    self.schedule.end(each)
                else:
                    self._membership.adopt([each])
            if changed:
                self._bell.set()

    async def _take_over(self) -> None:
        if self._clock.monotonic() < self._may_take_over_from:
            return
        if await self._takeover.run_once():
            self._bell.set()

    async def _sweep(self) -> None:
        # Round after round while there is more, so that it keeps up with any load.
        while await self._sweeping.run_once():
            pass
