"""Takeover and membership: fence first, resume anywhere, and know every unit that is ours."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta

import pytest

from coordinator.domain.entity import FieldType, StoreKind
from coordinator.domain.errors import ErrorCode, Problem, StoreUnavailable
from coordinator.domain.lifecycle import Status
from coordinator.domain.operation import LockRequest, Unit
from coordinator.engine.membership import Membership
from coordinator.engine.ports import OpenUnit
from coordinator.engine.schedule import Entry, Phase, Schedule
from coordinator.engine.takeover import Takeover
from tests.engine_fakes import ManualClock, MemoryParticipant, MemoryWorkers, SeenObserver
from tests.units import entity, insert, mapping, unit

SHOP = mapping(
    entity("account", {"id": FieldType.INTEGER}, store="ledger"),
    entity("order", {"id": FieldType.INTEGER}, store="catalog", kind=StoreKind.MONGODB),
    entity("cart", {"id": FieldType.INTEGER}, store="carts", kind=StoreKind.MONGODB),
)
CAUSE = Problem(ErrorCode.EXPECTATION_FAILED, "because")
DEAD = 9


def elsewhere(of: Unit) -> Collection[str]:
    return [store for store in of.plan.branches if store != "ledger"]


def open_unit(
    seq: int,
    *entities: str,
    status: Status = Status.ACCEPTED,
    cause: Problem | None = None,
    cancel_reason: str | None = None,
) -> OpenUnit:
    made = unit(SHOP, *(insert(name, seq) for name in entities), seq=seq)
    locks = tuple(LockRequest(name, str(seq), exclusive=True) for name in entities)
    made = made._replace(plan=made.plan._replace(locks=locks))
    return OpenUnit(made, status, cause, cancel_reason)


class World:
    """One living worker, and worker 9 whose lease has expired."""

    def __init__(self, *units: OpenUnit) -> None:
        self.clock, self.observer, self.schedule = ManualClock(), SeenObserver(), Schedule()
        self.workers = MemoryWorkers(elsewhere)
        self.workers.expired_workers = [DEAD]
        self.workers.units[DEAD] = list(units)
        self.membership = Membership(self.workers, self.schedule, self.clock)
        self.stores = {
            name: MemoryParticipant(name, self.workers.log) for name in ("catalog", "carts")
        }
        self.takeover = Takeover(
            workers=self.workers,
            participants=self.stores,
            pivot_store="ledger",
            schedule=self.schedule,
            membership=self.membership,
            observer=self.observer,
        )

    def entry(self, seq: int) -> Entry:
        found = self.schedule.get(seq)
        assert found is not None
        return found


async def test_everything_is_fenced_before_a_unit_comes() -> None:
    """Rule 6: the journal, then each store, then the units."""
    world = World(open_unit(1, "account", "order"))
    assert await world.takeover.run_once() == 1
    assert world.workers.log == [
        ("fence", DEAD),
        ("fence at", "catalog", DEAD),
        ("record", DEAD, "catalog"),
        ("fence at", "carts", DEAD),
        ("record", DEAD, "carts"),
        ("take_over", DEAD, {"catalog", "carts", "ledger"}),
        ("take_over", DEAD, {"catalog", "carts", "ledger"}),
    ], "again until nothing comes"
    assert world.workers.buried == [DEAD]
    assert world.observer.seen == [("taken_over", DEAD, 1)]


async def test_a_lease_that_was_renewed_meanwhile_is_left_alone() -> None:
    world = World(open_unit(1, "account"))
    world.workers.renewed.add(DEAD)
    assert await world.takeover.run_once() == 0
    assert world.workers.log == [("fence", DEAD)]
    assert len(world.schedule) == 0


async def test_units_of_a_store_that_is_away_wait_and_the_others_go_on() -> None:
    """Rule 6, and it is resumable: what is fenced is not fenced again."""
    world = World(open_unit(1, "account"), open_unit(2, "account", "order"), open_unit(3, "cart"))
    world.stores["catalog"].away = StoreUnavailable("catalog", "away")
    assert await world.takeover.run_once() == 2
    assert [seq for seq in (1, 2, 3) if seq in world.schedule] == [1, 3]
    assert world.workers.buried == []
    assert ("duty_failed", f"fence worker {DEAD} at catalog") in world.observer.seen

    world.stores["catalog"].away = None
    world.workers.log.clear()
    assert await world.takeover.run_once() == 1
    assert [step for step in world.workers.log if step[0] == "fence at"] == [
        ("fence at", "catalog", DEAD)
    ]
    assert 2 in world.schedule
    assert world.workers.buried == [DEAD]


async def test_a_store_known_to_be_away_is_not_even_asked() -> None:
    world = World(open_unit(1, "order"))
    world.schedule.store_away("catalog")
    assert await world.takeover.run_once() == 0
    assert ("fence at", "catalog", DEAD) not in world.workers.log


async def test_a_fence_that_could_not_be_recorded_does_not_count() -> None:
    world = World(open_unit(1, "order"))
    world.workers.failing["record"] = StoreUnavailable("journal", "away")
    assert await world.takeover.run_once() == 0
    assert 1 not in world.schedule
    assert await world.takeover.run_once() == 1


async def test_a_takeover_whose_answer_was_lost_is_found_again() -> None:
    """I7: its units may be ours in the journal, and no schedule would know them."""
    world = World(open_unit(1, "account"))
    taken = world.workers.units[DEAD]
    world.workers.failing["take_over"] = StoreUnavailable("journal", "the answer was lost")
    with pytest.raises(StoreUnavailable):
        await world.takeover.run_once()
    world.workers.units = {world.workers.worker: taken}
    await world.membership.find_missing()
    assert 1 in world.schedule
    world.workers.log.clear()
    await world.membership.find_missing()
    assert world.workers.log == [], "without a doubt nothing is asked"


async def test_a_doubt_stays_while_the_journal_does_not_answer() -> None:
    world = World()
    world.membership.doubt()
    world.workers.failing["ours"] = StoreUnavailable("journal", "away")
    with pytest.raises(StoreUnavailable):
        await world.membership.find_missing()
    world.workers.units[world.workers.worker] = [open_unit(5, "account")]
    await world.membership.find_missing()
    assert 5 in world.schedule


async def test_what_is_adopted_is_in_doubt_and_waits_until_it_is_known_to_be_free() -> None:
    """Rule 1: an apply may have been sent; I5: an earlier unit may still be another worker's."""
    world = World(open_unit(2, "account"), open_unit(1, "account"))
    await world.takeover.run_once()
    for seq in (1, 2):
        assert world.entry(seq).in_doubt
        assert world.entry(seq).elsewhere
    assert world.schedule.take(world.clock.monotonic(), 10) is None
    world.schedule.no_longer_elsewhere([1, 2])
    batch = world.schedule.take(world.clock.monotonic(), 10)
    assert batch is not None
    assert [each.unit.seq for each in batch.entries] == [1, 2]


async def test_a_deadline_is_carried_over_to_our_own_clock() -> None:
    """F7."""
    one = open_unit(1, "account")
    world = World(one)
    world.clock.seconds += 10  # ten of its thirty seconds have passed
    await world.takeover.run_once()
    assert world.entry(1).deadline == pytest.approx(world.clock.monotonic() + 20)
    late = OpenUnit(
        one.unit._replace(seq=2, deadline_at=world.clock.now() - timedelta(seconds=1)),
        Status.ACCEPTED,
        None,
        None,
    )
    world.membership.adopt([late])
    assert [each.unit.seq for each in world.schedule.overdue(world.clock.monotonic())] == [2]


async def test_each_status_goes_on_where_it_stood() -> None:
    world = World(
        open_unit(1, "order"),
        open_unit(2, "order", status=Status.COMPENSATING, cause=CAUSE),
        open_unit(3, "order", status=Status.PARKED, cause=CAUSE),
        open_unit(4, "order", cancel_reason="mistake"),
    )
    await world.takeover.run_once()
    assert [world.entry(seq).phase for seq in (1, 2, 3, 4)] == [
        Phase.EXECUTE,
        Phase.COMPENSATE,
        Phase.PARKED,
        Phase.REFUSE,
    ]
    assert world.entry(2).problem == CAUSE
    problem = world.entry(4).problem
    assert problem is not None
    assert (problem.code, "mistake" in problem.message) == (ErrorCode.CANCELLED, True)
    assert world.schedule.parked == {3}


async def test_a_retried_parked_unit_is_compensated_again_and_others_stay_as_they_are() -> None:
    """F11."""
    parked = open_unit(3, "order", status=Status.PARKED, cause=CAUSE)
    world = World(parked, open_unit(1, "order"))
    await world.takeover.run_once()
    world.membership.adopt([replace(parked, status=Status.COMPENSATING), open_unit(1, "order")])
    assert world.entry(3).phase is Phase.COMPENSATE
    assert world.schedule.parked == set()
    assert world.entry(1).phase is Phase.EXECUTE
    assert len(world.schedule) == 2
