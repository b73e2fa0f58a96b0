"""Running one unit through the real engine while its calls fail: the helpers of omicron's sagas.

`Calls` stands between the engine and its ports. It can make every call twice, or let one call in
turn go wrong: refused for good, not answered with nothing done, or done and its answer lost. It
can also do every compensation twice. `Lane` runs a unit to its end as a lane of the daemon does,
and `Bench` is where: stores, a journal, and a look at all they hold.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol, TypeVar

from coordinator.domain.announce import Announcer
from coordinator.domain.decide import Effect, Image, ImageKey
from coordinator.domain.errors import (
    BatchRefused,
    ErrorCode,
    Problem,
    ResultUnknown,
    StoreUnavailable,
)
from coordinator.domain.lifecycle import Status
from coordinator.domain.operation import Origin, Unit
from coordinator.domain.preview import NOTHING_SEEN, Loaded, Preview
from coordinator.domain.publishing import Message
from coordinator.domain.submission import Submission, read
from coordinator.engine.compensation import Compensation
from coordinator.engine.drawing import Drawing
from coordinator.engine.execution import Execution
from coordinator.engine.ports import (
    JOURNAL,
    AdmissionBatch,
    Applied,
    Arrival,
    Candidate,
    Concluded,
    Ending,
    Journal,
    Move,
    Outbox,
    Participant,
    Pivot,
    Refusal,
    Undone,
)
from coordinator.engine.reporting import Reporting
from coordinator.engine.schedule import Entry, Phase, Schedule
from coordinator.engine.stores import StoreWatch
from coordinator.memory.clock import MemoryClock, SeededChance
from tests.engine_fakes import HighestChance, ManualClock, SeenObserver
from tests.simulation.shop import LEDGER, PASSING_KEYS, SHOP, STANDING_KEYS

T = TypeVar("T")
Rows = Mapping[ImageKey, Image | None]
LANE = 0
OUTCOMES, CHANGES = "outcomes", "changes.{entity}"
STEPS_MAX = 60
TOO_LATE = Problem(ErrorCode.DEADLINE_EXCEEDED, "It is given up.")
REFUSED = Problem(ErrorCode.STORE_REFUSED, "It is made to fail.")
UNITS = ("units", 0)


def announcer() -> Announcer:
    return Announcer("test", "0", OUTCOMES, CHANGES)


class Fault(Enum):
    """How a call goes wrong."""

    REFUSED = auto()  # nothing done, and never will be
    UNAVAILABLE = auto()  # nothing done
    LOST = auto()  # done, and nobody was told


@dataclass
class Calls:
    """What happens to the engine's calls; ``at`` is the number of the one that goes wrong."""

    fault: Fault | None = None
    at: int = 0
    twice: bool = False
    compensations_twice: bool = False
    ends_lost: int = 0  # how many ends of compensations nobody is told of
    made: list[str] = field(default_factory=list)
    failed: bool = False
    wrote: bool = False

    async def make(
        self, store: str, what: str, call: Callable[[], Awaitable[T]], *, changes: bool = True
    ) -> T:
        self.made.append(f"{what} at {store}")
        is_due = self.fault is not None and not self.failed and len(self.made) == self.at
        if is_due and self.fault is Fault.REFUSED:
            if what not in {"load", "apply", "conclude"}:
                return await call()  # an undo that is refused parks its unit: not a failure here
            self.failed = True
            raise BatchRefused(store, REFUSED)
        if is_due and (self.fault is Fault.UNAVAILABLE or not changes):
            self.failed = True
            raise StoreUnavailable(store, "it is made to fail")
        result = await call()
        if self.twice or (self.compensations_twice and what == "compensate"):
            result = await call()
        if what == "finish" and self.ends_lost:
            self.ends_lost -= 1
            is_due = True
        if is_due:
            self.failed = True
            raise ResultUnknown(store, "its answer is made to be lost")
        return result


class _Through:
    """A participant whose calls go through `Calls`."""

    def __init__(self, inner: Participant, calls: Calls) -> None:
        self._inner = inner
        self._calls = calls
        self.store = inner.store

    async def load(self, units: Sequence[Unit]) -> Loaded:
        return await self._calls.make(
            self.store, "load", lambda: self._inner.load(units), changes=False
        )

    async def apply(
        self, lane: int, units: Sequence[Unit], preview: Preview = NOTHING_SEEN
    ) -> Applied:
        previews = iter((preview,))  # the engine passes none for units that run again

        async def apply() -> Applied:
            applied = await self._inner.apply(lane, units, next(previews, NOTHING_SEEN))
            done = (each for every in applied.done.values() for each in every)
            self._calls.wrote |= any(each.effect is not Effect.NOTHING for each in done)
            return applied

        return await self._calls.make(self.store, "apply", apply)

    async def compensate(self, lane: int, units: Sequence[Unit]) -> Mapping[int, Undone]:
        return await self._calls.make(
            self.store, "compensate", lambda: self._inner.compensate(lane, units)
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _ThroughPivot:
    """The pivot likewise."""

    def __init__(self, inner: Pivot, calls: Calls) -> None:
        self._inner = inner
        self._calls = calls

    async def load(self, units: Sequence[Unit]) -> Loaded:
        return await self._calls.make(
            JOURNAL, "load", lambda: self._inner.load(units), changes=False
        )

    async def conclude(
        self,
        candidates: Sequence[Candidate],
        refusals: Sequence[Refusal],
        preview: Preview = NOTHING_SEEN,
    ) -> Concluded:
        return await self._calls.make(
            JOURNAL, "conclude", lambda: self._inner.conclude(candidates, refusals, preview)
        )

    async def settle(self, units: Sequence[Unit]) -> Concluded:
        return await self._calls.make(
            JOURNAL, "settle", lambda: self._inner.settle(units), changes=False
        )

    async def finish(self, endings: Sequence[Ending]) -> Concluded:
        return await self._calls.make(JOURNAL, "finish", lambda: self._inner.finish(endings))


class Bench(Protocol):
    """A journal and its stores, with one worker."""

    participants: Mapping[str, Participant]
    pivot: Pivot
    journal: Journal
    outbox: Outbox

    async def put(self, rows: Rows) -> None:
        """Make the stores hold these rows and no others, and forget what was published."""

    async def records(self, unit_id: str) -> Mapping[str, str]:
        """The state of the unit's undo record or tombstone, by store."""

    async def locks(self) -> int:
        """How many locks there are in the journal."""


@dataclass(frozen=True)
class End:
    """How a unit ended, and what the stores hold since."""

    status: Status
    rows: Rows


class Lane:
    """Runs units on a bench, one at a time, each to its end."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._admitted = 0

    async def admit(self, value: bytes) -> Unit:
        """Journal a unit under an id of its own."""
        self._admitted += 1
        unit = json.loads(value) | {"id": f"unit-{self._admitted}"}
        held = await self.bench.journal.positions([UNITS])
        at = held.get(UNITS)
        offset = at or 0
        submission = submission_of(json.dumps(unit).encode())
        arrival = Arrival(submission, Origin(*UNITS, offset))
        batch = AdmissionBatch((Move(UNITS, at, offset + 1),), (arrival,), ())
        [admitted] = (await self.bench.journal.admit(batch, SHOP)).units
        return admitted

    async def run(
        self,
        unit: Unit,
        calls: Calls,
        *,
        gives_up: bool = False,
        meanwhile: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """Run an admitted unit; ``gives_up``: its time is over when its call has failed.

        ``meanwhile`` is done after each step.
        """
        schedule, clock = Schedule(), ManualClock()
        observer = SeenObserver()
        watch = StoreWatch(
            probes={},  # nothing is ever away for long
            schedule=schedule,
            clock=clock,
            chance=HighestChance(),
            observer=observer,
            bell=asyncio.Event(),
        )
        reporting = Reporting(schedule, watch, clock, HighestChance(), observer)
        pivot = _ThroughPivot(self.bench.pivot, calls)
        participants: dict[str, Participant] = {
            name: _Through(each, calls) for name, each in self.bench.participants.items()
        }
        forward = Execution(pivot, LEDGER, participants, reporting)
        backward = Compensation(pivot, LEDGER, participants, reporting)
        schedule.add(Entry(unit, deadline=float("inf")))
        for _ in range(STEPS_MAX):
            entry = schedule.get(unit.seq)
            if entry is None:
                return
            assert entry.phase is not Phase.PARKED, f"{unit.id} is parked: {entry.problem}"
            if gives_up and calls.failed and entry.phase is Phase.EXECUTE:
                schedule.refuse(entry, TOO_LATE)
            clock.seconds += 10.0
            batch = schedule.take(clock.seconds, 300)
            assert batch is not None, "nothing is to be done, and it has not ended"
            match batch.phase:
                case Phase.REFUSE:
                    await forward.refuse(batch.entries)
                case Phase.COMPENSATE:
                    await backward.compensate(LANE, batch.entries)
                case _:
                    await forward.execute(LANE, batch.entries)
            if meanwhile is not None:
                await meanwhile()
        raise AssertionError(f"{unit.id} does not end: {calls.made}")

    async def end_of(self, unit: Unit) -> End:
        """Look how a unit ended; the journal, the outbox and the bookkeeping must agree."""
        concluded = await self.bench.pivot.settle([unit])
        assert unit.seq in concluded.ended, f"{unit.id} has not ended"
        status, _ = concluded.ended[unit.seq]
        assert await self.bench.locks() == 0
        published = [each for _, row in await self.bench.outbox.claim(1000) for each in row]
        outcomes = [each for each in published if _ce_id(each) == f"{unit.id}/outcome"]
        assert len(outcomes) == 1
        assert json.loads(outcomes[0].value or b"")["status"] == status.value
        announced = any(
            _ce_id(each).startswith(f"{unit.id}/") and each.topic != OUTCOMES for each in published
        )
        records = await self.bench.records(unit.id)
        if status is Status.COMMITTED:
            elsewhere = {store for store in unit.plan.branches if store != LEDGER}
            assert records == dict.fromkeys(elsewhere, "applied")
        else:
            assert not announced
            assert "applied" not in records.values()
        return End(status, await rows_of(self.bench))


def _ce_id(message: Message) -> str:
    return (dict(message.headers)["ce_id"] or b"").decode()


def submission_of(value: bytes) -> Submission:
    """Read a unit as admission does."""
    drawing = Drawing(MemoryClock(lambda: 0.0), SeededChance(random.Random(0)))
    submission = read(value, (), SHOP, 100_000, 600_000, frozenset(), drawing)
    assert isinstance(submission, Submission), submission
    return submission


async def rows_of(bench: Bench) -> Rows:
    """Read all rows of all stores."""
    checks = [
        {"op": "check", "entity": entity.name, "key": key, "absent": True}
        for entity in SHOP.entities.values()
        for key in (*STANDING_KEYS, *PASSING_KEYS)
    ]
    submission = submission_of(json.dumps({"id": "all", "operations": checks}).encode())
    memory = MemoryClock(lambda: 0.0)
    everything = Unit(
        seq=0,
        id="all",
        digest=submission.digest,
        plan=submission.plan,
        mapping=SHOP,
        received_at=memory.now(),
        deadline_at=memory.now(),
        metadata=None,
        reply_to=None,
        traceparent=None,
        origin=Origin(*UNITS, 0),
    )
    rows: dict[ImageKey, Image | None] = dict((await bench.pivot.load([everything])).images)
    for participant in bench.participants.values():
        rows.update((await participant.load([everything])).images)
    return rows
