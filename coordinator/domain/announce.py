"""Announcing: the outcome of a unit and the change events of a committed one, ready to send.

Pure: built inside the transaction that decides, from what was read there, and stored in the
outbox with it, so that what is published is exactly what was decided (I7, I8). Values are JSON
in UTF-8; headers are CloudEvents in binary mode, all of them UTF-8 strings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import orjson

from coordinator.domain.decide import Effect
from coordinator.domain.entity import FieldType
from coordinator.domain.errors import ErrorCode, Problem, error_as_json
from coordinator.domain.lifecycle import Status
from coordinator.domain.operation import Operation, Origin, Unit
from coordinator.domain.publishing import Done, Header, Message
from coordinator.domain.values import wire

_OVERHEAD_BYTES = 128
"""What a record batch of one adds to its record: 61 bytes of batch and the record's own varints."""

_BRIEF_TEXT_LENGTH = 200

_EFFECT_NAMES = {Effect.CREATED: "created", Effect.UPDATED: "updated", Effect.DELETED: "deleted"}
_JSON = ("content-type", b"application/json")
_SPEC = ("ce_specversion", b"1.0")


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

    @property
    def source(self) -> bytes:
        """Give ``ce_source``."""
        return f"/coordinator/{self.name}".encode()

    def topic_of(self, entity: str) -> str:
        """Give the topic of an entity's change events."""
        return self.changes_topic.replace("{entity}", entity)


def instant(at: datetime) -> str:
    """Give an aware UTC time as RFC 3339 with microseconds and ``Z``."""
    return at.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


# --- outcomes -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an outcome says about one unit, before it is bytes."""

    unit_id: str
    digest: str | None
    status: Status
    problems: tuple[Problem, ...]
    operations: Sequence[Mapping[str, Any]]
    received_at: datetime
    finished_at: datetime
    metadata: bytes | None


def outcome_value(verdict: Verdict, *, duplicate: bool = False) -> bytes:
    """Give the outcome's JSON (DESIGN 2.2)."""
    duration = verdict.finished_at - verdict.received_at
    return orjson.dumps(
        {
            "unit": verdict.unit_id,
            "digest": verdict.digest,
            "status": verdict.status.value,
            "duplicate": duplicate,
            "error": error_as_json(verdict.problems) if verdict.problems else None,
            "operations": verdict.operations,
            "received_at": instant(verdict.received_at),
            "finished_at": instant(verdict.finished_at),
            "duration_ms": round(max(0.0, duration.total_seconds() * 1000), 3),
            "metadata": _fragment(verdict.metadata),
        }
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
    headers = _headers(
        announcer, ce_id, f"io.coordinator.unit.{status.value}.v1", key, finished_at, traceparent
    )
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
    shorter = replace(message, value=orjson.dumps(outcome))
    error = outcome["error"]
    if oversize(announcer, (shorter,)) is None or error is None:
        return shorter
    outcome["error"] = _brief(error)
    return replace(message, value=orjson.dumps(outcome))


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


def committed_operations(unit: Unit, done: Sequence[Done]) -> list[dict[str, Any]]:
    """Give the outcome's ``operations``: one per submitted operation, in that order (F9)."""
    by_position = {each.position: each for each in done}
    entries: list[tuple[int, dict[str, Any]]] = []
    for position, operation in enumerate(unit.plan.operations):
        each = by_position[position]
        entry: dict[str, Any] = {
            "entity": operation.entity,
            "key": orjson.Fragment(operation.key_text),
            "op": operation.kind.value,
        }
        if unit.mapping.entities[operation.entity].version is not None:
            entry["version"] = wire(FieldType.INTEGER, each.version)
        if each.effect is Effect.NOTHING:
            entry["applied"] = False
        entries.append((operation.index, entry))
    entries.sort(key=lambda pair: pair[0])
    return [entry for _, entry in entries]


# --- change events ------------------------------------------------------------------------------


def change_messages(
    announcer: Announcer, unit: Unit, done: Sequence[Done], finished_at: datetime
) -> list[Message]:
    """Give a committed unit's change events in ``total_order`` (F34)."""
    messages: list[Message] = []
    per_entity: dict[str, int] = {}
    ts_ms = int(finished_at.timestamp() * 1000)
    total = 0
    for each in sorted(done, key=lambda one: one.position):
        if each.effect is Effect.NOTHING:
            continue
        operation = unit.plan.operations[each.position]
        total += 1
        count = per_entity[operation.entity] = per_entity.get(operation.entity, 0) + 1
        value = _change_value(announcer, unit, operation, each, (total, count), ts_ms)
        topic = announcer.topic_of(operation.entity)
        key = operation.key_text.encode()
        headers = _headers(
            announcer,
            f"{unit.id}/{total}",
            f"io.coordinator.entity.{_EFFECT_NAMES[each.effect]}.v1",
            key,
            finished_at,
            unit.traceparent,
        )
        messages.append(Message(topic, key, value, headers))
        if each.effect is Effect.DELETED and announcer.tombstones:
            messages.append(Message(topic, key, None, headers))
    return messages


def _change_value(
    announcer: Announcer,
    unit: Unit,
    operation: Operation,
    done: Done,
    orders: tuple[int, int],
    ts_ms: int,
) -> bytes:
    entity = unit.mapping.entities[operation.entity]
    place = "collection" if entity.schema is None else "table"
    envelope: dict[str, Any] = {
        "op": done.effect.value,
        "before": _fragment(done.before),
        "after": _fragment(done.after),
        "source": {
            "connector": "coordinator",
            "version": announcer.version,
            "name": announcer.name,
            "ts_ms": ts_ms,
            "store": entity.store,
            "entity": entity.name,
            place: entity.table if entity.schema is None else f"{entity.schema}.{entity.table}",
        },
        "transaction": {
            "id": unit.id,
            "total_order": orders[0],
            "data_collection_order": orders[1],
        },
        "ts_ms": ts_ms,
    }
    if unit.metadata is not None:
        envelope["metadata"] = _fragment(unit.metadata)
    return orjson.dumps(envelope)


def oversize(announcer: Announcer, messages: Sequence[Message]) -> Problem | None:
    """Say which message its topic could not take (F26), if any."""
    for message in messages:
        limit = announcer.limits_bytes.get(message.topic)
        if limit is not None and size_bytes(message) > limit:
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
    ce_type: str,
    subject: bytes,
    time: datetime,
    traceparent: str | None,
) -> tuple[Header, ...]:
    headers: tuple[Header, ...] = (
        _SPEC,
        ("ce_id", ce_id.encode()),
        ("ce_type", ce_type.encode()),
        ("ce_source", announcer.source),
        ("ce_subject", subject),
        ("ce_time", instant(time).encode()),
        _JSON,
    )
    if traceparent is not None:
        headers = (*headers, ("traceparent", traceparent.encode()))
    return headers


def _fragment(text: bytes | None) -> Any:
    return None if text is None else orjson.Fragment(text)
