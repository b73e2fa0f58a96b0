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

from coordinator.domain.authority import UNBOUNDED, Authority, Breach
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
from coordinator.domain.errors import ErrorCode, Problem, clipped
from coordinator.domain.findings import Findings
from coordinator.domain.json_scan import recover_strings
from coordinator.domain.json_text import DEPTH_MAX, BrokenJson, canonical, compact, parse
from coordinator.domain.operation import Plan
from coordinator.domain.operation_reading import OperationsReader
from coordinator.domain.plan import make_plan
from coordinator.domain.signing import SENTENCES
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
    """A readable unit that is wrong: `rejected`, and its id may be used again (F2).

    ``breach`` says how it went beyond its authority, if it did.
    """

    id: str
    digest: str | None
    problems: tuple[Problem, ...]
    metadata: bytes | None
    reply_to: str | None
    traceparent: str | None = None
    breach: Breach | None = None


@dataclass(frozen=True, slots=True)
class RefusedCancel:
    """A cancel beyond its sender's authority: it touches nothing, and has no answer (F8)."""

    id: str
    breach: Breach


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """No unit at all. ``answer`` is the outcome that is due as well, where the id is known (F1)."""

    code: ErrorCode
    message: str
    answer: RefusedEarly | None = None


Reading = DeadLetter | RefusedEarly | RefusedCancel | Cancel | Submission


def read(
    record_value: bytes | None,
    headers: Sequence[tuple[str, bytes | None]],
    mapping: Mapping,
    max_bytes: int,
    timeout_ms_default: int,
    reply_topics: frozenset[str],
    draw: Draw,
    authority: Authority = UNBOUNDED,
) -> Reading:
    """Read one record whose sender has this authority. Pure but for ``draw``; never raises."""
    outside = _outside(record_value, max_bytes)
    if outside is not None:
        return outside
    said = read_headers(headers) if headers else NO_HEADERS
    opened = _opened(record_value, said)
    if isinstance(opened, BrokenJson):
        return _broken(opened, said, reply_topics, authority)
    if isinstance(opened, DeadLetter):
        return opened
    value, text, said = opened
    if "cancel" in value:
        return _read_cancel(value, text, said, reply_topics, authority)
    unit_id = value.get("id")
    if not is_unit_id(unit_id):
        return DeadLetter(ErrorCode.MALFORMED, _NO_ID)
    if not unit_id.startswith(authority.unit_id_prefix):
        return _foreign_id(unit_id, authority)
    return _Unit(value, unit_id, sha256(text).hexdigest(), said, reply_topics).read(
        mapping, timeout_ms_default, draw, authority
    )


def read_unauthentic(
    record_value: bytes | None,
    headers: Sequence[tuple[str, bytes | None]],
    max_bytes: int,
    breach: Breach,
) -> DeadLetter | RefusedEarly | RefusedCancel:
    """Read of a record whose signature does not count no more than the id that it names.

    What cannot be read is a dead letter as ever (F1), but without an answer: that would speak to
    the owner of an id on the word of somebody unknown. For the same reason the answer to what can
    be read has no digest, so that nobody takes it for the outcome of a unit of their own, echoes
    nothing and goes to no reply topic.
    """
    outside = _outside(record_value, max_bytes)
    if outside is not None:
        return outside
    opened = _opened(record_value, read_headers(headers))
    if isinstance(opened, BrokenJson):
        return DeadLetter(ErrorCode.MALFORMED, f"The record's value {opened.fault.value}.")
    if isinstance(opened, DeadLetter):
        return opened
    value = opened.value
    cancelled = value.get("cancel")
    unit_id = value.get("id")
    if is_unit_id(unit_id):
        return _denied(unit_id, breach, SENTENCES[breach])
    if is_unit_id(cancelled):
        return RefusedCancel(cancelled, breach)
    return DeadLetter(ErrorCode.MALFORMED, _NO_ID)


def _outside(record_value: bytes | None, max_bytes: int) -> DeadLetter | None:
    if not record_value:
        return DeadLetter(ErrorCode.MALFORMED, "The record has no value.")
    if len(record_value) > max_bytes:
        message = f"The record's value has {len(record_value)} bytes; {max_bytes} are allowed."
        return DeadLetter(ErrorCode.TOO_LARGE, message)
    return None


class _Opened(NamedTuple):
    """The submission in a record, its canonical text, and what the headers say."""

    value: dict[str, Any]
    text: bytes
    said: Headers


def _opened(record_value: bytes | None, said: Headers) -> _Opened | DeadLetter | BrokenJson:
    try:
        value, text = parse(record_value or b"", DEPTH_MAX + 1 if said.structured else DEPTH_MAX)
    except BrokenJson as broken:
        return broken
    if said.structured:
        try:
            value, said = _unwrapped(value, said)
        except NotAnEnvelope as reason:
            return DeadLetter(ErrorCode.MALFORMED, str(reason))
        text = canonical(value)
    if type(value) is not dict:
        return DeadLetter(ErrorCode.MALFORMED, "The record's value is no JSON object.")
    return _Opened(value, text, said)


def _denied(unit_id: str, breach: Breach, message: str) -> RefusedEarly:
    """Refuse a record that may not speak for the id that it names."""
    problem = Problem(ErrorCode.FORBIDDEN, message, "id" if breach is Breach.UNIT_ID else None)
    return RefusedEarly(unit_id, None, (problem,), None, None, None, breach)


def _foreign_id(unit_id: str, authority: Authority) -> RefusedEarly:
    message = f"The ids of this topic's units begin with {authority.unit_id_prefix}."
    return _denied(unit_id, Breach.UNIT_ID, message)


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


def _broken(
    broken: BrokenJson, said: Headers, reply_topics: frozenset[str], authority: Authority
) -> DeadLetter:
    message = f"The record's value {broken.fault.value}."
    answer = None
    if broken.text is not None:
        path = ("data", "id") if said.structured else ("id",)
        found = recover_strings(broken.text, path)
        prefix = authority.unit_id_prefix
        if len(found) == 1 and is_unit_id(found[0]) and found[0].startswith(prefix):
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
    value: dict[str, Any],
    text: bytes,
    said: Headers,
    reply_topics: frozenset[str],
    authority: Authority,
) -> Reading:
    if not _CANCEL_MEMBERS.issuperset(value):
        message = "A cancel has the members cancel and reason only."
        unit_id = value.get("id")
        if not is_unit_id(unit_id):
            return DeadLetter(ErrorCode.MALFORMED, message)
        if not unit_id.startswith(authority.unit_id_prefix):
            return _foreign_id(unit_id, authority)
        unit = _Unit(value, unit_id, sha256(text).hexdigest(), said, reply_topics)
        unit.findings.add("cancel", message)
        return unit.refused(None)
    if not is_unit_id(value["cancel"]):
        return DeadLetter(ErrorCode.MALFORMED, "cancel must be the id of a unit.")
    reason = value.get("reason", "")
    if not isinstance(reason, str):
        return DeadLetter(ErrorCode.MALFORMED, "The reason of a cancel must be a string.")
    if not value["cancel"].startswith(authority.unit_id_prefix):
        return RefusedCancel(value["cancel"], Breach.UNIT_ID)
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

    def read(
        self, mapping: Mapping, timeout_ms_default: int, draw: Draw, authority: Authority
    ) -> Reading:
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
        granted = authority.readers
        typed = OperationsReader(
            readers_of(mapping) if granted is None else granted,
            operations,
            draw,
            self.findings,
            bounded=granted is not None,
        ).read()
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
            problems := self.findings.problems(),
            metadata,
            self._reply_to,
            self._said.traceparent,
            _breach(problems),
        )


def _breach(problems: Sequence[Problem]) -> Breach | None:
    for problem in problems:
        if problem.code is ErrorCode.FORBIDDEN:
            return Breach.REPLY_TO if problem.operation is None else Breach.GRANT
    return None
