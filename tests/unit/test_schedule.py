"""What runs next: order of admission per key, nothing held back for nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from coordinator.domain.errors import ErrorCode, Problem
from coordinator.domain.operation import LockRequest, Unit
from coordinator.engine.ports import JOURNAL
from coordinator.engine.schedule import Batch, Entry, Phase, Schedule

PROBLEM = Problem(ErrorCode.CANCELLED, "cancelled")


def entry(seq: int, *keys: str, store: str = "ledger", deadline: float = 100.0) -> Entry:
    locks = tuple(LockRequest("account", key, exclusive=True) for key in keys or (str(seq),))
    plan = SimpleNamespace(locks=locks, branches={store: (0,)})
    unit = SimpleNamespace(seq=seq, plan=plan, weight_bytes=1000)
    return Entry(cast(Unit, unit), deadline=deadline)


def seqs(batch: Batch | None) -> list[int]:
    return [] if batch is None else [each.unit.seq for each in batch.entries]


def test_a_batch_has_no_conflicts_inside() -> None:
    """I5."""
    schedule = Schedule()
    for each in (entry(1, "a"), entry(2, "a"), entry(3, "b")):
        schedule.add(each)
    assert seqs(schedule.take(0.0, 10)) == [1, 3]
    assert seqs(schedule.take(0.0, 10)) == []
    schedule.end(1)
    assert seqs(schedule.take(0.0, 10)) == [2]


def test_a_batch_is_bounded_and_in_the_order_of_admission() -> None:
    """I12."""
    schedule = Schedule()
    for seq in (3, 1, 2):
        schedule.add(entry(seq))
    assert seqs(schedule.take(0.0, 2)) == [1, 2]
    assert seqs(schedule.take(0.0, 2)) == [3]


def test_what_the_open_units_weigh_is_counted_and_nothing_stays() -> None:
    """I12."""
    schedule = Schedule()
    for seq in (1, 2):
        schedule.add(entry(seq))
    assert schedule.weight_bytes == 2000
    schedule.end(1)
    schedule.end(1)
    assert schedule.weight_bytes == 1000
    schedule.end(2)
    assert schedule.weight_bytes == 0


def test_a_unit_set_aside_comes_back_after_its_pause() -> None:
    schedule = Schedule()
    one = entry(1)
    schedule.add(one)
    schedule.take(0.0, 10)
    schedule.again(one, not_before=5.0)
    assert seqs(schedule.take(1.0, 10)) == []
    assert schedule.next_pause_ends() == 5.0
    assert seqs(schedule.take(5.0, 10)) == [1]


def test_a_suspect_runs_alone_after_the_others_have_ended() -> None:
    """Rule 9: refused only when it fails alone, after every earlier unit of its batch."""
    schedule = Schedule()
    for seq in (1, 2, 3):
        schedule.add(entry(seq))
    taken = schedule.take(0.0, 10)
    assert taken is not None
    schedule.alone_after(taken.entries[2], [1, 2])
    schedule.add(entry(4))
    schedule.end(1)
    assert seqs(schedule.take(0.0, 10)) == [4]
    schedule.end(2)
    schedule.add(entry(5))
    assert seqs(schedule.take(0.0, 10)) == [3]
    assert seqs(schedule.take(0.0, 10)) == [5]


def test_units_of_a_store_that_is_away_wait_and_the_others_go_on() -> None:
    schedule = Schedule()
    schedule.add(entry(1, store="catalog"))
    schedule.add(entry(2))
    schedule.store_away("catalog")
    assert seqs(schedule.take(0.0, 10)) == [2]
    schedule.store_back("catalog")
    assert seqs(schedule.take(0.0, 10)) == [1]


def test_nothing_runs_while_the_journal_is_away() -> None:
    """I1: no store is touched that the journal could not conclude."""
    schedule = Schedule()
    schedule.add(entry(1))
    schedule.store_away(JOURNAL)
    assert schedule.take(0.0, 10) is None
    schedule.store_back(JOURNAL)
    assert seqs(schedule.take(0.0, 10)) == [1]


def test_a_refusal_overtakes_what_it_waited_for() -> None:
    """F7: a unit that only waits is refused in time, though its locks are not free."""
    schedule = Schedule()
    schedule.add(entry(1, "a"))
    late = entry(2, "a", deadline=3.0)
    schedule.add(late)
    schedule.take(0.0, 10)
    assert schedule.overdue(3.0) == [late]
    schedule.refuse(late, PROBLEM)
    batch = schedule.take(3.0, 10)
    assert batch is not None
    assert batch.phase is Phase.REFUSE
    assert seqs(batch) == [2]


def test_a_ready_unit_that_is_refused_is_not_executed() -> None:
    schedule = Schedule()
    one = entry(1)
    schedule.add(one)
    schedule.refuse(one, PROBLEM)
    batch = schedule.take(0.0, 10)
    assert batch is not None
    assert batch.phase is Phase.REFUSE
    assert schedule.take(0.0, 10) is None


def test_a_running_unit_is_not_overdue_until_it_is_put_back() -> None:
    """The journal's clock judges it at the pivot; ours does not interrupt."""
    schedule = Schedule()
    one = entry(1, deadline=3.0)
    schedule.add(one)
    schedule.take(0.0, 10)
    assert schedule.overdue(3.0) == []
    schedule.again(one)
    assert schedule.overdue(4.0) == [one]


def test_a_parked_unit_keeps_its_locks_until_it_ends() -> None:
    """F11: what waits behind it waits."""
    schedule = Schedule()
    one, two = entry(1, "a"), entry(2, "a")
    schedule.add(one)
    schedule.add(two)
    schedule.take(0.0, 10)
    schedule.park(one)
    assert schedule.take(0.0, 10) is None
    assert schedule.waits_for(two) == [one]
    schedule.end(1)
    assert seqs(schedule.take(0.0, 10)) == [2]


def test_a_unit_that_waits_for_another_workers_goes_when_the_journal_says_so() -> None:
    schedule = Schedule()
    one = entry(1)
    one.elsewhere = True
    schedule.add(one)
    assert schedule.take(0.0, 10) is None
    schedule.no_longer_elsewhere([1])
    assert seqs(schedule.take(0.0, 10)) == [1]


def test_a_compensation_goes_before_new_work() -> None:
    schedule = Schedule()
    one = entry(1)
    schedule.add(one)
    schedule.take(0.0, 10)
    schedule.add(entry(2))
    schedule.compensate(one, PROBLEM)
    batch = schedule.take(0.0, 10)
    assert batch is not None
    assert batch.phase is Phase.COMPENSATE
    assert seqs(batch) == [1]
    assert seqs(schedule.take(0.0, 10)) == [2]


def test_what_ends_while_the_journal_is_read_is_noted() -> None:
    """I2: a reading that shows it open is out of date; adopted, it would be applied again."""
    schedule = Schedule()
    schedule.add(entry(1))
    with schedule.noting_ends() as ended:
        schedule.end(1)
        schedule.end(2)
    schedule.end(3)
    assert ended == {1, 2}


# --- sharers ------------------------------------------------------------------------------------


def sharer(seq: int, *keys: str, store: str = "ledger") -> Entry:
    made = entry(seq, *keys, store=store)
    locks = tuple(LockRequest("account", key, exclusive=True, increment=True) for key in keys)
    made.unit.plan.locks = locks  # type: ignore[misc]
    return made


def test_sharers_of_a_key_are_taken_together_and_in_order() -> None:
    """I5, I12: as many as a batch takes; the rest comes when those have ended."""
    schedule = Schedule()
    for each in (sharer(1, "a"), sharer(2, "a"), entry(3, "b"), sharer(4, "a"), entry(5, "a")):
        schedule.add(each)
    assert seqs(schedule.take(0.0, 3)) == [1, 2, 3]
    assert seqs(schedule.take(0.0, 3)) == []
    schedule.end(1)
    schedule.end(2)
    assert seqs(schedule.take(0.0, 3)) == [4]
    schedule.end(4)
    assert seqs(schedule.take(0.0, 3)) == [5]


def test_nobody_goes_past_a_sharer_that_does_not_go() -> None:
    """I5: paused, elsewhere, refused, compensating or parked, it holds back those behind it."""
    for hold in ("pause", "elsewhere", "refuse", "compensate", "park", "away", "alone"):
        schedule = Schedule()
        first, second, third = sharer(1, "a"), sharer(2, "a", store="far"), sharer(3, "a")
        second.elsewhere = hold == "elsewhere"
        second.not_before = 9.0 if hold == "pause" else 0.0
        second.alone = hold == "alone"
        for each in (first, second, third):
            schedule.add(each)
        if hold == "refuse":
            schedule.refuse(second, PROBLEM)
            schedule.take(0.0, 10)
        elif hold == "compensate":
            schedule.compensate(second, PROBLEM)
            schedule.take(0.0, 10)
        elif hold == "park":
            schedule.park(second)
        elif hold == "away":
            schedule.store_away("far")
        assert seqs(schedule.take(0.0, 10)) == [1], hold
        assert seqs(schedule.take(0.0, 10)) == [], hold


def test_a_sharer_that_is_put_back_goes_on_when_those_before_it_have_ended() -> None:
    schedule = Schedule()
    entries = [sharer(seq, "a") for seq in (1, 2, 3)]
    for each in entries:
        schedule.add(each)
    assert seqs(schedule.take(0.0, 10)) == [1, 2, 3]
    schedule.again(entries[2])
    schedule.again(entries[1])
    assert seqs(schedule.take(0.0, 10)) == []
    schedule.end(1)
    assert seqs(schedule.take(0.0, 10)) == [2, 3]
