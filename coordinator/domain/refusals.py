"""The refusals that no operation causes: deadlines and cancels, in a sender's words."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.domain.errors import ErrorCode, Problem
from coordinator.domain.operation import Unit

_REASON_LENGTH_MAX = 500


def cancelled(reason: str) -> Problem:
    """Say that a unit was cancelled, and why if the sender said so (F8)."""
    why = f": {reason[:_REASON_LENGTH_MAX]}" if reason else "; no reason was given"
    return Problem(ErrorCode.CANCELLED, f"The unit was cancelled{why}.")


def too_late(unit: Unit, waited_for_parked: Sequence[str] = ()) -> Problem:
    """Say that a unit's deadline has passed, and for which parked unit it waited (F7, F11)."""
    allowed_ms = round((unit.deadline_at - unit.received_at).total_seconds() * 1000)
    message = f"The unit was not committed within its {allowed_ms} ms."
    if waited_for_parked:
        message += f" It waited for the parked unit {waited_for_parked[0]}."
    return Problem(ErrorCode.DEADLINE_EXCEEDED, message)
