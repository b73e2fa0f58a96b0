"""``coordinator submit``: send units, wait for each outcome, show them in the file's order."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from coordinator.bootstrap.kafka_security import kafka_options
from coordinator.cli.output import is_terminal, show_json, show_rows
from coordinator.client import (
    ClientError,
    CoordinatorClient,
    KeyUnusable,
    Outcome,
    OutcomeLate,
    Signer,
    load_private_key,
)
from coordinator.domain.errors import CoordinatorError

if TYPE_CHECKING:
    from coordinator.settings import Settings
    from coordinator.settings.intakes import Intake

_LIFETIME_SECONDS: Final = 900


class SubmitFailed(CoordinatorError):
    """The units could not be sent; the message says why."""


@dataclass(frozen=True, slots=True)
class Signing:
    """Which private key signs, by which name the topic knows it, and for whom."""

    file: Path
    key_id: str
    audience: str | None = None


async def submit_and_show(
    settings: Settings,
    units: list[bytes],
    key: str | None,
    timeout_seconds: float,
    *,
    topic: str | None = None,
    signing: Signing | None = None,
) -> int:
    """Submit and show; 0 when every unit is committed, else 1."""
    intake = _intake(settings, topic)
    signer = None if signing is None else _signer(signing, intake)
    try:
        outcomes, late = await _submit(settings, intake, signer, units, key, timeout_seconds)
    except ClientError as error:
        raise SubmitFailed(str(error)) from error
    if is_terminal():
        show_rows([_row(outcome) for outcome in outcomes], _COLUMNS, empty="No outcome has come.")
    for missing in late:
        print(f"coordinator: {missing}", file=sys.stderr)
    return 0 if not late and all(outcome.committed for outcome in outcomes) else 1


def _intake(settings: Settings, topic: str | None) -> Intake:
    """Find the topic to submit to among those that the daemon reads."""
    known = {intake.topic: intake for intake in settings.intakes}
    if topic is None and len(known) == 1:
        return settings.intakes[0]
    if topic in known:
        return known[topic]
    names = ", ".join(known)
    if topic is None:
        raise SubmitFailed(f"There are several topics of units; say which by --topic: {names}.")
    raise SubmitFailed(f"{topic} is no topic of units; there are {names}.")


def _signer(signing: Signing, intake: Intake) -> Signer:
    """Make the signer; a signature lasts no longer than the topic allows."""
    expected = intake.signed
    audience = signing.audience or (expected and expected.audience) or intake.topic
    longest = _LIFETIME_SECONDS if expected is None else expected.max_age_seconds
    try:
        return Signer(
            load_private_key(signing.file),
            signing.key_id,
            audience,
            lifetime_seconds=min(_LIFETIME_SECONDS, longest),
        )
    except KeyUnusable as error:
        raise SubmitFailed(f"--sign-with {signing.file}: {error}") from error


async def _submit(
    settings: Settings,
    intake: Intake,
    signer: Signer | None,
    units: list[bytes],
    key: str | None,
    timeout_seconds: float,
) -> tuple[list[Outcome], list[OutcomeLate]]:
    from time import monotonic

    outcomes: list[Outcome] = []
    late: list[OutcomeLate] = []
    async with CoordinatorClient(
        settings.kafka.bootstrap_servers,
        units_topic=intake.topic,
        signer=signer,
        kafka_options=kafka_options(settings),
        allow_plaintext=settings.kafka.allow_plaintext,
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
