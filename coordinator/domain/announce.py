"""Announcing: the outcome of a unit and the change events of a committed one, ready to send.

Pure: built inside the transaction that decides, from what was read there, and stored in the
outbox with it, so that what is published is exactly what was decided (I7, I8). Values are JSON
in UTF-8; headers are CloudEvents in binary mode, all of them UTF-8 strings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from coordinator.domain.decide import Effect
from coordinator.domain.entity import Entity
from coordinator.domain.errors import ErrorCode, Problem, error_as_json
from coordinator.domain.lifecycle import Status
from coordinator.domain.operation import Origin, Unit
from coordinator.domain.publishing import Done, Header, Message
from coordinator.domain.values import SAFE_INTEGER_MAX

_OVERHEAD_BYTES = 128
"""What a record batch of one adds to its record: 61 bytes of batch and the record's own varints."""

_HEADERS_BYTES_MAX = 2048
"""More than the headers of a message take, but for its key in ``ce_subject`` and our name."""

_BRIEF_TEXT_LENGTH = 200

_CHANGE_TYPES: Mapping[Effect, Header] = {
    effect: ("ce_type", f"io.coordinator.entity.{name}.v1".encode())
    for effect, name in (
        (Effect.CREATED, "created"),
        (Effect.UPDATED, "updated"),
        (Effect.DELETED, "deleted"),
    )
}
_OUTCOME_TYPES: Mapping[Status, Header] = {
    status: ("ce_type", f"io.coordinator.unit.{status.value}.v1".encode()) for status in Status
}
_JSON = ("content-type", b"application/json")
_SPEC = ("ce_specversion", b"1.0")


class _Voice:
    """What is the same in all events of one entity: the topic, and the parts between the values."""

    __slots__ = ("entity", "source_head", "source_tail", "topic")

    def __init__(self, announcer: Announcer, entity: Entity) -> None:
        self.entity = entity
        self.topic = announcer.topic_of(entity.name)
        place = "collection" if entity.schema is None else "table"
        table = entity.table if entity.schema is None else f"{entity.schema}.{entity.table}"
        self.source_head = (
            b',"source":{"connector":"coordinator","version":%b,"name":%b,"ts_ms":'
            % (_text(announcer.version), _text(announcer.name))
        )
        self.source_tail = b',"store":%b,"entity":%b,"%b":%b},"transaction":{"id":' % (
            _text(entity.store),
            _text(entity.name),
            place.encode(),
            _text(table),
        )


@dataclass(frozen=True, slots=True)
class Announcer:
    """Where and under which names things are announced.

    ``changes_topic`` holds ``{entity}``. ``limits_bytes`` maps a topic to its
    ``max.message.bytes``; a topic that is missing there is not judged.
    """

    name: str
    version: str
    outcomes_topic: str
    changes_topic: str
    tombstones: bool = False
    limits_bytes: Mapping[str, int] = field(default_factory=dict)
    source_header: Header = field(init=False, repr=False, compare=False)
    """``ce_source``."""
    _voices: dict[int, _Voice] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "source_header", ("ce_source", f"/coordinator/{self.name}".encode())
        )

    def topic_of(self, entity: str) -> str:
        """Give the topic of an entity's change events."""
        return self.changes_topic.replace("{entity}", entity)

    def voice(self, entity: Entity) -> _Voice:
        """Give what is the same in all events of an entity."""
        voice = self._voices.get(id(entity))
        if voice is None:
            if len(self._voices) >= _VOICES_MAX:
                self._voices.clear()
            # It keeps the entity, or its id might come again for another.
            voice = self._voices[id(entity)] = _Voice(self, entity)
        return voice


_VOICES_MAX = 512


@lru_cache(maxsize=64)
def instant(at: datetime) -> str:
    """Give an aware UTC time as RFC 3339 with microseconds and ``Z``."""
    return at.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


@lru_cache(maxsize=64)
def _time_header(at: datetime) -> Header:
    return ("ce_time", instant(at).encode())


# --- outcomes -----------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """What an outcome says about one unit, before it is bytes. ``operations`` is a JSON array."""

    unit_id: str
    digest: str | None
    status: Status
    problems: tuple[Problem, ...]
    received_at: datetime
    finished_at: datetime
    metadata: bytes | None
    operations: bytes = b"[]"


def outcome_value(verdict: Verdict, *, duplicate: bool = False) -> bytes:
    """Give the outcome's JSON (DESIGN 2.2)."""
    received_at, finished_at = verdict.received_at, verdict.finished_at
    duration_ms = round(max(0.0, (finished_at - received_at).total_seconds() * 1000), 3)
    return (
        b'{"unit":%b,"digest":%b,"status":"%b","duplicate":%b,"error":%b,"operations":%b,'
        b'"received_at":"%b","finished_at":"%b","duration_ms":%b,"metadata":%b}'
        % (
            _text(verdict.unit_id),
            _NULL if verdict.digest is None else _text(verdict.digest),
            verdict.status.encode(),
            b"true" if duplicate else b"false",
            orjson.dumps(error_as_json(verdict.problems)) if verdict.problems else _NULL,
            verdict.operations,
            instant(received_at).encode(),
            instant(finished_at).encode(),
            repr(duration_ms).encode(),
            verdict.metadata or _NULL,
        )
    )


def as_duplicate(stored: bytes) -> bytes:
    """Give the stored outcome again, equal but for ``"duplicate": true`` (F4)."""
    return stored.replace(b'"duplicate":false', b'"duplicate":true', 1)


def outcome_messages(
    announcer: Announcer,
    *,
    unit_id: str,
    ce_id: str,
    status: Status,
    value: bytes,
    finished_at: datetime,
    reply_to: str | None,
    traceparent: str | None,
    shorten: bool = True,
) -> list[Message]:
    """Give the outcome's message, and its copy for an allow-listed reply topic.

    With ``shorten`` a value that its topic could not take loses its metadata, then all details
    but the first: a decision must be told whatever was attached to the unit (I7), and a message
    that is refused would hold up its topic. A unit that shall commit is judged unshortened (F26).
    """
    key = unit_id.encode()
    headers = _headers(announcer, ce_id, _OUTCOME_TYPES[status], key, finished_at, traceparent)
    topics = [announcer.outcomes_topic]
    if reply_to is not None and reply_to != announcer.outcomes_topic:
        topics.append(reply_to)
    messages = [Message(topic, key, value, headers) for topic in topics]
    return [_shortened(announcer, each) for each in messages] if shorten else messages


def _shortened(announcer: Announcer, message: Message) -> Message:
    if oversize(announcer, (message,)) is None or message.value is None:
        return message
    outcome = orjson.loads(message.value)
    outcome["metadata"] = None
    shorter = message._replace(value=orjson.dumps(outcome))
    error = outcome["error"]
    if oversize(announcer, (shorter,)) is None or error is None:
        return shorter
    outcome["error"] = _brief(error)
    return message._replace(value=orjson.dumps(outcome))


def _brief(error: dict[str, Any]) -> dict[str, Any]:
    first = {
        name: value[:_BRIEF_TEXT_LENGTH] if isinstance(value, str) else value
        for name, value in error.items()
        if name != "details"
    }
    return {**first, "details": [first]}


def refused_ce_id(unit_id: str, origin: Origin) -> str:
    """Give the ``ce_id`` of an early refusal's outcome (F5)."""
    return f"{unit_id}/refused/{origin.topic}-{origin.partition}-{origin.offset}"


def duplicate_ce_id(unit_id: str, origin: Origin) -> str:
    """Give the ``ce_id`` of the answer to a duplicate (F5)."""
    return f"{unit_id}/duplicate/{origin.topic}-{origin.partition}-{origin.offset}"


def committed_operations(unit: Unit, done: Sequence[Done]) -> bytes:
    """Give the outcome's ``operations``: one per submitted operation, in that order (F9)."""
    by_position = {each.position: each for each in done}
    entities = unit.mapping.entities
    entries: list[tuple[int, bytes]] = []
    for position, operation in enumerate(unit.plan.operations):
        each = by_position[position]
        parts = b'{"entity":%b,"key":%b,"op":"%b"' % (
            _text(operation.entity),
            operation.key_text.encode(),
            operation.kind.encode(),
        )
        if entities[operation.entity].version is not None:
            parts += b',"version":%b' % _version(each.version)
        if each.effect is Effect.NOTHING:
            parts += b',"applied":false'
        entries.append((operation.index, parts))
    entries.sort()
    return b"[%b}]" % b"},".join([parts for _, parts in entries])


def _version(version: int | None) -> bytes:
    if version is None:
        return _NULL
    if -SAFE_INTEGER_MAX <= version <= SAFE_INTEGER_MAX:
        return b"%d" % version
    return b'"%d"' % version


# --- change events ------------------------------------------------------------------------------


def change_messages(
    announcer: Announcer, unit: Unit, done: Sequence[Done], finished_at: datetime
) -> list[Message]:
    """Give a committed unit's change events in ``total_order`` (F34)."""
    messages: list[Message] = []
    per_entity: dict[str, int] = {}
    ts_ms = b"%d" % int(finished_at.timestamp() * 1000)
    operations, entities = unit.plan.operations, unit.mapping.entities
    unit_id = _text(unit.id)
    end = b"}" if unit.metadata is None else b',"metadata":%b}' % unit.metadata
    total = 0
    for each in sorted(done):
        position, effect, before, after, _ = each
        if effect is Effect.NOTHING:
            continue
        operation = operations[position]
        name = operation.entity
        total += 1
        count = per_entity[name] = per_entity.get(name, 0) + 1
        voice = announcer.voice(entities[name])
        value = (
            b'{"op":"%b","before":%b,"after":%b%b%b%b%b,"total_order":%d,'
            b'"data_collection_order":%d},"ts_ms":%b%b'
            % (
                effect.encode(),
                before or _NULL,
                after or _NULL,
                voice.source_head,
                ts_ms,
                voice.source_tail,
                unit_id,
                total,
                count,
                ts_ms,
                end,
            )
        )
        key = operation.key_text.encode()
        headers = _headers(
            announcer,
            f"{unit.id}/{total}",
            _CHANGE_TYPES[effect],
            key,
            finished_at,
            unit.traceparent,
        )
        messages.append(Message(voice.topic, key, value, headers))
        if effect is Effect.DELETED and announcer.tombstones:
            messages.append(Message(voice.topic, key, None, headers))
    return messages


def oversize(announcer: Announcer, messages: Sequence[Message]) -> Problem | None:
    """Say which message its topic could not take (F26), if any."""
    limits = announcer.limits_bytes
    headers_bytes_max = _HEADERS_BYTES_MAX + len(announcer.name)
    for message in messages:
        limit = limits.get(message.topic)
        if limit is None:
            continue
        # Nearly all are far from it: the exact size costs more than making the message.
        if len(message.value or b"") + 2 * len(message.key or b"") + headers_bytes_max < limit:
            continue
        if size_bytes(message) > limit:
            return Problem(
                ErrorCode.TOO_LARGE,
                f"What the unit would publish to {message.topic} is {size_bytes(message)} bytes; "
                f"the topic takes at most {limit}.",
                path="operations",
            )
    return None


def size_bytes(message: Message) -> int:
    """Give an upper bound of what the message takes in a record batch of its own, in bytes."""
    size = _OVERHEAD_BYTES + len(message.key or b"") + len(message.value or b"")
    for name, content in message.headers:
        size += len(name) + len(content or b"") + 8
    return size


def _headers(
    announcer: Announcer,
    ce_id: str,
    ce_type: Header,
    subject: bytes,
    time: datetime,
    traceparent: str | None,
) -> tuple[Header, ...]:
    headers: tuple[Header, ...] = (
        _SPEC,
        ("ce_id", ce_id.encode()),
        ce_type,
        announcer.source_header,
        ("ce_subject", subject),
        _time_header(time),
        _JSON,
    )
    if traceparent is not None:
        headers = (*headers, ("traceparent", traceparent.encode()))
    return headers


_text = orjson.dumps
_NULL = b"null"
