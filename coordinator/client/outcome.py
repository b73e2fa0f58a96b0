"""Outcomes as typed values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from coordinator.domain.lifecycle import FINAL_STATUSES, Status


@dataclass(frozen=True, slots=True)
class OutcomeError:
    """Why a unit did not commit (F10). ``code`` is of the contract's closed list."""

    code: str
    message: str
    path: str | None
    operation: int | None
    entity: str | None
    key: Any
    retryable: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a unit; ``raw`` is the whole message as it was published."""

    unit: str
    digest: str | None
    status: Status
    duplicate: bool
    error: OutcomeError | None
    raw: Mapping[str, Any]

    @property
    def committed(self) -> bool:
        """Whether everything in the unit has happened."""
        return self.status is Status.COMMITTED

    @property
    def final(self) -> bool:
        """Whether this is the last word: all but parked."""
        return self.status in FINAL_STATUSES

    @property
    def operations(self) -> list[dict[str, Any]]:
        """Per submitted operation ``entity``, ``key``, ``op``, ``version`` (F9); [] if refused."""
        return list(self.raw.get("operations") or [])


def read_outcome(value: bytes) -> Outcome:
    """Read a message of the outcomes topic; raise ``ValueError`` when it is none."""
    raw = _parse(value)
    try:
        error = raw.get("error")
        return Outcome(
            unit=raw["unit"],
            digest=raw.get("digest"),
            status=Status(raw["status"]),
            duplicate=bool(raw.get("duplicate")),
            error=None if error is None else _read_error(error),
            raw=raw,
        )
    except (KeyError, AttributeError, TypeError) as fault:
        raise ValueError(f"this is no outcome: {fault}") from fault


def _parse(value: bytes) -> Any:
    """Parse an outcome; the faster parser would round the numbers that metadata may hold."""
    return (orjson if value.endswith(_NO_METADATA) else json).loads(value)


_NO_METADATA: Final = b'"metadata":null}'


def _read_error(error: Mapping[str, Any]) -> OutcomeError:
    return OutcomeError(
        code=error["code"],
        message=error["message"],
        path=error.get("path"),
        operation=error.get("operation"),
        entity=error.get("entity"),
        key=error.get("key"),
        retryable=bool(error.get("retryable")),
    )
