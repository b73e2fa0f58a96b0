"""Grants: what is not granted is refused at the very slot, and nothing else is told of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from coordinator.domain.authority import (
    Authority,
    Breach,
    Grant,
    granted_readers,
    lacking_for_insert,
)
from coordinator.domain.operation import OperationKind
from coordinator.domain.submission import (
    Cancel,
    DeadLetter,
    Reading,
    RefusedCancel,
    RefusedEarly,
    Submission,
    read,
)
from tests.mapping_samples import MAPPING, FixedDraw

K = OperationKind


def grant(entity: str, *kinds: OperationKind, fields: Iterable[str] | None = None) -> Grant:
    return Grant(entity, frozenset(kinds), None if fields is None else frozenset(fields))


def bounded(*grants: Grant, **parts: Any) -> Authority:
    return Authority(granted_readers(MAPPING, grants), **parts)


def read_as(authority: Authority, value: Any, **headers: str) -> Reading:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    named = [(name.replace("_", "-"), text.encode()) for name, text in headers.items()]
    topics = frozenset({"replies"})
    return read(raw, named, MAPPING, 10_000, 30_000, topics, FixedDraw(), authority)


def submit(authority: Authority, *operations: Any) -> Reading:
    return read_as(authority, {"id": "u-1", "operations": list(operations)})


def refused(authority: Authority, *operations: Any) -> list[tuple[str, str | None]]:
    seen = submit(authority, *operations)
    assert isinstance(seen, RefusedEarly), seen
    return [(each.code.value, each.path) for each in seen.problems]


def forbidden(*paths: str) -> list[tuple[str, str | None]]:
    return [("forbidden", f"operations.0.{path}") for path in paths]


BALANCE_ONLY = bounded(grant("account", K.UPDATE, fields=["balance"]))
UPDATE: dict[str, Any] = {"op": "update", "entity": "account", "key": 42}


def test_what_is_granted_is_taken() -> None:
    seen = submit(BALANCE_ONLY, UPDATE | {"increment": {"balance": "-1"}})
    assert isinstance(seen, Submission)


def test_without_grants_everything_is_as_it_was() -> None:
    assert isinstance(submit(Authority(), UPDATE | {"set": {"note": "x"}}), Submission)


@pytest.mark.parametrize(
    ("members", "path"),
    [
        ({"set": {"status": "active"}}, "set.status"),
        ({"set": {"balance": "1", "note": "x"}}, "set.note"),
        ({"unset": ["note"]}, "unset.note"),
        ({"increment": {"status": 1}}, "increment.status"),
        ({"set": {"balance": "1"}, "expect": {"status": "active"}}, "expect.status"),
        ({"set": {"balance": "1"}, "expect": {"status": {"in": ["active"]}}}, "expect.status"),
        ({"set": {"created_at": "2026-01-01T00:00:00Z"}}, "set.created_at"),
        ({"set": {"balance": "1"}, "expect": {"created_at": None}}, "expect.created_at"),
    ],
)
def test_a_field_that_is_not_granted_is_neither_written_nor_expected(
    members: dict[str, Any], path: str
) -> None:
    assert refused(BALANCE_ONLY, UPDATE | members) == forbidden(path)


def test_what_is_not_granted_is_not_told_apart_from_what_is_not_there() -> None:
    for there, nowhere, member in (("status", "statue", "set"), ("status", "statue", "expect")):
        units = [
            UPDATE | {"set": {"balance": "1"}} | {member: {name: "x"}} for name in (there, nowhere)
        ]
        assert _shown(BALANCE_ONLY, units[0], there) == _shown(BALANCE_ONLY, units[1], nowhere)
    operations = [{"op": "check", "entity": name, "key": 1} for name in ("customer", "nobody")]
    assert _shown(BALANCE_ONLY, operations[0], "customer") == _shown(
        BALANCE_ONLY, operations[1], "nobody"
    )


def _shown(authority: Authority, operation: Any, name: str) -> str:
    seen = submit(authority, operation)
    assert isinstance(seen, RefusedEarly)
    shown = json.dumps([each.as_json() for each in seen.problems])
    assert "forbidden" in shown
    return shown.replace(name, "X")


def test_key_and_version_need_no_grant() -> None:
    """Naming a record is what the operation does, and its outcome tells the version (F9)."""
    expecting = UPDATE | {"set": {"balance": "1"}, "expect": {"version": 7, "id": 42}}
    assert isinstance(submit(BALANCE_ONLY, expecting), Submission)
    inserting = bounded(grant("account", K.INSERT, fields=["balance"]))
    values = {"op": "insert", "entity": "account", "key": 1, "values": {"id": 1, "balance": "1"}}
    assert isinstance(submit(inserting, values), Submission)


def test_protected_fields_stay_protected_where_they_are_granted() -> None:
    everything = bounded(grant("account", K.UPDATE, fields=["created_at", "id", "balance"]))
    found = refused(everything, UPDATE | {"set": {"id": 1, "version": 2, "created_at": None}})
    assert found == [("invalid", f"operations.0.set.{n}") for n in ("id", "version", "created_at")]


def test_defaults_are_the_mappings_doing() -> None:
    seen = submit(
        bounded(grant("account", K.INSERT, fields=["balance"])),
        {"op": "insert", "entity": "account", "key": 1, "values": {"balance": "1"}},
    )
    assert isinstance(seen, Submission)
    assert "created_at" in seen.plan.operations[0].set


@pytest.mark.parametrize("op", ["insert", "upsert", "delete", "check"])
def test_each_operation_needs_its_own_grant(op: str) -> None:
    """An upsert is none of insert and update; what an ungranted one holds is not looked at."""
    broken = {"op": op, "entity": "account", "key": 42, "values": {"nope": 1}, "expect": 5}
    assert refused(BALANCE_ONLY, broken) == forbidden("op")


def test_an_upsert_is_bounded_in_its_values() -> None:
    authority = bounded(grant("order", K.UPSERT, fields=["total"]))
    upsert = {"op": "upsert", "entity": "order", "key": "o", "values": {"total": "1"}}
    assert isinstance(submit(authority, upsert), Submission)
    upsert["values"] = {"total": "1", "customer": 5}
    assert refused(authority, upsert) == forbidden("values.customer")


def test_a_check_for_absence_names_no_field() -> None:
    authority = bounded(grant("account", K.CHECK, fields=[]))
    check = {"op": "check", "entity": "account", "key": 1}
    assert isinstance(submit(authority, check | {"absent": True}), Submission)
    assert refused(authority, check | {"expect": {"status": "active"}}) == forbidden(
        "expect.status"
    )


@pytest.mark.parametrize(
    ("compensate", "path"),
    [
        ({"op": "delete"}, "compensate.op"),
        ({"op": "upsert", "values": {"balance": "1"}}, "compensate.op"),
        ({"op": "update", "set": {"status": "closed"}}, "compensate.set.status"),
        ({"op": "update", "unset": ["note"]}, "compensate.unset.note"),
        ({"op": "update", "increment": {"version": 1, "note": 1}}, "compensate.increment.note"),
    ],
)
def test_what_a_sender_asks_for_as_undo_is_bounded_too(
    compensate: dict[str, Any], path: str
) -> None:
    unit = UPDATE | {"set": {"balance": "1"}, "compensate": compensate}
    assert ("forbidden", f"operations.0.{path}") in refused(BALANCE_ONLY, unit)


def test_undo_of_another_kind_is_bounded_by_the_grant_of_that_kind() -> None:
    authority = bounded(
        grant("account", K.UPDATE, fields=["balance"]), grant("account", K.DELETE, K.INSERT)
    )
    unit = UPDATE | {"set": {"balance": "1"}, "compensate": {"op": "delete"}}
    assert isinstance(submit(authority, unit), Submission)
    insert = {"op": "insert", "entity": "account", "key": 1, "values": {"balance": "1"}}
    voiding = insert | {"compensate": {"op": "update", "set": {"status": "closed"}}}
    assert refused(authority, voiding) == forbidden("compensate.set.status")


def test_a_reference_is_a_value_like_any_other() -> None:
    """The row that it names is an insert of the same unit, which needs its own grant."""
    unit = [
        {"op": "insert", "entity": "order", "values": {"customer": {"$ref": "1.key"}}},
        {"op": "insert", "entity": "customer", "key": 5, "values": {}},
    ]
    customers = grant("customer", K.INSERT)
    whole = bounded(grant("order", K.INSERT), customers)
    assert isinstance(submit(whole, *unit), Submission)
    no_customer = bounded(grant("order", K.INSERT, fields=["total"]), customers)
    assert refused(no_customer, *unit) == forbidden("values.customer")
    only_orders = bounded(grant("order", K.INSERT))
    assert refused(only_orders, *unit) == [("forbidden", "operations.1.entity")]


def test_all_that_is_forbidden_is_told_at_once_in_written_order() -> None:
    assert refused(
        BALANCE_ONLY,
        UPDATE | {"set": {"balance": "x", "note": "n"}, "expect": {"status": "active"}},
        {"op": "delete", "entity": "account", "key": 1},
        {"op": "insert", "entity": "order", "key": "o", "values": {}},
    ) == [
        ("invalid", "operations.0.set.balance"),
        ("forbidden", "operations.0.set.note"),
        ("forbidden", "operations.0.expect.status"),
        ("forbidden", "operations.1.op"),
        ("forbidden", "operations.2.entity"),
    ]


def test_grants_add_up() -> None:
    authority = bounded(
        grant("account", K.UPDATE, fields=["balance"]), grant("account", K.UPDATE, fields=["note"])
    )
    both = UPDATE | {"set": {"note": "x"}, "increment": {"balance": "1"}}
    assert isinstance(submit(authority, both), Submission)
    whole = bounded(grant("account", K.UPDATE, fields=["balance"]), grant("account", K.UPDATE))
    assert isinstance(submit(whole, UPDATE | {"set": {"status": "active"}}), Submission)


def test_no_grant_allows_what_the_mapping_does_not() -> None:
    authority = bounded(grant("hold", K.UPDATE, K.INSERT))
    update = {"op": "update", "entity": "hold", "key": "x", "set": {"amount": 1}}
    assert refused(authority, update) == forbidden("op")


@pytest.mark.parametrize(
    ("headers", "operation", "breach"),
    [
        ({}, UPDATE | {"set": {"note": "x"}}, Breach.GRANT),
        ({"reply_to": "elsewhere"}, UPDATE | {"set": {"balance": "1"}}, Breach.REPLY_TO),
        ({"reply_to": "elsewhere"}, UPDATE | {"set": {"note": "x"}}, Breach.REPLY_TO),
        ({}, UPDATE | {"set": {"balance": "x"}}, None),
    ],
)
def test_a_refusal_says_how_the_unit_went_too_far(
    headers: dict[str, str], operation: Any, breach: Breach | None
) -> None:
    seen = read_as(BALANCE_ONLY, {"id": "u-1", "operations": [operation]}, **headers)
    assert isinstance(seen, RefusedEarly)
    assert seen.breach is breach


def test_a_grant_that_can_never_insert_is_found() -> None:
    assert lacking_for_insert(MAPPING, grant("account", K.INSERT, fields=["note"])) == ("balance",)
    assert lacking_for_insert(MAPPING, grant("account", K.INSERT, fields=["balance"])) == ()
    assert lacking_for_insert(MAPPING, grant("account", K.INSERT)) == ()
    assert lacking_for_insert(MAPPING, grant("account", K.UPDATE, fields=["note"])) == ()


# --- the guards are needed ------------------------------------------------------------------------

NOTE = UPDATE | {"set": {"note": "x"}}
GUARDS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "fields are narrowed": (
        "coordinator.domain.authority._narrowed", lambda whole, _: whole, NOTE,
    ),
    "each operation is asked for": (
        "coordinator.domain.entity_reading.EntityReader.acting", lambda self, _: self,
        {"op": "delete", "entity": "account", "key": 1},
    ),
    "the undo that is asked for is narrowed": (
        "coordinator.domain.entity_reading.EntityReader.acting",
        lambda self, kind: self.granted.get(kind, self) if self.granted else self,
        UPDATE | {"set": {"balance": "1"}, "compensate": {"op": "delete"}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("guard", GUARDS)
def test_without_the_guard_the_unit_is_taken(guard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, instead, operation = GUARDS[guard]
    grants = grant("account", K.UPDATE, fields=["balance"])
    assert isinstance(submit(bounded(grants), operation), RefusedEarly)
    monkeypatch.setattr(place, instead)
    assert isinstance(submit(bounded(grants), operation), Submission)


# --- ids ------------------------------------------------------------------------------------------

PREFIXED = Authority(unit_id_prefix="shop-")


def test_an_id_of_somebody_else_is_not_spoken_for() -> None:
    """The answer has no digest: it must not be taken for that of a unit with the same content."""
    ours = UPDATE | {"set": {"balance": "1"}}
    assert isinstance(read_as(PREFIXED, {"id": "shop-1", "operations": [ours]}), Submission)
    seen = read_as(
        PREFIXED, {"id": "bank-1", "operations": [ours], "metadata": 1}, reply_to="replies"
    )
    assert isinstance(seen, RefusedEarly)
    (problem,) = seen.problems
    assert (problem.code, problem.path) == ("forbidden", "id")
    assert (seen.breach, seen.digest, seen.metadata, seen.reply_to) == (
        Breach.UNIT_ID, None, None, None,
    )  # fmt: skip


def test_cancels_and_broken_records_are_held_to_the_prefix() -> None:
    assert read_as(PREFIXED, {"cancel": "shop-1"}) == Cancel("shop-1", None)
    assert read_as(PREFIXED, {"cancel": "bank-1"}) == RefusedCancel("bank-1", Breach.UNIT_ID)
    mixed = read_as(PREFIXED, {"cancel": "shop-1", "id": "bank-1"})
    assert isinstance(mixed, RefusedEarly)
    assert mixed.breach is Breach.UNIT_ID
    for unit_id, is_answered in (("shop-1", True), ("bank-1", False)):
        twice = b'{"id": "%s", "a": 1, "a": 2}' % unit_id.encode()
        broken = read_as(PREFIXED, twice)
        assert isinstance(broken, DeadLetter)
        assert (broken.answer is not None) is is_answered
