"""The life of a unit: every pair of status and transition, and the page that is drawn from it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from coordinator.domain.errors import InvariantViolated
from coordinator.domain.lifecycle import (
    FINAL_STATUSES,
    TRANSITIONS,
    Status,
    Transition,
    next_status,
)
from coordinator.domain.lifecycle_diagram import render_page

S, T = Status, Transition
PAGE = Path(__file__).parents[2] / "docs/state-machine.md"

# Written again on purpose: whoever changes the table has to mean it (I4).
LEGAL = {
    (S.ACCEPTED, T.PIVOT_COMMITTED): S.COMMITTED,
    (S.ACCEPTED, T.REFUSED_UNTOUCHED): S.REJECTED,
    (S.ACCEPTED, T.REFUSED_IN_DOUBT): S.COMPENSATING,
    (S.COMPENSATING, T.FOUND_NOTHING): S.REJECTED,
    (S.COMPENSATING, T.UNDONE): S.COMPENSATED,
    (S.COMPENSATING, T.PERSON_NEEDED): S.PARKED,
    (S.PARKED, T.RETRIED): S.COMPENSATING,
    (S.PARKED, T.RESOLVED_BY_HAND): S.COMPENSATED,
}


@pytest.mark.parametrize(("status", "transition"), list(itertools.product(Status, Transition)))
def test_every_pair_is_legal_or_raises(status: Status, transition: Transition) -> None:
    after = LEGAL.get((status, transition))
    if after is not None:
        assert next_status(status, transition) is after
    else:
        with pytest.raises(InvariantViolated, match=f"{status} cannot be {transition}"):
            next_status(status, transition)


def test_final_is_what_nothing_leaves() -> None:
    assert sorted(FINAL_STATUSES) == ["committed", "compensated", "rejected"]
    assert set(TRANSITIONS) == set(Status)


def test_direction_is_one_way() -> None:
    """I4: no path leads back to accepted, and none from compensating or parked to committed."""
    reached = {status: {status} for status in Status}
    for _ in Status:
        for status, ways in TRANSITIONS.items():
            for after in ways.values():
                reached[status] |= reached[after]
    for status in set(Status) - {S.ACCEPTED}:
        assert S.ACCEPTED not in reached[status]
    assert S.COMMITTED not in reached[S.COMPENSATING] | reached[S.PARKED]
    for status in Status:
        assert reached[status] & FINAL_STATUSES, f"{status} never ends (I7)"


def test_the_page_is_generated() -> None:
    told = "run: python -m coordinator.domain.lifecycle_diagram > docs/state-machine.md"
    assert PAGE.read_text() == render_page(), told
