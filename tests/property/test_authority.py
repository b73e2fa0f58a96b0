"""Whatever is granted whole is accepted; whatever lacks one grant is refused, at that slot.

A unit is drawn slot by slot, so that what it names is known without reading it; then it is granted
exactly that, and one of the grants is withdrawn.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from coordinator.domain.authority import Authority, Grant, granted_readers
from coordinator.domain.operation import OperationKind
from coordinator.domain.submission import Reading, RefusedEarly, Submission, read
from tests.mapping_samples import MAPPING, FixedDraw


class Slot(NamedTuple):
    """One thing that a unit names: a field of an entity in an operation, or the operation."""

    entity: str
    op: str
    field: str | None
    path: str


class Drawn(NamedTuple):
    operation: dict[str, Any]
    slots: tuple[Slot, ...]


SET: dict[str, dict[str, Any]] = {
    "account": {"balance": "1.50", "status": "active", "note": "n"},
    "order": {"customer": 5, "total": "2.00"},
    "pg_thing": {"string": "s", "integer": 7, "boolean": True, "json": {"deep": [1]}},
    "mongo_thing": {"string": "s", "date": "2024-05-17", "float": 0.5},
}
DELTAS: dict[str, dict[str, Any]] = {
    "account": {"balance": "-1"},
    "order": {"total": "1"},
    "pg_thing": {"integer": 2},
    "mongo_thing": {"float": 1.5},
}
UNSET = {"account": ["note", "status"], "order": ["customer", "total"],
         "pg_thing": ["string", "json"], "mongo_thing": ["date"]}  # fmt: skip
EXPECT: dict[str, dict[str, Any]] = {
    "account": {"balance": {"gte": "1"}, "status": {"in": ["active"]}, "created_at": None},
    "order": {"total": {"ne": "1"}},
    "pg_thing": {"boolean": False, "json": {"eq": 1}},
    "mongo_thing": {"float": {"lt": 1.0}},
}
REQUIRED = {"account": ["balance"]}
KEYS: dict[str, Any] = {"account": 42, "order": "o-1", "pg_thing": "p", "mongo_thing": "m"}


def part(of: dict[str, Any], least: Iterable[str] = ()) -> st.SearchStrategy[dict[str, Any]]:
    always = set(least)
    return st.sets(st.sampled_from(sorted(of))).map(
        lambda names: {name: of[name] for name in sorted(names | always)}
    )


@st.composite
def bodies(draw: st.DrawFn, entity: str, op: str, above: str) -> Drawn:
    """Draw an operation's members, with its slots."""
    body: dict[str, Any] = {"op": op}
    slots = [Slot(entity, op, None, f"{above}op")]
    if op in ("insert", "upsert"):
        body["values"] = draw(part(SET[entity], REQUIRED.get(entity, ()) if op == "insert" else ()))
        slots += [Slot(entity, op, each, f"{above}values.{each}") for each in body["values"]]
    if op == "update":
        member = draw(st.sampled_from(["set", "unset", "increment"]))
        if member == "unset":
            body["unset"] = sorted(draw(st.sets(st.sampled_from(UNSET[entity]), min_size=1)))
        else:
            source = SET if member == "set" else DELTAS
            body[member] = draw(part(source[entity], [draw(st.sampled_from([*source[entity]]))]))
        slots += [Slot(entity, op, each, f"{above}{member}.{each}") for each in body[member]]
    if op in ("update", "delete", "check") and "compensate" not in above and draw(st.booleans()):
        body["expect"] = draw(part(EXPECT[entity], [draw(st.sampled_from([*EXPECT[entity]]))]))
        slots += [Slot(entity, op, each, f"{above}expect.{each}") for each in body["expect"]]
    return Drawn(body, tuple(slots))


@st.composite
def operations(draw: st.DrawFn, index: int) -> Drawn:
    entity = draw(st.sampled_from(sorted(SET)))
    op = draw(st.sampled_from([kind.value for kind in OperationKind]))
    above = f"operations.{index}."
    body, slots = draw(bodies(entity, op, above))
    if op != "check" and draw(st.booleans()):
        undo = draw(st.sampled_from(["insert", "update", "upsert", "delete"]))
        compensate, more = draw(bodies(entity, undo, f"{above}compensate."))
        body["compensate"] = compensate
        slots += more
    entity_slot = Slot(entity, "", None, f"{above}entity")
    return Drawn({"entity": entity, "key": KEYS[entity], **body}, (entity_slot, *slots))


@st.composite
def units(draw: st.DrawFn) -> list[Drawn]:
    return [draw(operations(index)) for index in range(draw(st.integers(1, 4)))]


def authority(slots: Iterable[Slot]) -> Authority:
    """Grant just these slots: each operation that is named, with its fields."""
    named = list(slots)
    grants = [
        Grant(
            each.entity,
            frozenset({OperationKind(each.op)}),
            frozenset(s.field for s in named if s[:2] == each[:2] and s.field is not None),
        )
        for each in named
        if each.op and each.field is None
    ]
    return Authority(granted_readers(MAPPING, grants))


def submit(unit: list[Drawn], by: Authority) -> Reading:
    raw = json.dumps({"id": "u", "operations": [each.operation for each in unit]}).encode()
    return read(raw, (), MAPPING, 100_000, 1, frozenset(), FixedDraw(), by)


def slots_of(unit: list[Drawn]) -> list[Slot]:
    return [slot for each in unit for slot in each.slots]


@given(units())
def test_what_is_granted_slot_by_slot_is_accepted(unit: list[Drawn]) -> None:
    assert isinstance(submit(unit, authority(slots_of(unit))), Submission)


@given(units(), st.data())
def test_whatever_lacks_one_grant_is_refused_at_that_slot(
    unit: list[Drawn], data: st.DataObject
) -> None:
    slots = slots_of(unit)
    lost = data.draw(st.sampled_from([each for each in slots if each.op]))
    kept = [each for each in slots if each[:3] != lost[:3]]
    if lost.field is None:  # with the operation go its fields
        kept = [each for each in kept if each[:2] != lost[:2]]
    seen = submit(unit, authority(kept))
    assert isinstance(seen, RefusedEarly), lost
    assert {each.code for each in seen.problems} == {"forbidden"}
    assert sorted(str(each.path) for each in seen.problems) == sorted(_wanting(unit, lost, kept))


def _wanting(unit: list[Drawn], lost: Slot, kept: list[Slot]) -> list[str]:
    """The slots that the lost grant leaves without one, as far as they are looked at."""
    known = {each.entity for each in kept if each.op}
    paths: list[str] = []
    for index, drawn in enumerate(unit):
        above = f"operations.{index}."
        if drawn.operation["entity"] not in known:
            paths.append(f"{above}entity")
            continue
        mine = [each for each in drawn.slots if each[:3] == lost[:3]]
        at_op = [each.path for each in mine if each.path == f"{above}op"]
        paths += at_op or [each.path for each in mine]
    return paths
