"""Small in-memory ports for tests of the engine's decisions: a clock that is moved by hand,
chance that is no chance, an observer that remembers, and workers that hold their units in a list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from coordinator.domain.errors import Problem, StoreError
from coordinator.domain.lifecycle import Status
from coordinator.domain.operation import Origin, Unit
from coordinator.domain.preview import NOTHING_SEEN, Loaded, Preview
from coordinator.domain.submission import RefusedCancel
from coordinator.engine.observer import Stage
from coordinator.engine.ports import Applied, OpenUnit, Undone
from tests.units import RECEIVED_AT


class ManualClock:
    """Stands still but for waits, which pass at once; ``on_wait`` sees each one first."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.waits: list[float] = []
        self.on_wait: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return RECEIVED_AT + timedelta(seconds=self.seconds - 1000.0)

    def journal_says(self, at: datetime) -> None:
        pass

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        self.on_wait()
        await asyncio.sleep(0)
        if not event.is_set():
            self.seconds += seconds
        return event.is_set()


class HighestChance:
    """Always the upper end, so that a bound can be read off."""

    def uniform(self, low: float, high: float) -> float:
        assert low <= high
        return high

    def uuid7(self) -> UUID:
        return UUID(int=7)


class SeenObserver:
    """Remembers what it was told, as (method, arguments that matter)."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def received(self, records: int) -> None:
        self.seen.append(("received", records))

    def admitted(self, admitted: object) -> None:
        self.seen.append(("admitted",))

    def pace_changed(self, topic: str, per_second: int, *, is_slow: bool) -> None:
        self.seen.append(("pace_changed", topic, per_second, is_slow))

    def refused_early(self, refused: object, origin: object) -> None:
        self.seen.append(("refused_early",))

    def cancel_refused(self, refused: RefusedCancel, origin: Origin) -> None:
        self.seen.append(("cancel_refused", refused.id, refused.breach))

    def dead_letter(self, letter: object, origin: object) -> None:
        self.seen.append(("dead_letter",))

    def record_set_aside(self, origin: object, next_offset: int) -> None:
        self.seen.append(("record_set_aside", next_offset))

    def finished(self, unit: Unit, status: Status, problem: Problem | None) -> None:
        self.seen.append(("finished", unit.seq, status))

    def parked(self, unit: Unit, problem: Problem) -> None:
        self.seen.append(("parked", unit.seq))

    def compensating(self, unit: Unit, cause: Problem) -> None:
        self.seen.append(("compensating", unit.seq))

    def compensated(self, undone: int, untouched: int, parked: int) -> None:
        self.seen.append(("compensated", undone, untouched, parked))

    def set_aside(self, unit: Unit, why: str, attempts: int) -> None:
        self.seen.append(("set_aside", unit.seq, attempts))

    def store_away(self, store: str, reason: str) -> None:
        self.seen.append(("store_away", store))

    def store_back(self, store: str) -> None:
        self.seen.append(("store_back", store))

    def stage_done(self, stage: Stage, store: str, units: int, seconds: float) -> None:
        self.seen.append(("stage_done", stage.value, store, units, seconds))

    def batch_failed(self, phase: str, store: str, units: int, attempts: int, reason: str) -> None:
        self.seen.append(("batch_failed", phase, units))

    def result_unknown(self, store: str) -> None:
        self.seen.append(("result_unknown", store))

    def lease_late(self) -> None:
        self.seen.append(("lease_late",))

    def swept(self, units: int) -> None:
        self.seen.append(("swept", units))

    def taken_over(self, worker: int, units: int) -> None:
        self.seen.append(("taken_over", worker, units))

    def duty_failed(self, duty: str, error: StoreError) -> None:
        self.seen.append(("duty_failed", duty))


class MemoryWorkers:
    """The journal's side of takeovers, by the rules of `coordinator.engine.ports.Workers`.

    ``log`` is every step in its order; ``failing`` maps a step's name to what it raises.
    """

    worker = 1

    def __init__(self, stores_of: Callable[[Unit], Collection[str]]) -> None:
        self._stores_of = stores_of
        self.units: dict[int, list[OpenUnit]] = {}
        self.expired_workers: list[int] = []
        self.renewed: set[int] = set()
        self.fenced: set[int] = set()
        self.fenced_at: set[tuple[int, str]] = set()
        self.buried: list[int] = []
        self.log: list[tuple[Any, ...]] = []
        self.failing: dict[str, StoreError] = {}

    def _step(self, *step: Any) -> None:
        self.log.append(step)
        if step[0] in self.failing:
            raise self.failing.pop(step[0])

    async def beat(self) -> datetime:
        return RECEIVED_AT

    async def leave(self) -> None:
        self._step("leave")

    async def expired(self) -> Sequence[int]:
        return list(self.expired_workers)

    async def fence(self, worker: int) -> bool:
        self._step("fence", worker)
        if worker in self.renewed:
            return False
        self.fenced.add(worker)
        return True

    async def fenced_stores(self, worker: int) -> frozenset[str]:
        return frozenset(store for number, store in self.fenced_at if number == worker)

    async def record_fenced(self, worker: int, store: str) -> None:
        self._step("record", worker, store)
        self.fenced_at.add((worker, store))

    async def take_over(self, worker: int, stores: Collection[str]) -> Sequence[OpenUnit]:
        assert worker in self.fenced
        self._step("take_over", worker, frozenset(stores))
        theirs = self.units.pop(worker, [])
        came = [each for each in theirs if set(self._stores_of(each.unit)) <= set(stores)]
        left = [each for each in theirs if each not in came]
        if left:
            self.units[worker] = left
        self.units.setdefault(self.worker, []).extend(came)
        return came

    async def ours(self) -> Sequence[OpenUnit]:
        self._step("ours")
        return list(self.units.get(self.worker, ()))

    async def bury(self, worker: int) -> bool:
        if self.units.get(worker):
            return False
        self.buried.append(worker)
        self.expired_workers.remove(worker)
        return True


class MemoryParticipant:
    """A store of which only the fences matter; ``log`` is shared, to see the order of steps."""

    def __init__(self, store: str, log: list[tuple[Any, ...]]) -> None:
        self.store = store
        self.away: StoreError | None = None
        self._log = log

    async def fence(self, worker: int) -> None:
        if self.away is not None:
            raise self.away
        self._log.append(("fence at", self.store, worker))

    async def load(self, units: Sequence[Unit]) -> Loaded:
        raise AssertionError("nothing is loaded here")

    async def apply(
        self, lane: int, units: Sequence[Unit], preview: Preview = NOTHING_SEEN
    ) -> Applied:
        raise AssertionError("nothing is applied here")

    async def compensate(self, lane: int, units: Sequence[Unit]) -> Mapping[int, Undone]:
        raise AssertionError("nothing is undone here")

    async def enrol(self, worker: int, lanes: int) -> None:
        pass

    async def sweep(self, unit_ids: Sequence[str]) -> None:
        self._log.append(("sweep", self.store, tuple(unit_ids)))

    async def forget_workers(self, workers: Collection[int]) -> None:
        if self.away is not None:
            raise self.away
        self._log.append(("forget at", self.store, *workers))

    async def ping(self) -> None:
        if self.away is not None:
            raise self.away

    async def close(self) -> None:
        pass
