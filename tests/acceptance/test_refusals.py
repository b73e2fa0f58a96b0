"""Early refusals: readable but wrong, one outcome each, no trace (F2, F10, F16 to F25, F42)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.acceptance.harness.operations import (
    Json,
    adding,
    check,
    delete,
    insert,
    setting,
    update,
    upsert,
)
from tests.acceptance.harness.world import World, new_id

GOOD = insert("sample", "never")
UUID = "0198c0de-0000-7000-8000-000000000001"


@dataclass
class Refusal:
    """A unit that must be refused: its operations or other members, and what the error says."""

    name: str
    operations: Any
    path: str | None = None  # judged when given; the last operation's index where it has `{}`
    code: str = "invalid"
    members: Json = field(default_factory=dict)


def _of_unit(name: str, path: str, **members: Any) -> Refusal:
    operations = members.pop("operations", [GOOD])
    return Refusal(name, operations, path, members=members)


def _of(name: str, operation: Any, path: str = "", code: str = "invalid") -> Refusal:
    """Give a refusal whose second operation is the wrong one."""
    return Refusal(name, [GOOD, operation], f"operations.1{path and '.'}{path}", code)


def _somewhere(name: str, operation: Any, code: str = "invalid") -> Refusal:
    """Give one whose path the contract leaves open below the operation."""
    return Refusal(name, [GOOD, operation], None, code)


UNITS = [
    _of_unit("operations empty", "operations", operations=[]),
    _of_unit("operations null", "operations", operations=None),
    _of_unit("operations an object", "operations", operations={}),
    _of_unit("101 operations", "operations", operations=[GOOD] * 101),
    _of_unit("timeout 0", "timeout_ms", timeout_ms=0),
    _of_unit("timeout negative", "timeout_ms", timeout_ms=-5),
    _of_unit("timeout over a day", "timeout_ms", timeout_ms=86_400_001),
    _of_unit("timeout string", "timeout_ms", timeout_ms="500"),
    _of_unit("timeout fraction", "timeout_ms", timeout_ms=1.5),
    _of_unit("timeout true", "timeout_ms", timeout_ms=True),
    _of_unit("timeout null", "timeout_ms", timeout_ms=None),
    _of_unit("metadata null", "metadata", metadata=None),
    _of_unit("unknown member", "priority", priority=1),
    _of_unit("reason on a unit", "reason", reason="x"),
]

SHAPES = [
    _of("operation is a string", "insert"),
    _of("operation is null", None),
    _of("unknown op", {"op": "merge", "entity": "sample", "key": "k"}, "op"),
    _of("op in capitals", {"op": "INSERT", "entity": "sample", "key": "k"}, "op"),
    _of("no op", {"entity": "sample", "key": "k"}, "op"),
    _of("no entity", {"op": "delete", "key": "k"}, "entity"),
    _of("unknown entity", delete("nobody", 1), "entity", "unknown_entity"),
    _of("entity in capitals", delete("Sample", "k"), "entity", "unknown_entity"),
    _of("unknown member", delete("sample", "k") | {"bogus": 1}, "bogus"),
    _of("values on update", update("sample", "k", set={"text_": "x"}, values={}), "values"),
    _of("values on delete", delete("sample", "k", values={}), "values"),
    _of("set on insert", insert("sample", "k") | {"set": {}}, "set"),
    _of("expect on insert (F16)", insert("sample", "k") | {"expect": {"text_": "x"}}, "expect"),
    _of("if_missing on insert", insert("sample", "k") | {"if_missing": "ignore"}, "if_missing"),
    _of("expect on upsert (F18)", upsert("sample", "k") | {"expect": {"text_": "x"}}, "expect"),
    _of("set on upsert (F18)", upsert("sample", "k") | {"set": {"text_": "x"}}, "set"),
    _of("increment on upsert (F18)", upsert("sample", "k") | {"increment": {"int_": 1}}),
    _of("if_missing on check", check("sample", "k", if_missing="ignore"), "if_missing"),
    _of("compensate on check", check("sample", "k", compensate=delete("sample", "k"))),
    _of("values no object", insert("sample", "k") | {"values": []}, "values"),
    _of("set no object", update("sample", "k", set="x"), "set"),
    _of("unset no list", update("sample", "k", unset="text_"), "unset"),
    _of("unset of a number", update("sample", "k", unset=[1])),
    _of("increment no object", update("sample", "k", increment=[]), "increment"),
    _of("expect no object", check("sample", "k", expect=["text_"]), "expect"),
    _of("if_missing unknown", delete("sample", "k", if_missing="maybe"), "if_missing"),
    _of("if_missing true", delete("sample", "k", if_missing=True), "if_missing"),
    _of("absent no boolean", check("sample", "k", absent="yes"), "absent"),
    _of("absent and expect (F19)", check("sample", "k", absent=True, expect={"text_": "x"})),
    _of("forbidden insert", insert("limit", 1), code="forbidden", path="op"),
    _of("forbidden delete", delete("limit", 1), code="forbidden", path="op"),
    _of("forbidden upsert", upsert("limit", 1, ceiling=1), code="forbidden", path="op"),
]

KEYS = [
    _of("key missing", {"op": "delete", "entity": "sample"}, "key"),
    _of("key missing on insert (F16)", insert("sample"), "key"),
    _of("key null", delete("sample", None), "key"),
    _of("key null with key_default (F42)", insert("ticket", None), "key"),
    _of("string key a number", delete("sample", 5), "key"),
    _of("integer key a word", delete("account", "x"), "key"),
    _of("integer key a fraction", delete("account", 1.5), "key"),
    _of("integer key true", delete("account", True), "key"),
    _of("integer key empty", delete("account", ""), "key"),
    _of("integer key with a space", delete("account", " 5"), "key"),
    _of("integer key of other digits", delete("account", "\u0665"), "key"),
    _of("integer key inserted past bigint", insert("account", 2**63), "key"),
    _of("uuid key without dashes", delete("ticket", UUID.replace("-", "")), "key"),
    _of("uuid key in braces", delete("ticket", "{" + UUID + "}"), "key"),
    _of("key an object", delete("sample", {"a": 1}), "key"),
    _of("key with NUL", insert("sample", "a\x00b"), "key"),
    _of("key in values differs (F20)", insert("account", 5, id=6), "values.id"),
    _of("key set (F20)", setting("account", 5, id=5), "set.id"),
    _of("key unset (F20)", update("account", 5, unset=["id"])),
    _of("key incremented (F20)", adding("account", 5, id=1), "increment.id"),
]

FIELDS = [
    _of("unknown field", insert("sample", "k", nope=1), "values.nope"),
    _of("unmapped column", setting("account", 1, hidden="x"), "set.hidden"),
    _of("unknown field unset", update("sample", "k", unset=["nope"])),
    _of("unknown field incremented", adding("sample", "k", nope=1), "increment.nope"),
    _of("unknown field expected", check("sample", "k", expect={"nope": 1}), "expect.nope"),
    _of("read_only in values (F20)", insert("account", 1, origin="x"), "values.origin"),
    _of("read_only set (F20)", setting("account", 1, origin="x"), "set.origin"),
    _of("read_only unset (F20)", update("account", 1, unset=["origin"])),
    _of("version in values (F20)", insert("account", 1, version=1), "values.version"),
    _of("declared version set (F20)", setting("customer", 1, version=1), "set.version"),
    _of("version incremented (F20)", adding("customer", 1, version=1), "increment.version"),
    _of("missing required field (F16)", insert("customer", 1)),
    _of("null required field (F16)", insert("customer", 1, name=None), "values.name"),
    _of("required field set to null", setting("customer", 1, name=None), "set.name"),
    _of("required field unset", update("customer", 1, unset=["name"])),
    _of("update of nothing (F17)", {"op": "update", "entity": "sample", "key": "k"}),
    _of("update of empty parts (F17)", update("sample", "k", set={}, unset=[], increment={})),
    _of("only expect (F17)", update("sample", "k", expect={"text_": "x"})),
    _of("set and unset (F17)", update("sample", "k", set={"text_": "x"}, unset=["text_"])),
    _of("set and increment (F17)", update("sample", "k", set={"int_": 1}, increment={"int_": 1})),
    _of("unset and increment (F17)", update("sample", "k", unset=["int_"], increment={"int_": 1})),
    _of("unset twice (F42)", update("sample", "k", unset=["text_", "text_"])),
    _of("increment of a string", adding("sample", "k", text_=1), "increment.text_"),
    _of("increment of a timestamp", adding("sample", "k", at_=1), "increment.at_"),
    _of("increment by null", adding("sample", "k", int_=None), "increment.int_"),
    _of("increment of an integer by a half", adding("sample", "k", int_=0.5), "increment.int_"),
    _of("enum", setting("account", 1, status="unheard"), "set.status"),
    _of("pattern in part", setting("account", 1, code="AB12x"), "set.code"),
    _of("pattern and a line feed", setting("account", 1, code="AB12\n"), "set.code"),
    _of("max_length", setting("account", 1, note="x" * 21), "set.note"),
]

NULLS = [  # F42
    _of("values null", {"op": "insert", "entity": "sample", "key": "k", "values": None}, "values"),
    _of("set null", update("sample", "k", set=None, increment={"int_": 1}), "set"),
    _of("unset null", update("sample", "k", set={"int_": 1}, unset=None), "unset"),
    _of("increment null", update("sample", "k", set={"int_": 1}, increment=None), "increment"),
    _of("expect null", update("sample", "k", None, set={"int_": 1}), "expect"),
    _of("expect null on check", check("sample", "k", expect=None), "expect"),
    _of("absent null", check("sample", "k", absent=None), "absent"),
    _of("if_missing null", delete("sample", "k", if_missing=None), "if_missing"),
    _of("compensate null", delete("sample", "k", compensate=None), "compensate"),
]

EXPECTATIONS = [  # F22
    _of("empty", check("sample", "k", expect={}), "expect"),
    _of("no operator", check("sample", "k", expect={"int_": {}}), "expect.int_"),
    _somewhere("unknown operator", check("sample", "k", expect={"int_": {"like": 1}})),
    _somewhere("in nothing", check("sample", "k", expect={"int_": {"in": []}})),
    _somewhere("in no list", check("sample", "k", expect={"int_": {"in": 5}})),
    _somewhere("lt null", check("sample", "k", expect={"int_": {"lt": None}})),
    _somewhere("gte null", check("sample", "k", expect={"int_": {"gte": None, "eq": 1}})),
    _somewhere("order of booleans", check("sample", "k", expect={"flag": {"lt": True}})),
    _somewhere("order of uuids", check("sample", "k", expect={"uid": {"gt": UUID}})),
    _somewhere("order of binary", check("sample", "k", expect={"bytes_": {"gt": "AA=="}})),
    _somewhere("json as a literal", check("sample", "k", expect={"data": 1})),
    _somewhere("json in", check("sample", "k", expect={"data": {"in": [1]}})),
    _somewhere("json lt", check("sample", "k", expect={"data": {"lt": 1}})),
    _somewhere("wrong type", check("sample", "k", expect={"int_": "x"})),
    _somewhere("wrong type in a list", check("sample", "k", expect={"int_": {"in": [1, "x"]}})),
    _somewhere("decimal as a fraction", check("sample", "k", expect={"amount": 1.5})),
]

VALUES = [  # F32 and the table of values
    *(
        _of(f"{name} {value!r}"[:60], insert("sample", "k", **{name: value}), f"values.{name}")
        for name, value in [
            ("text_", 5),
            ("text_", "a\x00b"),
            ("word", "sixsix"),
            ("small", 2**15),
            ("int_", 2**31),
            ("int_", -(2**31) - 1),
            ("big", str(2**63)),
            ("int_", 1.5),
            ("int_", "1.5"),
            ("int_", True),
            ("int_", "0x10"),
            ("int_", "1_000"),
            ("huge", "1" * 21),
            ("amount", 1.5),
            ("amount", "1.00001"),
            ("amount", "123456789.0"),
            ("amount", "abc"),
            ("amount", ""),
            ("amount", " 1"),
            ("amount", True),
            ("double_", "1.5"),
            ("double_", True),
            ("flag", 1),
            ("flag", "true"),
            ("at_", "2026-01-02T03:04:05"),
            ("at_", "2026-01-02"),
            ("at_", "2026-02-30T00:00:00Z"),
            ("at_", "2026-01-02T03:04:05.1234567Z"),
            ("at_", 1_767_322_800),
            ("day", "2026-02-30"),
            ("day", "2026-1-2"),
            ("day", "2026-01-02T00:00:00Z"),
            ("uid", UUID[:-1]),
            ("uid", UUID.replace("-", "")),
            ("bytes_", "AA="),
            ("bytes_", "AA"),
            ("bytes_", "*"),
            ("bytes_", 5),
        ]
    ),
]

REFERENCES = [  # F24
    _somewhere("no such index", setting("ticket", UUID, parent={"$ref": "9.key"})),
    _somewhere("no key", setting("ticket", UUID, parent={"$ref": "0.id"})),
    _somewhere("only an index", setting("ticket", UUID, parent={"$ref": "0"})),
    _somewhere("a number", setting("ticket", UUID, parent={"$ref": 0})),
    _somewhere("negative", setting("ticket", UUID, parent={"$ref": "-1.key"})),
    _somewhere("another member", setting("ticket", UUID, parent={"$ref": "0.key", "x": 1})),
    Refusal(
        "not an insert",
        [delete("ticket", UUID), setting("ticket", UUID, parent={"$ref": "0.key"})],
    ),
    Refusal(
        "in a compensation (F25)",
        [
            insert("ticket"),
            insert("ticket", UUID)
            | {"compensate": setting("ticket", UUID, parent={"$ref": "0.key"})},
        ],
    ),
]


def _compensated_by(name: str, compensate: Any, code: str = "invalid") -> Refusal:
    return _somewhere(name, setting("entry", "k", note="x") | {"compensate": compensate}, code)


COMPENSATIONS = [  # F25
    _compensated_by("other entity", setting("wallet", "k", note="y")),
    _compensated_by("other key", setting("entry", "other", note="y")),
    _compensated_by("a check", check("entry", "k")),
    _compensated_by("with expect", update("entry", "k", {"note": "x"}, set={"note": "y"})),
    _compensated_by("with if_missing", delete("entry", "k", if_missing="ignore")),
    _compensated_by("nested", delete("entry", "k", compensate=delete("entry", "k"))),
    _compensated_by("invalid itself", setting("entry", "k", nope="y")),
    _compensated_by("of nothing", {"op": "update", "entity": "entry", "key": "k"}),
    _compensated_by("no object", "delete"),
    _compensated_by("a list", [delete("entry", "k")]),
]

GROUPS = {
    "unit": UNITS,
    "shape": SHAPES,
    "key": KEYS,
    "field": FIELDS,
    "null": NULLS,
    "expect": EXPECTATIONS,
    "value": VALUES,
    "$ref": REFERENCES,
    "compensate": COMPENSATIONS,
}


async def test_early_refusals_are_answered_and_leave_no_trace(
    world: World, subtests: pytest.Subtests
) -> None:
    """F2, F10, F16 to F25, F32, F42: `rejected`, code, path, digest; nothing in the journal."""
    cases = [(f"{group}: {case.name}", case) for group, some in GROUPS.items() for case in some]
    ids = [new_id() for _ in cases]
    places = await world.topics.submit_all(
        {"id": unit_id, "operations": case.operations, **case.members}
        for unit_id, (_, case) in zip(ids, cases, strict=True)
    )
    await world.settled()
    for unit_id, (name, case), place in zip(ids, cases, places, strict=True):
        with subtests.test(name):
            found = world.topics.outcomes_so_far(unit_id)
            assert [r.ce_id for r in found] == [f"{unit_id}/refused/{place}"], found[:1]
            outcome = found[0].json
            _judge(outcome, case)
            assert world.topics.dead_letters_so_far(place) == []
    journaled = await world.ledger.fetch(
        "SELECT id FROM coordinator.units WHERE id = ANY ($1::text[])", ids
    )
    assert journaled == []


def _judge(outcome: Json, case: Refusal) -> None:
    error = outcome["error"]
    assert outcome["status"] == "rejected", outcome
    assert (outcome["duplicate"], outcome["operations"]) == (False, [])
    assert len(outcome["digest"]) == 64
    assert error["code"] == case.code, error
    assert error["retryable"] is False
    assert set(error) == {
        *("code", "message", "path", "operation", "entity", "key", "retryable", "details")
    }
    assert error["details"][0] == {k: v for k, v in error.items() if k != "details"}
    if case.path is not None:
        assert error["path"].startswith(case.path), error
    if isinstance(case.operations, list) and 0 < len(case.operations) <= 100 and not case.members:
        at = len(case.operations) - 1
        assert error["operation"] == at, error
        assert error["path"].startswith(f"operations.{at}"), error
        operation = case.operations[at]
        if isinstance(operation, dict) and isinstance(operation.get("entity"), str):
            assert error["entity"] == operation["entity"]


async def test_f10_the_first_mistake_in_written_order_and_all_in_details(world: World) -> None:
    """F10: `error` is the first mistake, operations in their written order; details lists all."""
    outcome = await world.run(
        insert("invoice", "i", customer="x", nope=1),
        insert("nobody", 1),
        delete("limit", 1),
        setting("account", "x", status="unheard"),
    )
    details = outcome["error"]["details"]
    assert [(d["operation"], d["code"]) for d in details if d["operation"] in {1, 2}] == [
        (1, "unknown_entity"),
        (2, "forbidden"),
    ]
    assert [d["operation"] for d in details] == sorted(d["operation"] for d in details)
    paths = {d["path"] for d in details}
    assert {
        *("operations.0.values.customer", "operations.0.values.nope"),
        *("operations.1.entity", "operations.3.key", "operations.3.set.status"),
    } <= paths
    assert outcome["error"]["operation"] == 0
    assert outcome["error"]["code"] == "invalid"
    assert {k: v for k, v in outcome["error"].items() if k != "details"} == details[0]


ALLOWED = {
    "the key in values, equal": [insert("account", 900_001, id="900001")],
    "100 operations": [insert("sample", f"hundred-{n}") for n in range(100)],
    "twenty code points of four bytes": [insert("account", 900_002, note="\U0001f600" * 20)],
    "operands out of enum, pattern and bounds": [
        insert("account", 900_003, status="active"),
        update(
            "account",
            900_003,
            expect={
                "status": {"ne": "unheard"},
                "code": {"ne": "lower"},
                "balance": {"ne": "-5"},
                "note": {"ne": "x" * 50},
                "origin": "web",
                "version": 1,
            },
            set={"note": "ok"},
        ),
    ],
    "a $ref to a later insert": [
        insert("ticket", UUID, parent={"$ref": "1.key"}),
        insert("ticket", title="later"),
    ],
    "a $ref as data in json": [insert("sample", "ref", data={"$ref": "0.key"})],
    "check of absence": [check("account", 999_999_999, absent=True)],
    "the widest values": [
        insert(
            "sample",
            "wide",
            big=str(2**63 - 1),
            huge="9" * 20,
            amount="99999999.9999",
            small=-(2**15),
            at_="2026-01-02T03:04:05.123456+05:30",
            word="\U0001f600" * 5,
        )
    ],
}


async def test_what_stands_just_inside_is_allowed(world: World, subtests: pytest.Subtests) -> None:
    """F16, F19, F20, F22, F24: the neighbours of the refusals commit."""
    ids = {name: await world.submit(*operations) for name, operations in ALLOWED.items()}
    ids["timeout of a day"] = await world.submit(GOOD, timeout_ms=86_400_000)
    for name, unit_id in ids.items():
        with subtests.test(name):
            outcome = await world.result(unit_id, "any", seconds=10)
            assert outcome["status"] == "committed", outcome["error"]
