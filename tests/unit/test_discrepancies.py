"""The pure comparison of `coordinator verify`: every way to disagree, and nothing else."""

from __future__ import annotations

import itertools

import pytest

from coordinator.domain.discrepancies import (
    ADVICE,
    Discrepancy,
    FenceFacts,
    Kind,
    LockFacts,
    RecordFacts,
    UnitFacts,
    WorkerFacts,
    judge_branch,
    judge_fences,
    judge_lock,
)
from coordinator.domain.lifecycle import FINAL_STATUSES, Status

KEPT_SECONDS = 600.0
A, C, P = Status.ACCEPTED, Status.COMPENSATING, Status.PARKED
COMMITTED, REJECTED, COMPENSATED = Status.COMMITTED, Status.REJECTED, Status.COMPENSATED


def unit(
    status: Status,
    *,
    stores: tuple[str, ...] = ("catalog",),
    final_seconds: float = 1.0,
    swept: bool = False,
    by_hand: bool = False,
) -> UnitFacts:
    seconds = final_seconds if status in FINAL_STATUSES else None
    return UnitFacts(7, "u-1", "d1", status, stores, seconds, swept, by_hand)


def record(state: str, digest: str = "d1") -> RecordFacts:
    return RecordFacts("u-1", digest, state)


def judged(of: UnitFacts | None, found: RecordFacts | None) -> Kind | None:
    result = judge_branch("catalog", "u-1", of, found, KEPT_SECONDS)
    if result is None:
        return None
    assert (result[0].unit, result[0].store) == ("u-1", "catalog")
    return result[0].kind


ALLOWED: dict[Status, set[str | None]] = {
    A: {None, "applied"},
    C: {None, "applied", "undone", "tombstone"},
    P: {"applied", "undone", "tombstone"},
    COMMITTED: {"applied"},
    REJECTED: {None, "undone", "tombstone"},
    COMPENSATED: {"undone", "tombstone"},
}
"""What a healthy store may hold of a unit; all else is a discrepancy."""


@pytest.mark.parametrize(
    ("status", "state"), [*itertools.product(Status, (None, "applied", "undone", "tombstone"))]
)
def test_a_status_and_a_state_agree_or_not(status: Status, state: str | None) -> None:
    found = None if state is None else record(state)
    assert (judged(unit(status), found) is None) == (state in ALLOWED[status])


@pytest.mark.parametrize(
    ("status", "state", "kind"),
    [
        (COMMITTED, None, Kind.RECORD_MISSING),
        (COMMITTED, "undone", Kind.COMMITTED_IN_PART),
        (COMMITTED, "tombstone", Kind.COMMITTED_IN_PART),
        (REJECTED, "applied", Kind.ENDED_BUT_APPLIED),
        (COMPENSATED, "applied", Kind.ENDED_BUT_APPLIED),
        (COMPENSATED, None, Kind.RECORD_MISSING),
        (P, None, Kind.RECORD_MISSING),
        (A, "tombstone", Kind.UNDONE_BEFORE_ITS_TIME),
        (A, "undone", Kind.UNDONE_BEFORE_ITS_TIME),
    ],
)
def test_each_disagreement_has_its_name(status: Status, state: str | None, kind: Kind) -> None:
    assert judged(unit(status), None if state is None else record(state)) is kind


def test_a_record_may_go_once_it_is_old_enough_to_be_swept() -> None:
    assert judged(unit(COMMITTED, final_seconds=599.9), None) is Kind.RECORD_MISSING
    assert judged(unit(COMMITTED, final_seconds=600.0), None) is None
    assert judged(unit(COMMITTED, swept=True), None) is None


def test_what_a_person_has_resolved_may_still_be_applied() -> None:
    assert judged(unit(COMPENSATED, by_hand=True), record("applied")) is None


def test_records_that_belong_to_nothing() -> None:
    assert judged(None, record("applied")) is Kind.RECORD_WITHOUT_UNIT
    assert judged(None, record("tombstone")) is Kind.RECORD_WITHOUT_UNIT
    assert judged(None, None) is None
    assert judged(unit(COMMITTED), record("applied", "d2")) is Kind.RECORD_OF_OTHER_CONTENT
    assert judged(unit(COMMITTED, swept=True), record("applied")) is Kind.RECORD_AFTER_SWEEP
    assert judged(unit(COMMITTED, stores=()), record("applied")) is Kind.RECORD_OUT_OF_PLACE
    assert judged(unit(COMMITTED, stores=("archive",)), None) is None


def test_time_alone_does_not_move_a_unit() -> None:
    before = unit(COMMITTED, final_seconds=1.0)
    assert before.is_as_before(unit(COMMITTED, final_seconds=9.0))
    assert not before.is_as_before(unit(COMMITTED, swept=True))
    assert not unit(A).is_as_before(before)
    assert not before.is_as_before(None)


@pytest.mark.parametrize("status", [None, *Status])
def test_locks_are_of_open_units(status: Status | None) -> None:
    result = judge_lock(LockFacts("account", "1", 7, status))
    if status is None:
        assert result is not None
        assert result[0].kind is Kind.LOCK_WITHOUT_UNIT
    elif status in FINAL_STATUSES:
        assert result is not None
        assert result[0].kind is Kind.LOCK_OF_FINAL_UNIT
    else:
        assert result is None


def test_fences_follow_the_workers() -> None:
    before = {
        1: WorkerFacts(1, frozenset({"catalog"})),
        2: WorkerFacts(2, frozenset()),
        3: WorkerFacts(3, frozenset({"archive"})),
    }
    after = {**before, 5: WorkerFacts(5, frozenset())}
    fences = [
        FenceFacts(0, -2, True),  # the mark of workers that were forgotten
        FenceFacts(1, -1, True),
        FenceFacts(2, -1, False),
        FenceFacts(2, 0, False),
        FenceFacts(3, -1, False),  # fenced elsewhere, not yet here
        FenceFacts(5, -1, False),  # has come in between
    ]
    assert list(judge_fences("catalog", before, fences, after)) == []
    damaged = [FenceFacts(1, -1, False), FenceFacts(1, 0, False), FenceFacts(9, 0, False)]
    assert [each for each, _ in judge_fences("catalog", before, damaged, after)] == [
        Discrepancy(Kind.FENCE_WITHOUT_WORKER, store="catalog", subject="worker 9"),
        Discrepancy(Kind.FENCE_OPEN, store="catalog", subject="worker 1"),
    ]


def test_every_kind_says_what_it_means_and_what_to_do() -> None:
    assert ADVICE.keys() == set(Kind)
    assert all(each.meaning and each.remedy for each in ADVICE.values())
