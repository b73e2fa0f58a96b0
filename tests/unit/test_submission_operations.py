"""Operations as they are submitted: shapes, special fields, references (F10, F16–F25, F42)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from coordinator.domain.errors import Problem
from coordinator.domain.operation import Comparison, Condition, LockRequest, Operation
from coordinator.domain.submission import RefusedEarly, Submission, read
from tests.mapping_samples import DRAWN_AT, MAPPING, FixedDraw

ACCOUNT_UPDATE = {"op": "update", "entity": "account", "key": 42}
ACCOUNT_INSERT = {"op": "insert", "entity": "account", "key": 42}
ORDER_INSERT = {"op": "insert", "entity": "order", "values": {}}
CUSTOMER_INSERT = {"op": "insert", "entity": "customer", "key": 5, "values": {}}


def read_all(operations: Iterable[Any]) -> Submission | RefusedEarly:
    raw = json.dumps({"id": "u-1", "operations": list(operations)}).encode()
    seen = read(raw, (), MAPPING, 2_000_000, 30_000, frozenset(), FixedDraw())
    assert isinstance(seen, Submission | RefusedEarly)
    return seen


def planned(*operations: Any) -> dict[int, Operation]:
    seen = read_all(operations)
    assert isinstance(seen, Submission), seen
    return {each.index: each for each in seen.plan.operations}


def one(**operation: Any) -> Operation:
    return planned(operation)[0]


def problems(*operations: Any) -> tuple[Problem, ...]:
    seen = read_all(operations)
    assert isinstance(seen, RefusedEarly), seen
    return seen.problems


def wrong(**operation: Any) -> list[tuple[str, str | None]]:
    return [(each.code.value, each.path) for each in problems(operation)]


def invalid_at(path: str) -> list[tuple[str, str | None]]:
    return [("invalid", f"operations.0.{path}")]


# --- F10: what a refusal says --------------------------------------------------------------------


def test_f10_all_mistakes_are_listed_at_once_in_written_order() -> None:
    seen = problems(
        {"op": "update", "entity": "account", "key": "x", "set": {"note": 5, "nope": 1}, "a": 1},
        {"op": "update", "entity": "nowhere", "key": 1, "set": {"a": 1}},
        {"op": "delete", "entity": "hold", "key": {"$ref": "3.key"}},
        {"op": "insert", "entity": "hold", "key": "no uuid", "values": {}},
        {"op": "insert", "entity": "hold", "values": {"amount": 2**31}},
        {"op": "update", "entity": "hold", "key": str(UUID(int=1)), "set": {"amount": 1}},
        "no object",
    )
    assert [(each.operation, each.code, each.path) for each in seen] == [
        (0, "invalid", "operations.0.a"),
        (0, "invalid", "operations.0.key"),
        (0, "invalid", "operations.0.set.note"),
        (0, "invalid", "operations.0.set.nope"),
        (1, "unknown_entity", "operations.1.entity"),
        (3, "invalid", "operations.3.key"),
        (4, "invalid", "operations.4.values.amount"),
        (5, "forbidden", "operations.5.op"),
        (6, "invalid", "operations.6"),
    ]
    assert [(each.entity, each.key) for each in seen][:5] == [
        ("account", "x"), ("account", "x"), ("account", "x"), ("account", "x"), ("nowhere", 1),
    ]  # fmt: skip
    assert all(each.message.endswith(".") for each in seen)


def test_i12_what_a_refusal_repeats_is_bounded() -> None:
    seen = problems(
        *[
            {"op": "update", "entity": "account", "key": "k" * 5000,
             "set": {"n" * 5000: 1, **{f"f{at}": 1 for at in range(9)}}}
            for _ in range(100)
        ]
    )  # fmt: skip
    assert 100 < len(seen) < 200
    assert len(json.dumps([each.as_json() for each in seen], ensure_ascii=False)) < 70_000
    seen = problems({**ACCOUNT_UPDATE, "set": {f"f{at}": 1 for at in range(300)}})
    assert len(seen) == 200


def test_keys_are_shown_as_they_are_meant() -> None:
    update = {**ACCOUNT_UPDATE, "key": "42"}
    assert problems({**update, "set": {"x": 1}})[0].key == 42
    assert problems({**update, "key": [1], "set": {"note": "a"}})[0].key is None
    assert problems({**update, "key": 2**60, "set": {"note": "a"}})[0].key == str(2**60)


# --- heads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ({}, [("invalid", "operations.0.op"), ("invalid", "operations.0.entity")]),
        ({"op": "merge", "entity": "account"}, invalid_at("op")),
        ({"op": ["insert"], "entity": "account"}, invalid_at("op")),
        ({"op": "update", "entity": None}, invalid_at("entity")),
        ({"op": "update", "entity": {}}, invalid_at("entity")),
        ({"op": "check", "entity": "account"}, invalid_at("key")),
        ({"op": "check", "entity": "account", "key": None}, invalid_at("key")),
        ({"op": "check", "entity": "account", "key": 2**31}, invalid_at("key")),
        ({"op": "check", "entity": "account", "key": 1, "version": 1}, invalid_at("version")),
        ({"op": "check", "entity": "hold", "key": str(UUID(int=1))},
         [("forbidden", "operations.0.op")]),
        ({"op": "insert", "entity": "customer", "values": {}}, invalid_at("key")),
    ],
)  # fmt: skip
def test_heads_that_are_wrong(operation: Any, expected: list[tuple[str, str]]) -> None:
    assert wrong(**operation) == expected


def test_f32_an_integer_key_may_be_a_string_of_digits() -> None:
    seen = planned(
        {**ACCOUNT_UPDATE, "set": {"note": "a"}},
        {**ACCOUNT_UPDATE, "key": "42", "set": {"note": "a"}},
    )
    assert {each.key_text for each in seen.values()} == {"42"}
    assert {each.key for each in seen.values()} == {42}


# --- F16, F18: insert and upsert -----------------------------------------------------------------


def test_f16_an_insert_draws_defaults_and_leaves_nullable_fields_out() -> None:
    seen = one(**ACCOUNT_INSERT, values={"balance": "1.5"})
    assert seen.set == {"balance": Decimal("1.50"), "created_at": DRAWN_AT}
    assert seen.defaults is None
    assert one(**ACCOUNT_INSERT, values={"balance": 1, "note": None}).set["note"] is None


@pytest.mark.parametrize(
    ("members", "path"),
    [
        ({"values": {}}, "values.balance"),
        ({}, "values"),
        ({"values": None}, "values"),
        ({"values": [1]}, "values"),
        ({"values": 5}, "values"),
        ({"values": {"balance": None}}, "values.balance"),
        ({"values": {"balance": "-1"}}, "values.balance"),
        ({"values": {"balance": 1, "version": 1}}, "values.version"),
        ({"values": {"balance": 1, "created_at": "2024-05-17T09:30:00Z"}}, "values.created_at"),
        ({"values": {"balance": 1, "id": 43}}, "values.id"),
        ({"values": {"balance": 1, "id": None}}, "values.id"),
        ({"values": {"balance": 1}, "expect": {"balance": 1}}, "expect"),
        ({"values": {"balance": 1}, "if_missing": "ignore"}, "if_missing"),
        ({"values": {"balance": 1}, "set": {}}, "set"),
    ],
)
def test_f16_f20_inserts_that_are_wrong(members: dict[str, Any], path: str) -> None:
    assert wrong(**ACCOUNT_INSERT, **members) == invalid_at(path)


def test_f20_the_key_field_may_stand_in_values_if_equal() -> None:
    assert "id" not in one(**ACCOUNT_INSERT, values={"balance": 1, "id": "42"}).set


def test_f24_generated_keys() -> None:
    seen = planned(ORDER_INSERT, {"op": "insert", "entity": "hold", "values": {}})
    assert (seen[0].key, seen[1].key) == (str(UUID(int=1)), UUID(int=2))
    assert seen[1].set == {"amount": 1}
    wrong_key = {**ORDER_INSERT, "values": {"_id": str(UUID(int=1)) + "x"}}
    assert wrong(**wrong_key) == invalid_at("values._id")


def test_f18_an_upsert_keeps_defaults_apart() -> None:
    seen = one(op="upsert", entity="account", key=42, values={"note": "a"})
    assert seen.set == {"note": "a"}
    assert seen.defaults == {"created_at": DRAWN_AT}
    assert wrong(op="upsert", entity="account", key=42, values={}, expect={"note": "a"}) == (
        invalid_at("expect")
    )
    assert wrong(op="upsert", entity="order", values={}) == invalid_at("key")


# --- F17, F23: update and delete -----------------------------------------------------------------


def test_an_update_with_all_that_it_may_have() -> None:
    seen = one(
        **ACCOUNT_UPDATE,
        set={"status": "active"},
        unset=["note"],
        increment={"balance": "-12.5"},
        expect={"version": 7, "balance": {"gte": "12.50", "lt": 100}, "note": None},
        if_missing="ignore",
    )
    assert (seen.set, seen.unset) == ({"status": "active"}, ("note",))
    assert str(seen.increment) == "{'balance': Decimal('-12.50')}"
    assert seen.expect == (
        Condition("version", Comparison.EQ, 7),
        Condition("balance", Comparison.GTE, Decimal("12.50")),
        Condition("balance", Comparison.LT, Decimal(100)),
        Condition("note", Comparison.EQ, None),
    )
    assert seen.ignore_missing


@pytest.mark.parametrize(
    ("members", "path"),
    [
        ({}, ""),
        ({"set": {}, "unset": [], "increment": {}}, ""),
        ({"unset": None, "set": {"note": "a"}}, "unset"),
        ({"set": {"id": 42}}, "set.id"),
        ({"set": {"version": 1}}, "set.version"),
        ({"set": {"created_at": "2024-05-17T09:30:00Z"}}, "set.created_at"),
        ({"set": {"balance": None}}, "set.balance"),
        ({"set": {"status": "lost"}}, "set.status"),
        ({"set": {"note": "a"}, "values": {}}, "values"),
        ({"unset": "note"}, "unset"),
        ({"unset": [["note"]]}, "unset"),
        ({"unset": ["note", "note"]}, "unset"),
        ({"unset": ["balance"]}, "unset.0"),
        ({"unset": ["nope"]}, "unset.nope"),
        ({"unset": ["id"]}, "unset.id"),
        ({"unset": ["version"]}, "unset.version"),
        ({"increment": {"note": 1}}, "increment.note"),
        ({"increment": {"id": 1}}, "increment.id"),
        ({"increment": {"version": 1}}, "increment.version"),
        ({"increment": {"balance": None}}, "increment.balance"),
        ({"increment": {"balance": 1.5}}, "increment.balance"),
        ({"increment": {"balance": "0.001"}}, "increment.balance"),
        ({"increment": {"balance": {"$ref": "0.key"}}}, "increment.balance"),
        ({"increment": {"nope": 1}}, "increment.nope"),
        ({"set": {"note": "a"}, "unset": ["note"]}, "unset.note"),
        ({"set": {"balance": 1}, "increment": {"balance": 1}}, "increment.balance"),
        ({"set": {"note": "a"}, "if_missing": None}, "if_missing"),
        ({"set": {"note": "a"}, "if_missing": "skip"}, "if_missing"),
        ({"set": {"note": "a"}, "expect": None}, "expect"),
        ({"set": {"note": "a"}, "absent": True}, "absent"),
    ],
)
def test_f17_f20_f23_f42_updates_that_are_wrong(members: dict[str, Any], path: str) -> None:
    seen = wrong(**ACCOUNT_UPDATE, **members)
    assert seen[:1] == [("invalid", f"operations.0.{path}".rstrip("."))]


def test_f23_an_increment_may_be_outside_the_bounds_of_its_field() -> None:
    assert one(**ACCOUNT_UPDATE, increment={"balance": -5}).increment == {"balance": Decimal(-5)}


def test_deletes() -> None:
    seen = one(op="delete", entity="account", key=1, if_missing="fail", expect={"version": 3})
    assert not seen.ignore_missing
    assert seen.expect == (Condition("version", Comparison.EQ, 3),)
    assert wrong(op="delete", entity="account", key=1, values={}) == invalid_at("values")


# --- F19: check ----------------------------------------------------------------------------------


def test_f19_checks() -> None:
    check = {"op": "check", "entity": "account", "key": 1}
    assert one(**check) == one(**check, absent=False)
    assert one(**check, absent=True).absent
    assert wrong(**check, absent=True, expect={"version": 1}) == invalid_at("absent")
    for absent in (None, 1, "true"):
        assert wrong(**check, absent=absent) == invalid_at("absent")
    for member in ("set", "compensate", "if_missing"):
        assert wrong(**check, **{member: {}}) == invalid_at(member)


# --- F22: expect ---------------------------------------------------------------------------------


def expecting(expect: Any, entity: str = "pg_thing") -> dict[str, Any]:
    return {"op": "check", "entity": entity, "key": "t-1", "expect": expect}


def test_f22_operands_are_not_judged_by_bounds() -> None:
    check = {"op": "check", "entity": "account", "key": 1}
    conditions = one(**check, expect={"status": {"in": ["lost", None]}, "note": "x" * 50}).expect
    assert conditions[0] == Condition("status", Comparison.IN, ("lost", None))
    assert conditions[1].operand == "x" * 50
    assert one(**expecting({"rev": {"gt": "5"}})).expect[0].operand == 5


def test_f22_json_takes_eq_and_ne_in_operator_form() -> None:
    conditions = one(**expecting({"json": {"eq": {"gt": 1}, "ne": None}})).expect
    assert [each.operand for each in conditions] == ['{"gt":1}', None]


@pytest.mark.parametrize(
    ("expect", "path"),
    [
        ({}, "expect"),
        ([], "expect"),
        ({"string": {}}, "expect.string"),
        ({"nope": 1}, "expect.nope"),
        ({"integer": "x"}, "expect.integer"),
        ({"integer": {"between": [1, 2]}}, "expect.integer.between"),
        ({"integer": {"$ref": "0.key"}}, "expect.integer.$ref"),
        ({"integer": {"in": []}}, "expect.integer.in"),
        ({"integer": {"in": 5}}, "expect.integer.in"),
        ({"integer": {"in": [1, "x"]}}, "expect.integer.in.1"),
        ({"integer": {"lt": None}}, "expect.integer.lt"),
        ({"integer": {"eq": [1]}}, "expect.integer.eq"),
        ({"integer": [1]}, "expect.integer"),
        ({"boolean": {"lt": True}}, "expect.boolean.lt"),
        ({"uuid": {"gte": str(UUID(int=1))}}, "expect.uuid.gte"),
        ({"binary": {"gt": "AA=="}}, "expect.binary.gt"),
        ({"json": {"in": [1]}}, "expect.json.in"),
        ({"json": {"lt": 1}}, "expect.json.lt"),
        ({"json": {"a": 1}}, "expect.json.a"),
        ({"json": [1]}, "expect.json"),
        ({"json": None}, "expect.json"),
        ({"rev": {"eq": "x"}}, "expect.rev.eq"),
    ],
)
def test_f22_expectations_that_are_wrong(expect: Any, path: str) -> None:
    assert wrong(**expecting(expect)) == invalid_at(path)


def test_f22_order_comparisons_are_for_six_types() -> None:
    operands = {"integer": 1, "decimal": "1", "float": 1.5, "date": "2024-05-17", "string": "a"}
    operands["timestamp"] = "2024-05-17T09:30:00Z"
    expect = {name: {"lte": operand} for name, operand in operands.items()}
    assert len(one(**expecting(expect)).expect) == 6
    assert wrong(**expecting({"objectid": {"lt": "0" * 24}}, "mongo_thing")) == (
        invalid_at("expect.objectid.lt")
    )


# --- F24: $ref -----------------------------------------------------------------------------------


def test_f24_keys_and_values_may_refer_to_the_key_of_any_insert() -> None:
    seen = planned(
        {"op": "delete", "entity": "order", "key": {"$ref": "1.key"}},
        {**ORDER_INSERT, "values": {"customer": {"$ref": "2.key"}}},
        CUSTOMER_INSERT,
        {"op": "upsert", "entity": "pg_thing", "key": {"$ref": "1.key"},
         "values": {"decimal": {"$ref": "2.key"}, "string": {"$ref": "1.key"},
                    "uuid": {"$ref": "1.key"}, "json": {"$ref": "9.key"}}},
    )  # fmt: skip
    drawn = str(UUID(int=1))
    assert seen[0].key == seen[1].key == seen[3].key == drawn
    assert seen[1].set["customer"] == 5
    assert seen[3].set == {
        "decimal": Decimal(5), "string": drawn, "uuid": UUID(int=1), "json": '{"$ref":"9.key"}',
    }  # fmt: skip


def test_f24_a_chain_of_keys_is_followed_and_a_ring_is_not() -> None:
    inserts = [
        {"op": "insert", "entity": "customer", "key": {"$ref": f"{at + 1}.key"}, "values": {}}
        for at in range(99)
    ]
    seen = planned(*inserts, CUSTOMER_INSERT)
    assert {each.key for each in seen.values()} == {5}
    ring = problems(*inserts, {**CUSTOMER_INSERT, "key": {"$ref": "0.key"}})
    assert [(each.operation, each.path) for each in ring] == [(99, "operations.99.key")]
    itself = problems({**CUSTOMER_INSERT, "key": {"$ref": "0.key"}})
    assert [each.path for each in itself] == ["operations.0.key"]


@pytest.mark.parametrize(
    "ref",
    [
        {"$ref": "3.key"},
        {"$ref": "-1.key"},
        {"$ref": "01.key"},
        {"$ref": "1.keys"},
        {"$ref": "1"},
        {"$ref": 1},
        {"$ref": None},
        {"$ref": "1.key", "x": 1},
        {"$ref": "1.key\n"},
        {"$ref": "2.key"},
        {"ref": "1.key"},
    ],
)
def test_f24_references_that_are_wrong(ref: Any) -> None:
    unit = (
        {**ORDER_INSERT, "values": {"customer": ref}},
        CUSTOMER_INSERT,
        {"op": "delete", "entity": "customer", "key": 6},
    )
    assert [(each.code, each.path) for each in problems(*unit)] == [
        ("invalid", "operations.0.values.customer")
    ]


def test_f24_the_key_must_fit_the_field_and_stands_as_a_whole() -> None:
    unit: dict[str, Any] = {"op": "upsert", "entity": "pg_thing", "key": "t"}
    for values in ({"string": {"$ref": "1.key"}}, {"binary": {"$ref": "1.key"}}):
        seen = problems({**unit, "values": values}, CUSTOMER_INSERT)
        assert [each.path for each in seen] == [f"operations.0.values.{next(iter(values))}"]
    nested = one(**unit, values={"json": [{"$ref": "7.key"}]})
    assert nested.set["json"] == '[{"$ref":"7.key"}]'


def test_f24_f32_a_ref_in_a_json_field_of_mongodb_is_data_that_it_cannot_store() -> None:
    unit = {"op": "upsert", "entity": "mongo_thing", "key": "t"}
    seen = problems({**unit, "values": {"json": {"$ref": "1.key"}}}, CUSTOMER_INSERT)
    assert [each.path for each in seen] == ["operations.0.values.json"]
    assert "$" in seen[0].message


# --- F25: compensate -----------------------------------------------------------------------------


def test_f25_compensate_is_read_like_an_operation_on_the_same_key() -> None:
    update = {**ACCOUNT_UPDATE, "set": {"status": "active"}}
    undo = {"op": "update", "set": {"status": "closed"}, "increment": {"balance": -1}}
    for beside in ({}, {"entity": "account", "key": "42"}):
        compensate = one(**update, compensate={**undo, **beside}).compensate
        assert compensate is not None
        assert (compensate.key, compensate.key_text, compensate.index) == (42, "42", 0)
        assert compensate.set == {"status": "closed"}
        assert compensate.increment == {"balance": Decimal(-1)}
    inserted = one(**ACCOUNT_INSERT, values={"balance": 1}, compensate={"op": "delete"}).compensate
    assert inserted is not None
    assert inserted.kind == "delete"


@pytest.mark.parametrize(
    ("compensate", "path"),
    [
        (None, ""),
        ([], ""),
        ({}, "op"),
        ({"op": "check"}, "op"),
        ({"op": "delete", "entity": "customer"}, "entity"),
        ({"op": "delete", "key": 43}, "key"),
        ({"op": "delete", "key": None}, "key"),
        ({"op": "delete", "key": {"$ref": "0.key"}}, "key"),
        ({"op": "delete", "expect": {"version": 1}}, "expect"),
        ({"op": "delete", "if_missing": "ignore"}, "if_missing"),
        ({"op": "delete", "compensate": {"op": "delete"}}, "compensate"),
        ({"op": "update"}, ""),
        ({"op": "update", "set": {"note": "x" * 11}}, "set.note"),
        ({"op": "update", "set": {"note": {"$ref": "0.key"}}}, "set.note"),
        ({"op": "upsert", "values": {"id": {"$ref": "0.key"}}}, "values.id"),
        ({"op": "upsert", "values": {"id": 43}}, "values.id"),
        ({"op": "insert", "values": {}}, "values.balance"),
    ],
)
def test_f25_compensations_that_are_wrong(compensate: Any, path: str) -> None:
    seen = wrong(**ACCOUNT_INSERT, values={"balance": 1}, compensate=compensate)
    assert seen == invalid_at(f"compensate.{path}".rstrip("."))


def test_f25_the_allow_list_holds_for_compensations_too() -> None:
    seen = wrong(
        op="insert", entity="hold", values={}, compensate={"op": "update", "set": {"amount": 2}}
    )
    assert seen == [("forbidden", "operations.0.compensate.op")]


def test_f15_a_compensation_that_sets_a_reference_claims_the_row_too() -> None:
    update = {"op": "update", "entity": "order", "key": "o", "set": {"total": 1}}
    undo = {"op": "update", "set": {"customer": 9}}
    seen = read_all([{**update, "compensate": undo}])
    assert isinstance(seen, Submission)
    assert seen.plan.locks == (
        LockRequest("order", '"o"', True), LockRequest("customer", "9", False),
    )  # fmt: skip
