"""``coordinator submit``: send units, wait for each outcome, show them in the file's order."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from coordinator.cli.output import is_terminal, show_json, show_rows
from coordinator.client import ClientError, CoordinatorClient, Outcome, OutcomeLate
from coordinator.domain.errors import CoordinatorError

if TYPE_CHECKING:
    from coordinator.settings import Settings


class SubmitFailed(CoordinatorError):
    """The units could not be sent; the message says why."""


async def submit_and_show(
    settings: Settings, units: list[bytes], key: str | None, timeout_seconds: float
) -> int:
    """Submit and show; 0 when every unit is committed, else 1."""
    try:
        outcomes, late = await _submit(settings, units, key, timeout_seconds)
    except ClientError as error:
        raise SubmitFailed(str(error)) from error
    if is_terminal():
        show_rows([_row(outcome) for outcome in outcomes], _COLUMNS, empty="No outcome has come.")
    for missing in late:
        print(f"coordinator: {missing}", file=sys.stderr)
    return 0 if not late and all(outcome.committed for outcome in outcomes) else 1


async def _submit(
    settings: Settings, units: list[bytes], key: str | None, timeout_seconds: float
) -> tuple[list[Outcome], list[OutcomeLate]]:
    from time import monotonic

    outcomes: list[Outcome] = []
    late: list[OutcomeLate] = []
    async with CoordinatorClient(
        settings.kafka.bootstrap_servers,
        units_topic=settings.topics.units,
        outcomes_topic=settings.topics.outcomes,
        unit_bytes_max=settings.units.max_bytes,
        pending_max=max(len(units), 1),
    ) as client:
        tickets = await client.submit(units, key=key)
        ends_at = monotonic() + timeout_seconds
        for ticket in tickets:
            try:
                left = max(0.0, ends_at - monotonic())
                outcomes.append(await client.outcome(ticket, left, accept_parked=True))
            except OutcomeLate as error:
                late.append(error)
                continue
            if not is_terminal():
                show_json(outcomes[-1].raw)
    return outcomes, late


_COLUMNS = ("unit", "status", "duration_ms", "code", "message")


def _row(outcome: Outcome) -> dict[str, object]:
    error = outcome.error
    return {
        "unit": outcome.unit,
        "status": outcome.status.value + (" (again)" if outcome.duplicate else ""),
        "duration_ms": outcome.raw.get("duration_ms"),
        "code": error and error.code,
        "message": error and error.message,
    }
