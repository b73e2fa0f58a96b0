"""What lanes report back, and which stores are away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from coordinator.domain.entity import FieldType
from coordinator.domain.errors import (
    BatchRefused,
    ErrorCode,
    Fenced,
    Problem,
    ResultUnknown,
    StoreBusy,
    StoreError,
    StoreUnavailable,
)
from coordinator.domain.lifecycle import Status
from coordinator.domain.operation import Unit
from coordinator.engine.halving import Tried
from coordinator.engine.observer import Stage
from coordinator.engine.ports import Concluded, Undone
from coordinator.engine.reporting import PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN, Reporting
from coordinator.engine.schedule import Batch, Entry, Phase, Schedule
from coordinator.engine.stores import IDLE_PROBE_SECONDS, PROBE_PAUSE_SECONDS_MAX, StoreWatch
from tests.engine_fakes import HighestChance, ManualClock, SeenObserver
from tests.units import entity, insert, mapping, unit

SHOP = mapping(entity("account", {"id": FieldType.INTEGER}, store="ledger"))
PROBLEM = Problem(ErrorCode.NOT_FOUND, "gone")
AWAY = StoreUnavailable("ledger", "away")


class World:
    def __init__(self) -> None:
        self.clock, self.observer, self.schedule = ManualClock(), SeenObserver(), Schedule()
        self.bell = asyncio.Event()
        self.probes = 0
        self.probe_answers: Callable[[], StoreError | Fenced | None] = lambda: None

        async def probe() -> None:
            self.probes += 1
            error = self.probe_answers()
            if error is not None:
                raise error

        self.watch = StoreWatch(
            probes={"ledger": probe},
            schedule=self.schedule,
            clock=self.clock,
            chance=HighestChance(),
            observer=self.observer,
            bell=self.bell,
        )
        self.reporting = Reporting(
            self.schedule, self.watch, self.clock, HighestChance(), self.observer
        )

    def running(self, *seqs: int) -> dict[int, Entry]:
        """Units that a lane holds."""
        for seq in seqs:
            self.schedule.add(
                Entry(unit(SHOP, insert("account", seq), seq=seq), deadline=self.clock.seconds + 30)
            )
        batch = self.take()
        assert batch is not None
        return {each.unit.seq: each for each in batch.entries}

    def take(self) -> Batch | None:
        return self.schedule.take(self.clock.monotonic(), 100)


def test_what_was_concluded_is_taken_over_unit_by_unit() -> None:
    world = World()
    entries = world.running(1, 2, 3, 4, 5, 6)
    world.reporting.concluded(
        entries,
        Concluded(
            ended={1: (Status.COMMITTED, None), 2: (Status.REJECTED, PROBLEM)},
            compensating={3: PROBLEM},
            parked={4: PROBLEM},
            busy=frozenset({5}),
            lost=frozenset({6}),
        ),
    )
    assert [seq for seq in range(1, 7) if seq in world.schedule] == [3, 4, 5]
    assert world.observer.seen == [
        ("finished", 1, Status.COMMITTED),
        ("finished", 2, Status.REJECTED),
        ("compensating", 3),
        ("parked", 4),
        ("set_aside", 5, 1),
    ]
    batch = world.take()
    assert batch is not None
    assert (batch.phase, [each.unit.seq for each in batch.entries]) == (Phase.COMPENSATE, [3])
    assert entries[3].problem == PROBLEM
    assert world.schedule.parked == {4}
    assert world.take() is None, "5 has its pause, 6 is another worker's"


def test_pauses_grow_up_to_their_bound_and_never_overflow() -> None:
    """I12."""
    world = World()
    [one] = world.running(1).values()
    pauses = []
    for _ in range(2000):
        before = world.clock.seconds
        world.reporting.set_aside(one)
        pauses.append(one.not_before - before)
        assert world.take() is None, "not before its pause is over"
        world.clock.seconds = one.not_before
        assert world.take() is not None
    assert pauses[0] == pytest.approx(PAUSE_SECONDS_MIN * 2)
    assert pauses[1] > pauses[0]
    assert max(pauses) == pytest.approx(PAUSE_SECONDS_MAX)
    assert pauses[-1] == pytest.approx(PAUSE_SECONDS_MAX)


def test_interrupted_units_run_again_when_the_store_is_back() -> None:
    """I11: what happened is unknown, so they run again and find out."""
    world = World()
    entries = list(world.running(1, 2).values())
    world.reporting.refuse(entries[1], PROBLEM)
    assert world.take() is not None  # a lane holds the refusal too
    world.reporting.interrupted(entries, ResultUnknown("ledger", "lost"))
    assert world.schedule.away == {"ledger"}
    world.clock.seconds += 10
    batch = world.take()
    assert batch is not None, "a refusal needs no store but the journal"
    assert [each.unit.seq for each in batch.entries] == [2]
    assert world.take() is None
    world.schedule.store_back("ledger")
    batch = world.take()
    assert batch is not None
    assert [each.unit.seq for each in batch.entries] == [1]


@pytest.mark.parametrize(
    ("error", "opens"),
    [
        (StoreUnavailable("ledger", "x"), True),
        (ResultUnknown("ledger", "x"), True),
        (StoreBusy("ledger", "x"), False),
        (BatchRefused("ledger", PROBLEM), False),
        (StoreUnavailable("nobody", "x"), False),
    ],
)
def test_only_what_would_fail_again_makes_a_store_away(error: StoreError, opens: bool) -> None:
    world = World()
    world.watch.failed(error)
    world.watch.failed(error)
    assert world.schedule.away == ({"ledger"} if opens else set())
    assert world.observer.seen == ([("store_away", "ledger")] if opens else []), "told once"


async def test_a_probe_asks_with_growing_pauses_and_lets_go_at_the_first_answer() -> None:
    world = World()
    stop = asyncio.Event()
    world.probe_answers = lambda: AWAY if world.probes < 9 else None

    def look() -> None:
        if not world.schedule.away:
            stop.set()

    world.watch.failed(AWAY)
    world.clock.on_wait = look
    await world.watch.probe("ledger", stop)
    *pauses, idle = world.clock.waits
    assert pauses == sorted(pauses)
    assert pauses[0] == pytest.approx(0.1)
    assert pauses[-1] == PROBE_PAUSE_SECONDS_MAX
    assert len(pauses) == 8
    assert idle == IDLE_PROBE_SECONDS
    assert world.bell.is_set()
    assert world.observer.seen[-1] == ("store_back", "ledger")
    assert world.observer.seen.count(("store_away", "ledger")) == 8


async def test_a_probe_without_an_alarm_asks_nobody() -> None:
    world = World()
    stop = asyncio.Event()
    world.clock.on_wait = stop.set
    await world.watch.probe("ledger", stop)
    assert world.probes == 0


async def test_an_idle_store_that_goes_away_is_noticed() -> None:
    """F35: also when no unit touches it."""
    world = World()
    stop = asyncio.Event()
    world.probe_answers = lambda: AWAY
    world.clock.on_wait = lambda: stop.set() if world.schedule.away else None
    await world.watch.probe("ledger", stop)
    assert world.schedule.away == {"ledger"}


async def test_a_probe_that_finds_itself_fenced_ends_the_daemon() -> None:
    """I9."""
    world = World()
    world.probe_answers = lambda: Fenced("gone")
    world.watch.failed(AWAY)
    with pytest.raises(Fenced):
        await world.watch.probe("ledger", asyncio.Event())


def test_a_batch_in_parts_and_a_lost_reply_are_told_with_their_store() -> None:
    world = World()
    lost = ResultUnknown("ledger", "the reply was lost")
    tried = Tried[None](refusals=[BatchRefused("ledger", PROBLEM)], error=lost)
    world.reporting.tried(Stage.APPLY, "ledger", 2, tried)
    assert ("batch_failed", "apply at ledger", 2) in world.observer.seen
    assert ("result_unknown", "ledger") in world.observer.seen
    assert "ledger" in world.schedule.away


def test_a_store_that_was_not_reached_lost_no_reply() -> None:
    world = World()
    world.reporting.tried(Stage.APPLY, "ledger", 2, Tried[None](error=AWAY))
    assert ("result_unknown", "ledger") not in world.observer.seen
    assert "ledger" in world.schedule.away


async def test_a_stage_tells_its_batch_and_the_time_that_all_its_parts_took() -> None:
    world = World()
    units = [unit(SHOP, insert("account", seq), seq=seq) for seq in (1, 2)]

    async def attempt(part: Sequence[Unit]) -> int:
        world.clock.seconds += 0.5
        if len(part) > 1:
            raise StoreBusy("ledger", "held")
        return len(part)

    tried = await world.reporting.run_stage(Stage.APPLY, "ledger", units, attempt)
    assert tried.results == [1, 1]
    assert ("stage_done", "apply", "ledger", 2, 1.5) in world.observer.seen
    assert ("batch_failed", "apply at ledger", 2) in world.observer.seen


async def test_a_stage_without_units_is_not_told() -> None:
    world = World()

    async def attempt(_: Sequence[Unit]) -> None:
        raise AssertionError("there is nothing to try")

    await world.reporting.run_stage(Stage.PIVOT, "journal", (), attempt)
    assert world.observer.seen == []


def test_what_became_of_the_branches_is_told_once_for_all_of_them() -> None:
    world = World()
    world.reporting.compensated(
        [Undone(True), Undone(True), Undone(False), Undone(False, PROBLEM), Undone(True, PROBLEM)]
    )
    assert world.observer.seen == [("compensated", 2, 1, 2)]
    world.reporting.compensated(())
    assert len(world.observer.seen) == 1
