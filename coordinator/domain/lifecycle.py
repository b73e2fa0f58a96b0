"""The life of a unit: every status and every legal transition, in this one table.

Rule: whatever changes a unit's status asks `next_status` first; a pair that is not in the table
raises. Direction is one-way (I4): nothing leaves a final status, nothing turns back from
compensating. The journal repeats the check by compare-and-set, because only its row decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from coordinator.domain.errors import InvariantViolated


class Status(StrEnum):
    """Where a unit stands. The last four are what an outcome can say."""

    ACCEPTED = "accepted"
    COMPENSATING = "compensating"
    COMMITTED = "committed"
    REJECTED = "rejected"
    COMPENSATED = "compensated"
    PARKED = "parked"


class Transition(StrEnum):
    """What can happen to a unit, as past participles."""

    PIVOT_COMMITTED = "pivot_committed"
    REFUSED_UNTOUCHED = "refused_untouched"
    """Refused, and no apply was ever sent: nothing to look for, nothing to undo."""
    REFUSED_IN_DOUBT = "refused_in_doubt"
    """Refused after an apply may have been sent: only a write concludes (rule 1)."""
    FOUND_NOTHING = "found_nothing"
    """Every participant's compensation found nothing applied."""
    UNDONE = "undone"
    PERSON_NEEDED = "person_needed"
    RETRIED = "retried"
    RESOLVED_BY_HAND = "resolved_by_hand"


S, T = Status, Transition

TRANSITIONS: Final[Mapping[Status, Mapping[Transition, Status]]] = {
    S.ACCEPTED: {
        T.PIVOT_COMMITTED: S.COMMITTED,
        T.REFUSED_UNTOUCHED: S.REJECTED,
        T.REFUSED_IN_DOUBT: S.COMPENSATING,
    },
    S.COMPENSATING: {
        T.FOUND_NOTHING: S.REJECTED,
        T.UNDONE: S.COMPENSATED,
        T.PERSON_NEEDED: S.PARKED,
    },
    S.PARKED: {T.RETRIED: S.COMPENSATING, T.RESOLVED_BY_HAND: S.COMPENSATED},
    S.COMMITTED: {},
    S.REJECTED: {},
    S.COMPENSATED: {},
}

FINAL_STATUSES: Final = frozenset(status for status, ways in TRANSITIONS.items() if not ways)


def next_status(status: Status, transition: Transition) -> Status:
    """Give the status that ``transition`` leads to; raise `InvariantViolated` where none does."""
    try:
        return TRANSITIONS[status][transition]
    except KeyError:
        raise InvariantViolated(f"a unit that is {status} cannot be {transition}") from None
