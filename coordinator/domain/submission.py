"""Reading a record: from bytes to a submission, a cancel, an early refusal or a dead letter.

Owns the first decision about every record (F1): what cannot be read as a unit is a dead letter,
what can be read but is wrong is refused with an outcome, with all that is wrong at once (F10),
and neither leaves a trace in the journal (F2). Never raises, whatever the bytes (I10).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeGuard

from coordinator.domain.cloudevents import (
    NO_HEADERS,
    Headers,
    NotAnEnvelope,
    read_headers,
    traceparent_of,
    unwrap,
)
from coordinator.domain.entity import Mapping
from coordinator.domain.entity_reading import readers_of
from coordinator.domain.errors import ErrorCode, Problem
from coordinator.domain.findings import Findings, clipped
from coordinator.domain.json_scan import recover_strings
from coordinator.domain.json_text import DEPTH_MAX, BrokenJson, canonical, compact, parse
from coordinator.domain.operation import Plan
from coordinator.domain.operation_reading import OperationsReader
from coordinator.domain.plan import make_plan
from coordinator.domain.values import Draw

OPERATIONS_MAX: Final = 100
TIMEOUT_MS_MAX: Final = 86_400_000


class Submission(NamedTuple):
    """A valid unit, ready to be journaled.

    ``digest`` is hex SHA-256 (F3), ``metadata`` JSON text as sent (compact), ``reply_to`` an
    allow-listed topic, ``traceparent`` a valid W3C trace context.
    """

    id: str
    digest: str
    plan: Plan
    timeout_ms: int
    metadata: bytes | None
    reply_to: str | None
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Somebody asks to give up unit ``id`` (F8). ``reply_to`` is set if allow-listed."""

    id: str
    reason: str | None
    reply_to: str | None = None


@dataclass(frozen=True, slots=True)
class RefusedEarly:
    """A readable unit that is wrong: `rejected`, and its id may be used again (F2)."""

    id: str
    digest: str | None
    problems: tuple[Problem, ...]
    metadata: bytes | None
    reply_to: str | None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """No unit at all. ``answer`` is the outcome that is due as well, where the id is known (F1)."""

    code: ErrorCode
    message: str
    answer: RefusedEarly | None = None


Reading = DeadLetter | RefusedEarly | Cancel | Submission


def read(
    record_value: bytes | None,
    headers: Sequence[tuple[str, bytes | None]],
    mapping: Mapping,
    max_bytes: int,
    timeout_ms_default: int,
    reply_topics: frozenset[str],
    draw: Draw,
) -> Reading:
    """Read one record. Pure but for ``draw``; never raises."""
    if not record_value:
        return DeadLetter(ErrorCode.MALFORMED, "The record has no value.")
    if len(record_value) > max_bytes:
        message = f"The record's value has {len(record_value)} bytes; {max_bytes} are allowed."
        return DeadLetter(ErrorCode.TOO_LARGE, message)
    said = read_headers(headers) if headers else NO_HEADERS
    try:
        value, text = parse(record_value, DEPTH_MAX + 1 if said.structured else DEPTH_MAX)
    except BrokenJson as broken:
        return _broken(broken, said, reply_topics)
    if said.structured:
        try:
            value, said = _unwrapped(value, said)
        except NotAnEnvelope as reason:
            return DeadLetter(ErrorCode.MALFORMED, str(reason))
        text = canonical(value)
    if type(value) is not dict:
        return DeadLetter(ErrorCode.MALFORMED, "The record's value is no JSON object.")
    if "cancel" in value:
        return _read_cancel(value, text, said, reply_topics)
    unit_id = value.get("id")
    if not is_unit_id(unit_id):
        return DeadLetter(ErrorCode.MALFORMED, _NO_ID)
    return _Unit(value, unit_id, sha256(text).hexdigest(), said, reply_topics).read(
        mapping, timeout_ms_default, draw
    )


_NO_ID: Final = "The unit has no valid id: 1 to 128 printable ASCII characters, no spaces."
_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")


def is_unit_id(given: Any) -> TypeGuard[str]:
    """Whether this can be a unit's id (F1)."""
    return isinstance(given, str) and _ID.fullmatch(given) is not None


def _unwrapped(envelope: Any, said: Headers) -> tuple[dict[str, Any], Headers]:
    data = unwrap(envelope)
    if said.traceparent is None:
        said = said._replace(traceparent=traceparent_of(envelope.get("traceparent")))
    return data, said


def _broken(broken: BrokenJson, said: Headers, reply_topics: frozenset[str]) -> DeadLetter:
    message = f"The record's value {broken.fault.value}."
    answer = None
    if broken.text is not None:
        path = ("data", "id") if said.structured else ("id",)
        found = recover_strings(broken.text, path)
        if len(found) == 1 and is_unit_id(found[0]):
            answer = RefusedEarly(
                id=found[0],
                digest=None,
                problems=(Problem(ErrorCode.MALFORMED, message),),
                metadata=None,
                reply_to=_allowed(said, reply_topics),
                traceparent=said.traceparent,
            )
    return DeadLetter(ErrorCode.MALFORMED, message, answer)


def _allowed(said: Headers, reply_topics: frozenset[str]) -> str | None:
    return said.reply_to if said.reply_to in reply_topics else None


# --- cancel -------------------------------------------------------------------------------------

_CANCEL_MEMBERS: Final = frozenset({"cancel", "reason"})


def _read_cancel(
    value: dict[str, Any], text: bytes, said: Headers, reply_topics: frozenset[str]
) -> Reading:
    if not _CANCEL_MEMBERS.issuperset(value):
        message = "A cancel has the members cancel and reason only."
        unit_id = value.get("id")
        if not is_unit_id(unit_id):
            return DeadLetter(ErrorCode.MALFORMED, message)
        unit = _Unit(value, unit_id, sha256(text).hexdigest(), said, reply_topics)
        unit.findings.add("cancel", message)
        return unit.refused(None)
    if not is_unit_id(value["cancel"]):
        return DeadLetter(ErrorCode.MALFORMED, "cancel must be the id of a unit.")
    reason = value.get("reason", "")
    if not isinstance(reason, str):
        return DeadLetter(ErrorCode.MALFORMED, "The reason of a cancel must be a string.")
    return Cancel(
        value["cancel"], reason if "reason" in value else None, _allowed(said, reply_topics)
    )


# --- units --------------------------------------------------------------------------------------

_UNIT_MEMBERS: Final = frozenset({"id", "timeout_ms", "operations", "metadata"})


class _Unit:
    """A unit in the making: its id is known, so whatever is wrong is an outcome."""

    __slots__ = ("_digest", "_id", "_reply_to", "_said", "_value", "findings")

    def __init__(
        self,
        value: dict[str, Any],
        unit_id: str,
        digest: str,
        said: Headers,
        reply_topics: frozenset[str],
    ) -> None:
        self.findings = Findings()
        self._value = value
        self._id = unit_id
        self._digest = digest
        self._said = said
        self._reply_to = said.reply_to
        if said.reply_to is not None and said.reply_to not in reply_topics:
            self._reply_to = None
            message = f"The reply-to topic {clipped(said.reply_to)} is not allow-listed."
            self.findings.add(None, message, ErrorCode.FORBIDDEN)

    def read(self, mapping: Mapping, timeout_ms_default: int, draw: Draw) -> Reading:
        value = self._value
        if not _UNIT_MEMBERS.issuperset(value):
            for member in value:
                if member not in _UNIT_MEMBERS:
                    self.findings.add(member, f"A unit has no member {clipped(member)}.")
        timeout_ms = value.get("timeout_ms", timeout_ms_default)
        if type(timeout_ms) is not int or not 1 <= timeout_ms <= TIMEOUT_MS_MAX:
            message = f"timeout_ms must be a whole number from 1 to {TIMEOUT_MS_MAX}."
            self.findings.add("timeout_ms", message)
        metadata = self._metadata()
        operations = value.get("operations")
        if type(operations) is not list or not 1 <= len(operations) <= OPERATIONS_MAX:
            message = f"operations must be a list of 1 to {OPERATIONS_MAX} operations."
            self.findings.add("operations", message)
            return self.refused(metadata)
        typed = OperationsReader(readers_of(mapping), operations, draw, self.findings).read()
        if self.findings:
            return self.refused(metadata)
        return Submission(
            self._id,
            self._digest,
            make_plan(mapping, typed),
            timeout_ms,
            metadata,
            self._reply_to,
            self._said.traceparent,
        )

    def _metadata(self) -> bytes | None:
        if "metadata" not in self._value:
            return None
        metadata = self._value["metadata"]
        if metadata is None:
            self.findings.add("metadata", "metadata must not be null; leave it out instead.")
            return None
        return compact(metadata)

    def refused(self, metadata: bytes | None) -> RefusedEarly:
        return RefusedEarly(
            self._id,
            self._digest,
            self.findings.problems(),
            metadata,
            self._reply_to,
            self._said.traceparent,
        )
