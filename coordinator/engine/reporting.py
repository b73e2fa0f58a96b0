"""What a lane reports back of a stage: to the schedule, to the store watch, to the observer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from coordinator.domain.errors import Problem, ResultUnknown, StoreError
from coordinator.domain.operation import Unit
from coordinator.engine.clock import Chance, Clock
from coordinator.engine.halving import Tried, Turns, try_in_parts
from coordinator.engine.observer import Observer, Stage
from coordinator.engine.ports import Concluded, Undone
from coordinator.engine.schedule import Entry, Phase, Schedule
from coordinator.engine.stores import StoreWatch

ResultT = TypeVar("ResultT")

PAUSE_SECONDS_MIN = 0.02
PAUSE_SECONDS_MAX = 1.0


class Reporting:
    """Turns what happened to entries into their next state."""

    def __init__(
        self,
        schedule: Schedule,
        watch: StoreWatch,
        clock: Clock,
        chance: Chance,
        observer: Observer,
    ) -> None:
        self._schedule = schedule
        self._watch = watch
        self._clock = clock
        self._chance = chance
        self._observer = observer

    def concluded(self, by_seq: Mapping[int, Entry], concluded: Concluded) -> None:
        """Take over what a journal transaction decided."""
        for seq, (status, problem) in concluded.ended.items():
            self._observer.finished(by_seq[seq].unit, status, problem)
            self._schedule.end(seq)
        for seq, cause in concluded.compensating.items():
            self._observer.compensating(by_seq[seq].unit, cause)
            self._schedule.compensate(by_seq[seq], cause)
        for seq, problem in concluded.parked.items():
            self._observer.parked(by_seq[seq].unit, problem)
            self._schedule.park(by_seq[seq])
        for seq in concluded.busy:
            self.set_aside(by_seq[seq])
        for seq in concluded.behind:
            self.behind(by_seq[seq])
        for seq in concluded.lost:
            self._schedule.end(seq)

    def behind(self, entry: Entry) -> None:
        """It shares a key with an earlier unit that is still open: its lock holds it until then."""
        self._schedule.again(entry)

    def set_aside(
        self, entry: Entry, why: str = "an outsider is in its way", *, alone: bool = False
    ) -> None:
        """Try it again after a pause that grows, with full jitter; ``alone`` if it is slow."""
        entry.alone = entry.alone or alone
        entry.attempts = min(entry.attempts, 20)
        longest = min(PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN * 2 ** (entry.attempts + 1))
        pause = self._chance.uniform(PAUSE_SECONDS_MIN, longest)
        self._observer.set_aside(entry.unit, why, entry.attempts + 1)
        self._schedule.again(entry, not_before=self._clock.monotonic() + pause)

    def alone_after(self, entry: Entry, others: Collection[int]) -> None:
        """Try it again alone, once those others have ended (rule 9)."""
        self._schedule.alone_after(entry, others)

    def refuse(self, entry: Entry, problem: Problem) -> None:
        """Its refusal is to be journaled."""
        self._schedule.refuse(entry, problem)

    def interrupted(self, entries: Sequence[Entry], error: StoreError) -> None:
        """A store went away in the middle: what happened is unknown, they run again."""
        self.store_failed(error)
        for entry in entries:
            entry.unsettled = True
            if entry.phase is Phase.REFUSE:
                pause = self._chance.uniform(PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX)
                self._schedule.again(entry, not_before=self._clock.monotonic() + pause)
            else:
                self.set_aside(entry, f"{error.store} does not answer")

    def compensated(self, branches: Iterable[Undone]) -> None:
        """Tell what became of the branches of units whose compensation has ended."""
        found = list(branches)
        parked = sum(each.problem is not None for each in found)
        undone = sum(each.wrote and each.problem is None for each in found)
        if found:
            self._observer.compensated(undone, len(found) - undone - parked, parked)

    async def run_stage(
        self,
        stage: Stage,
        store: str,
        units: Sequence[Unit],
        attempt: Callable[[Sequence[Unit]], Awaitable[ResultT]],
        turns: Turns[ResultT] | None = None,
    ) -> Tried[ResultT]:
        """Run a stage of a batch, in as few parts as can be, and tell how it went."""
        began = self._clock.monotonic()
        tried = await try_in_parts(units, attempt, turns)
        if units:
            seconds = self._clock.monotonic() - began
            self._observer.stage_done(stage, store, len(units), seconds)
        self.tried(stage, store, len(units), tried)
        return tried

    def tried(self, stage: Stage, store: str, units: int, tried: Tried[Any]) -> None:
        """Tell of a batch that did not go through in one piece, and of a store that went away."""
        if tried.refusals and units > 1:
            attempts = len(tried.results) + len(tried.refusals)
            phase = f"{stage} at {store}"
            self._observer.batch_failed(phase, store, units, attempts, tried.refusals[0].message)
        if isinstance(tried.error, ResultUnknown):
            self._observer.result_unknown(store)
        if tried.error is not None:
            self.store_failed(tried.error)

    def store_failed(self, error: StoreError) -> None:
        """Hold back the units of that store until it answers again."""
        self._watch.failed(error)
