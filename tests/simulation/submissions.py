"""What is put on the units' topic: units over a small key space, and everything that is no unit.

Keys are few, so that conflicts, chains and waits happen all the time. Every record is JSON as a
client would send it; which partition it goes to follows from a Kafka key, as in Kafka.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.simulation.shop import (
    CURSED,
    HOT_ENTITIES,
    HOT_KEYS,
    PASSING_KEYS,
    SHOP,
    STANDING_KEYS,
)
from tests.simulation.swarm import Swarm

UNIT_BYTES_MAX = 8192
_ENTITIES = tuple(SHOP.entities)
_NOTES = ("red", "green", "blue")


@dataclass(frozen=True, slots=True)
class Sending:
    """One record to come: when, where, what. ``kind`` says what the checkers expect of it."""

    at_seconds: float
    partition: int
    value: bytes
    kind: str
    unit_id: str | None


def sendings(source: random.Random, swarm: Swarm) -> list[Sending]:
    """Make all records of a run, in the order of their sending."""
    found: list[Sending] = []
    sent: list[tuple[str, int, bytes]] = []
    for number in range(swarm.units):
        at = source.random() * swarm.sending_seconds
        partition = source.randrange(swarm.partitions)
        value = unit_json(source, swarm, f"u{number}")
        found.append(Sending(at, partition, value, "unit", f"u{number}"))
        sent.append((f"u{number}", partition, value))
        if source.random() < swarm.extras:
            later = at + source.random() * source.choice((0.02, 0.5, 3.0))
            found.append(_extra(source, swarm, later, sent))
    found.sort(key=lambda each: each.at_seconds)
    return found


def _extra(
    source: random.Random, swarm: Swarm, at: float, sent: Sequence[tuple[str, int, bytes]]
) -> Sending:
    unit_id, home, value = source.choice(sent[-6:])
    anywhere = source.randrange(swarm.partitions)
    match source.randrange(6):
        case 0 | 1:
            return Sending(at, anywhere, value, "again", unit_id)
        case 2:
            other = unit_json(source, swarm, unit_id)
            return Sending(at, anywhere, other, "again", unit_id)
        case 3 | 4:
            cancel = json.dumps({"cancel": unit_id, "reason": "changed my mind"}).encode()
            return Sending(at, home, cancel, "cancel", unit_id)
    if source.random() < 0.5:
        unread = too_large(unit_id) if len(sent) % 2 else b"{no json"
        return Sending(at, anywhere, unread, "dead", None)
    bad = json.dumps({"id": f"bad-{len(sent)}", "operations": []}).encode()
    return Sending(at, anywhere, bad, "refused", f"bad-{len(sent)}")


def too_large(unit_id: str) -> bytes:
    """A unit in perfect order, but for its size: nothing in it is read (F1, I12)."""
    write = {"op": "update", "entity": "account", "key": 1, "increment": {"n": 1}}
    unit = {"id": f"large-{unit_id}", "operations": [write], "metadata": "x" * UNIT_BYTES_MAX}
    return json.dumps(unit).encode()


def unit_json(source: random.Random, swarm: Swarm, unit_id: str) -> bytes:
    hot = [_hot(source) for _ in range(source.choice((1, 1, 2, 3)))]
    is_hot = source.random() < swarm.hot
    cold = source.choice((0, 0, 1, 1, 2) if is_hot else (1, 1, 2, 2, 3, 3, 4, 5))
    operations = [*(hot if is_hot else ()), *(_operation(source, swarm) for _ in range(cold))]
    source.shuffle(operations)
    unit: dict[str, Any] = {
        "id": unit_id,
        "operations": operations,
        "metadata": source.randrange(10**6),
    }
    if source.random() < swarm.short_deadlines:
        unit["timeout_ms"] = source.choice((1, 30, 200, 900))
    return json.dumps(unit).encode()


def _hot(source: random.Random) -> dict[str, Any]:
    return {
        "op": "update",
        "entity": source.choice(HOT_ENTITIES),
        "key": source.choice(HOT_KEYS),
        "increment": {"n": source.choice((-7, -3, -1, 1, 2, 5, 9))},
    }


def _operation(source: random.Random, swarm: Swarm) -> dict[str, Any]:
    entity = source.choice(_ENTITIES)
    chance = source.random()
    if chance < 0.3:
        return _on_passing(source, swarm, entity, source.choice(PASSING_KEYS))
    key = source.choice(STANDING_KEYS)
    if chance < 0.38:
        return {"op": "check", "entity": entity, "key": key, "expect": _expect(source)}
    return _update(source, swarm, entity, key)


def _update(source: random.Random, swarm: Swarm, entity: str, key: int) -> dict[str, Any]:
    operation: dict[str, Any] = {"op": "update", "entity": entity, "key": key}
    if source.random() < 0.6:
        operation["increment"] = {"n": source.choice((-7, -3, 1, 2, 5, 9))}
    values = _values(source, swarm, entity)
    if values:
        operation["set"] = values
    if "note" not in values and source.random() < 0.1:
        operation["unset"] = ["note"]
    if len(operation) == 3:
        operation["increment"] = {"n": 1}
    if source.random() < 0.15:
        operation["expect"] = _expect(source)
    return operation


def _on_passing(source: random.Random, swarm: Swarm, entity: str, key: int) -> dict[str, Any]:
    operation: dict[str, Any] = {"entity": entity, "key": key}
    match source.randrange(6):
        case 0 | 1:
            return {
                **operation,
                "op": "insert",
                "values": {"n": 0, **_values(source, swarm, entity)},
            }
        case 2:
            return {
                **operation,
                "op": "upsert",
                "values": {"n": 1, **_values(source, swarm, entity)},
            }
        case 3:
            missing = source.choice(("fail", "ignore", "ignore"))
            return {**operation, "op": "delete", "if_missing": missing}
        case 4:
            return {**operation, "op": "check", "absent": True}
    return {
        **operation,
        "op": "update",
        "set": {"note": source.choice(_NOTES)},
        "if_missing": "ignore",
    }


def _values(source: random.Random, swarm: Swarm, entity: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if source.random() < 0.4:
        values["note"] = source.choice(_NOTES)
    if source.random() < swarm.tags:
        values["tag"] = CURSED if source.random() < swarm.curses else source.choice(_NOTES)
    if source.random() < swarm.slots:
        values["slot"] = source.randrange(3)
    if SHOP.entities[entity].references and source.random() < 0.3:
        values["of"] = source.choice(STANDING_KEYS)
    return values


def _expect(source: random.Random) -> dict[str, Any]:
    return source.choice(
        (
            {"n": {"gte": source.randrange(-10, 25)}},
            {"note": {"in": [*_NOTES, "first", None]}},
            {"note": source.choice(_NOTES)},
        )
    )
