"""Plans: order, branches, lock requests and the journal's form (F13, F14, F15, rule 8)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from coordinator.domain.entity import (
    Column,
    Entity,
    FieldType,
    ForeignWritePolicy,
    Limits,
    Mapping,
    Reference,
)
from coordinator.domain.mapping_json import (
    fingerprint,
    make_mapping,
    mapping_as_json,
    mapping_from_json,
)
from coordinator.domain.operation import (
    Comparison,
    Condition,
    LockRequest,
    Operation,
    OperationKind,
)
from coordinator.domain.plan import make_plan
from coordinator.domain.plan_json import plan_as_json, plan_from_json
from coordinator.domain.values import JsonText, key_text
from tests.mapping_samples import MAPPING, MONGODB, POSTGRESQL, entity, field

T, K = FieldType, OperationKind


def keyed(name: str, **references: str) -> Entity:
    """An entity whose key and references are integers."""
    fields = [field("id", T.INTEGER), *(field(each, T.INTEGER) for each in references)]
    return entity(
        name,
        POSTGRESQL,
        fields,
        references=tuple(Reference(at, target) for at, target in references.items()),
    )


SHOP = make_mapping(
    [
        keyed("customer"),
        keyed("order", customer="customer"),
        keyed("line", order="order"),
        keyed("node", parent="node"),
        keyed("man", wife="woman"),
        keyed("woman", husband="man"),
        keyed("free"),
    ]
)


def operation(kind: OperationKind, name: str, key: Any, **more: Any) -> Operation:
    of = more.pop("mapping", SHOP).entities[name]
    text = key_text(of.key_field.type, key)
    return Operation(0, kind, name, key, text, more.pop("set", {}), **more)


def insert(name: str, key: int, **values: int) -> Operation:
    return operation(K.INSERT, name, key, set=values)


def delete(name: str, key: int) -> Operation:
    return operation(K.DELETE, name, key)


def order_of(*operations: Operation, mapping: Mapping = SHOP) -> list[int]:
    written = [replace(each, index=at) for at, each in enumerate(operations)]
    return [each.index for each in make_plan(mapping, written).operations]


# --- F13 ---------------------------------------------------------------------------------------


def test_f13_inserts_go_after_the_inserts_of_what_they_refer_to() -> None:
    line, order = insert("line", 1, order=2), insert("order", 2, customer=3)
    customer, free = insert("customer", 3), insert("free", 1)
    assert order_of(order, customer) == [1, 0]
    assert order_of(customer, order) == [0, 1]
    assert order_of(line, order, customer) == [2, 1, 0]
    assert order_of(free, order, free, customer, free) == [0, 2, 3, 1, 4]
    assert order_of(operation(K.UPSERT, "order", 2, set={"customer": 3}), customer) == [1, 0]


def test_f13_only_the_row_that_is_referred_to_matters() -> None:
    order, other = insert("order", 2, customer=3), insert("customer", 4)
    assert order_of(order, other) == [0, 1]
    assert order_of(operation(K.UPDATE, "order", 2, set={"customer": 4}), other) == [0, 1]


def test_f13_a_creation_before_the_reference_is_enough() -> None:
    order, customer = insert("order", 2, customer=3), operation(K.UPSERT, "customer", 3)
    assert order_of(customer, order, customer) == [0, 1, 2]


def test_f13_deletes_go_after_the_deletes_of_those_that_refer_to_them() -> None:
    assert order_of(delete("customer", 3), delete("order", 2), delete("line", 1)) == [2, 1, 0]
    assert order_of(delete("customer", 3), delete("free", 2), delete("order", 2)) == [1, 2, 0]
    assert order_of(delete("order", 2), delete("customer", 3)) == [0, 1]


def test_f13_self_references_and_cycles_keep_the_written_order() -> None:
    assert order_of(insert("node", 1, parent=2), insert("node", 2)) == [0, 1]
    assert order_of(delete("node", 2), delete("node", 1)) == [0, 1]
    assert order_of(insert("man", 1, wife=2), insert("woman", 2, husband=1)) == [0, 1]
    assert order_of(insert("man", 1, wife=2), insert("woman", 2, husband=9)) == [1, 0]
    assert order_of(delete("woman", 2), delete("man", 1)) == [0, 1]


def test_f13_operations_on_one_key_never_swap() -> None:
    old, new = delete("customer", 3), insert("customer", 3)
    order = insert("order", 2, customer=3)
    assert order_of(order, old, new) == [1, 2, 0]
    again = operation(K.UPDATE, "order", 2, set={})
    assert order_of(order, again, new) == [2, 0, 1]
    # The order's delete must not pass its own insert on the way to the customer's delete.
    assert order_of(delete("customer", 3), insert("order", 2), delete("order", 2)) == [1, 2, 0]


def test_f13_a_cycle_does_not_hold_back_what_is_outside_of_it() -> None:
    man, woman = insert("man", 1, wife=2), insert("woman", 2, husband=1)
    order, customer = insert("order", 2, customer=3), insert("customer", 3)
    assert order_of(man, order, woman, customer) == [0, 2, 3, 1]


# --- branches and locks (F15) --------------------------------------------------------------------


def test_branches_hold_the_positions_at_each_store() -> None:
    operations = [
        operation(K.DELETE, name, key, mapping=MAPPING)
        for name, key in (("account", 1), ("order", "o"), ("customer", 2))
    ]
    plan = make_plan(MAPPING, operations)
    assert plan.branches == {"ledger": (0, 2), "catalog": (1,)}


def test_f15_writes_are_exclusive_checks_and_references_shared() -> None:
    check, write = operation(K.CHECK, "free", 1), operation(K.UPDATE, "free", 1)
    assert make_plan(SHOP, [check]).locks == (LockRequest("free", "1", False),)
    for both in ([check, write], [write, check]):
        assert make_plan(SHOP, both).locks == (LockRequest("free", "1", True),)
    for kind in (K.INSERT, K.UPSERT, K.UPDATE):
        assert make_plan(SHOP, [operation(kind, "order", 1, set={"customer": 3})]).locks == (
            LockRequest("order", "1", True), LockRequest("customer", "3", False),
        )  # fmt: skip
    upsert = operation(K.UPSERT, "order", 1, set={}, defaults={"customer": 4})
    assert LockRequest("customer", "4", False) in make_plan(SHOP, [upsert]).locks
    assert (
        len(make_plan(SHOP, [operation(K.UPDATE, "order", 1, set={"customer": None})]).locks) == 1
    )


def test_f15_a_referred_row_that_is_written_too_is_claimed_once_and_exclusively() -> None:
    locks = make_plan(SHOP, [insert("order", 2, customer=3), insert("customer", 3)]).locks
    assert set(locks) == {LockRequest("order", "2", True), LockRequest("customer", "3", True)}


@pytest.mark.parametrize(
    ("own_type", "value", "key_type", "text"),
    [
        (T.DECIMAL, Decimal("5.00"), T.INTEGER, "5"),
        (T.DECIMAL, Decimal("5.5"), T.INTEGER, '"5.5"'),
        (T.DECIMAL, Decimal("1E+6000"), T.INTEGER, '"1E+6000"'),
        (T.INTEGER, 5, T.DECIMAL, '"5"'),
        (T.STRING, "0198C0DE-0000-7000-8000-00000000000A", T.UUID,
         '"0198c0de-0000-7000-8000-00000000000a"'),
        (T.UUID, UUID(int=10), T.STRING, f'"{UUID(int=10)}"'),
        (T.STRING, "no uuid", T.UUID, '"no uuid"'),
        (T.INTEGER, 2**53, T.INTEGER, '"9007199254740992"'),
    ],
)  # fmt: skip
def test_f15_a_reference_claims_the_lock_of_the_key_it_means(
    own_type: FieldType, value: Any, key_type: FieldType, text: str
) -> None:
    mapping = make_mapping(
        [
            entity("target", POSTGRESQL, [field("id", key_type)]),
            entity(
                "source",
                MONGODB,
                [field("id", T.INTEGER), field("at", own_type)],
                references=(Reference("at", "target"),),
            ),
        ]
    )
    source = operation(K.INSERT, "source", 1, set={"at": value}, mapping=mapping)
    assert make_plan(mapping, [source]).locks[1] == LockRequest("target", text, False)


# --- the journal's form (rule 8) -----------------------------------------------------------------


def test_a_plan_survives_the_journal_in_every_type() -> None:
    values = {
        "string": "a\0", "integer": 10**40, "decimal": Decimal("1.500E+7"), "float": -0.0,
        "boolean": False, "timestamp": datetime(1, 2, 3, 4, 5, 6, 7, UTC),
        "date": datetime(2024, 5, 17, tzinfo=UTC).date(), "uuid": UUID(int=7), "binary": b"\xff",
        "json": JsonText('{"b":1.50,"a":1e400}'), "objectid": "65f0a1b2c3d4e5f60718293a",
    }  # fmt: skip
    conditions = [Condition(name, Comparison.EQ, each) for name, each in values.items()]
    conditions += [Condition("rev", Comparison.IN, (1, None, 2**70))]
    full = operation(
        K.UPDATE, "mongo_thing", "t", mapping=MAPPING, set=values, unset=("string",),
        increment={"decimal": Decimal("-0.10")}, expect=tuple(conditions), ignore_missing=True,
        compensate=operation(
            K.UPSERT, "mongo_thing", "t", mapping=MAPPING, set=values, defaults={}
        ),
    )  # fmt: skip
    check = operation(K.CHECK, "order", "o", mapping=MAPPING, absent=True)
    plan = make_plan(MAPPING, [full, replace(check, index=1)])
    seen = plan_from_json(plan_as_json(plan), MAPPING)
    assert seen == plan
    assert repr(seen) == repr(plan)


def test_a_mapping_survives_the_journal_and_is_named_by_its_fingerprint() -> None:
    rich = entity(
        "rich", POSTGRESQL,
        [
            field("id", T.UUID, default_generator="uuid7"),
            field("price", T.DECIMAL, min=Decimal("-1.50"), max=Decimal("1E+3"),
                  enum=(Decimal("0.10"), Decimal(2)), limits=Limits(precision=5, scale=2)),
            field("at", T.TIMESTAMP, default=datetime(2024, 5, 17, tzinfo=UTC), has_default=True),
            field("doc", T.JSON, enum=(JsonText('{"a":1.0}'),), nullable=True),
            field("text", T.STRING, pattern="[a-z]+", max_length=5, read_only=True, nullable=True),
        ],
        key_default="uuid7", version="rev", on_foreign_write=ForeignWritePolicy.SKIP,
        operations=frozenset({K.INSERT, K.CHECK}),
        columns=(Column("id", "uuid"), Column("n", "bigint", identity=True)),
    )  # fmt: skip
    mapping = make_mapping([rich, *SHOP.entities.values()])
    raw = mapping_as_json(mapping)
    seen = mapping_from_json(raw)
    assert seen == mapping
    assert repr(seen.entities["rich"].fields) == repr(mapping.entities["rich"].fields)
    assert mapping.fingerprint == fingerprint(raw)
    assert mapping_as_json(make_mapping([*mapping.entities.values()][::-1])) == raw
    other = make_mapping([replace(rich, version=None), *SHOP.entities.values()])
    assert other.fingerprint != mapping.fingerprint


def test_referrers_are_known_from_the_references() -> None:
    assert SHOP.referenced_by["customer"] == (Reference("customer", "order"),)
    assert SHOP.referenced_by["node"] == (Reference("parent", "node"),)
    assert "free" not in SHOP.referenced_by
