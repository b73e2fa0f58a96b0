"""Deciding, kind by kind: what an operation does to an image, and each way to be refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest

from coordinator.domain.decide import (
    Effect,
    Image,
    ImageKey,
    Refused,
    Write,
    decide_branch,
    decide_operation,
    exact_sum,
    show_image,
)
from coordinator.domain.entity import Field, FieldType, Limits
from coordinator.domain.errors import ErrorCode, Problem, error_as_json
from coordinator.domain.operation import Comparison, Condition, Operation
from coordinator.domain.values import Alien
from tests.units import check, delete, entity, equals, insert, mapping, unit, update, upsert

E, C = ErrorCode, Comparison

FIELDS: dict[str, FieldType | Field] = {
    "id": FieldType.INTEGER,
    "balance": Field(
        "balance",
        FieldType.DECIMAL,
        nullable=True,
        min=Decimal(0),
        max=Decimal(100),
        limits=Limits(precision=6, scale=2),
    ),
    "count": Field(
        "count", FieldType.INTEGER, nullable=True, limits=Limits(integer_min=-8, integer_max=7)
    ),
    "status": FieldType.STRING,
    "name": Field("name", FieldType.STRING),
}
SHOP = mapping(
    entity("account", FIELDS),
    entity("plain", {"id": FieldType.UUID, "note": FieldType.STRING}, version=None),
    entity("elsewhere", {"id": FieldType.STRING}, store="catalog"),
)
STORED: Image = {
    "id": 1,
    "balance": Decimal("10.00"),
    "count": 5,
    "status": "active",
    "name": "Ada",
    "version": 7,
}


def decide(operation: Operation, image: Image | None) -> Write:
    [(position, placed)] = unit(SHOP, operation).branch("ledger")
    return decide_operation(SHOP, position, placed, image)


def refusal(operation: Operation, image: Image | None) -> Problem:
    with pytest.raises(Refused) as caught:
        decide(operation, image)
    problem = caught.value.problem
    assert (problem.operation, problem.entity, problem.key) == (0, "account", 1)
    assert problem.message.startswith(f"{operation.kind.value} of account 1: ")
    return problem


def told(problem: Problem) -> tuple[ErrorCode, str | None]:
    return problem.code, problem.path


# --- insert (F16, F21) ----------------------------------------------------------------------------


def test_an_insert_creates_with_version_1_and_null_for_what_is_left_out() -> None:
    write = decide(insert("account", 1, name="Ada", count=2), None)
    assert write.effect is Effect.CREATED
    assert write.before is None
    assert write.after == {
        "id": 1,
        "balance": None,
        "count": 2,
        "status": None,
        "name": "Ada",
        "version": 1,
    }
    assert write.assigned == {"name": "Ada", "count": 2, "version": 1}


def test_an_insert_of_an_entity_without_a_version_writes_none() -> None:
    write = decide(insert("plain", UUID(int=1), note="x"), None)
    assert write.assigned == {"note": "x"}
    assert write.after == {"id": UUID(int=1), "note": "x"}


def test_an_insert_on_an_existing_key_is_refused() -> None:
    assert told(refusal(insert("account", 1, name="A"), STORED)) == (
        E.ALREADY_EXISTS,
        "operations.0.key",
    )


# --- update (F17, F21, F23) -----------------------------------------------------------------------


def test_an_update_sets_unsets_increments_and_bumps_the_version() -> None:
    operation = update(
        "account", 1, status="closed", unset=["count"], increment={"balance": Decimal("-2.50")}
    )
    write = decide(operation, STORED)
    assert write.effect is Effect.UPDATED
    assert write.before is STORED
    assert write.after == {
        **STORED,
        "status": "closed",
        "count": None,
        "balance": Decimal("7.50"),
        "version": 8,
    }
    assert write.assigned == {"status": "closed", "balance": Decimal("7.50"), "version": 8}
    assert write.unset == ("count",)
    assert write.deltas == {"balance": Decimal("-2.50")}


def test_an_update_that_changes_no_value_is_an_update() -> None:
    """F34."""
    write = decide(update("account", 1, status="active"), STORED)
    assert write.effect is Effect.UPDATED
    assert write.after == {**STORED, "version": 8}
    assert write.deltas is None


def test_a_missing_version_counts_as_0_and_another_type_is_told() -> None:
    write = decide(update("account", 1, status="x"), {**STORED, "version": None})
    assert write.assigned["version"] == 1
    for odd in (True, "7", Decimal(7), 7.0):
        problem = refusal(update("account", 1, status="x"), {**STORED, "version": odd})
        assert problem.code is E.TYPE_MISMATCH


@pytest.mark.parametrize("make", [update, delete])
def test_a_missing_key_is_not_found_or_ignored_without_judging_expectations(make: Any) -> None:
    expected = [equals("status", "never")]
    assert told(refusal(make("account", 1, expect=expected), None)) == (
        E.NOT_FOUND,
        "operations.0.key",
    )
    write = decide(make("account", 1, expect=expected, ignore_missing=True), None)
    assert (write.effect, write.after, write.assigned) == (Effect.NOTHING, None, {})


@pytest.mark.parametrize(
    ("field", "stored", "delta", "code"),
    [
        ("balance", None, Decimal(1), E.TYPE_MISMATCH),
        ("balance", Alien("text"), Decimal(1), E.TYPE_MISMATCH),
        ("balance", Decimal(1), Decimal("-1.01"), E.OUT_OF_BOUNDS),
        ("balance", Decimal(99), Decimal("1.01"), E.OUT_OF_BOUNDS),
        ("count", 7, 1, E.OUT_OF_BOUNDS),
        ("count", -8, -1, E.OUT_OF_BOUNDS),
    ],
)
def test_an_increment_is_refused_by_code(
    field: str, stored: Any, delta: Any, code: ErrorCode
) -> None:
    problem = refusal(update("account", 1, increment={field: delta}), {**STORED, field: stored})
    assert told(problem) == (code, f"operations.0.increment.{field}")


@pytest.mark.parametrize(("stored", "delta"), [("0", "0"), ("99.99", "0.01"), ("0.01", "-0.01")])
def test_an_increment_up_to_its_bound_is_allowed(stored: str, delta: str) -> None:
    write = decide(
        update("account", 1, increment={"balance": Decimal(delta)}),
        {**STORED, "balance": Decimal(stored)},
    )
    assert write.assigned["balance"] == Decimal(stored) + Decimal(delta)


def test_bounds_are_judged_only_on_fields_that_are_written() -> None:
    """F23: what a stranger left out of bounds hinders nobody who writes another field."""
    write = decide(update("account", 1, status="x"), {**STORED, "balance": Decimal(-5)})
    assert write.effect is Effect.UPDATED


def test_sums_are_exact() -> None:
    tiny = Decimal("1E-30")
    assert exact_sum(Decimal(10) ** 40, tiny) - Decimal(10) ** 40 != 0
    assert str(exact_sum(Decimal("1.10"), Decimal("2.2"))) == "3.30"
    assert exact_sum(2**62, 2**62) == 2**63


# --- upsert (F18) ---------------------------------------------------------------------------------


def test_an_upsert_creates_with_defaults_or_sets_without_them() -> None:
    operation = upsert("account", 1, defaults={"status": "new", "name": "?"}, name="Ada")
    created = decide(operation, None)
    assert created.effect is Effect.CREATED
    assert created.assigned == {"status": "new", "name": "Ada", "version": 1}
    changed = decide(operation, STORED)
    assert changed.effect is Effect.UPDATED
    assert changed.assigned == {"name": "Ada", "version": 8}
    assert changed.after == {**STORED, "version": 8}


def test_an_upsert_that_would_create_without_a_required_field_is_refused() -> None:
    operation = upsert("account", 1, status="new")
    problem = refusal(operation, None)
    assert told(problem) == (E.CONSTRAINT_VIOLATED, "operations.0.values")
    assert "name" in problem.message
    assert decide(operation, STORED).effect is Effect.UPDATED


# --- delete and check (F17, F19) ------------------------------------------------------------------


def test_a_delete_takes_the_row_away() -> None:
    write = decide(delete("account", 1, expect=[equals("status", "active")]), STORED)
    assert (write.effect, write.before, write.after) == (Effect.DELETED, STORED, None)


def test_a_check_writes_nothing_and_wants_the_row() -> None:
    write = decide(check("account", 1, equals("version", 7)), STORED)
    assert (write.effect, write.before, write.after) == (Effect.NOTHING, STORED, STORED)
    assert told(refusal(check("account", 1), None)) == (E.NOT_FOUND, "operations.0.key")


def test_a_check_for_absence() -> None:
    assert decide(check("account", 1, absent=True), None).effect is Effect.NOTHING
    assert refusal(check("account", 1, absent=True), STORED).code is E.ALREADY_EXISTS


# --- expect (F22, F33) ----------------------------------------------------------------------------


@pytest.mark.parametrize("make", [update, delete, check])
def test_an_expectation_that_fails_names_its_field(make: Any) -> None:
    wrong = Condition("balance", C.GTE, Decimal(11))
    operation = make("account", 1, wrong) if make is check else make("account", 1, expect=[wrong])
    assert told(refusal(operation, STORED)) == (
        E.EXPECTATION_FAILED,
        "operations.0.expect.balance",
    )


@pytest.mark.parametrize(
    ("condition", "stored", "holds"),
    [
        (Condition("status", C.EQ, None), None, True),
        (Condition("status", C.NE, None), None, False),
        (Condition("status", C.NE, "x"), None, True),
        (Condition("status", C.IN, (None, "x")), None, True),
        (Condition("status", C.IN, ("x",)), None, False),
        (Condition("count", C.LT, 9), None, False),
        (Condition("count", C.LTE, 5), 5, True),
        (Condition("count", C.GT, 5), 5, False),
        (Condition("balance", C.EQ, Decimal("10.0")), Decimal("10.00"), True),
        (Condition("status", C.LT, "\U0001f600"), "\uffff", True),  # by code point, not by UTF-16
    ],
)
def test_expectations_are_two_valued(condition: Condition, stored: Any, holds: bool) -> None:
    image = {**STORED, condition.field: stored}
    if holds:
        assert decide(check("account", 1, condition), image).effect is Effect.NOTHING
    else:
        assert refusal(check("account", 1, condition), image).code is E.EXPECTATION_FAILED


def test_an_expectation_on_a_value_of_another_type_is_a_mismatch() -> None:
    image = {**STORED, "count": Alien("five")}
    problem = refusal(check("account", 1, Condition("count", C.NE, 9)), image)
    assert told(problem) == (E.TYPE_MISMATCH, "operations.0.expect.count")
    assert decide(delete("account", 1), image).effect is Effect.DELETED  # a bad row can go


def test_all_failing_expectations_are_told_in_their_order() -> None:
    """F10."""
    operation = check("account", 1, equals("status", "x"), equals("version", 7), equals("count", 6))
    error = error_as_json((refusal(operation, STORED),))
    assert error["path"] == "operations.0.expect.status"
    assert [each["path"] for each in error["details"]] == [
        "operations.0.expect.status",
        "operations.0.expect.count",
    ]


# --- a branch (F14, F10) --------------------------------------------------------------------------


def branch(
    *operations: Operation, images: Mapping[ImageKey, Image | None]
) -> tuple[Write, ...] | Problem:
    return decide_branch(unit(SHOP, *operations), "ledger", images)


def test_operations_on_one_key_see_each_others_result_and_chain_their_images() -> None:
    """F14, and F21: a version begins at 1 again after a delete."""
    writes = branch(
        update("account", 1, status="a", expect=[equals("version", 7)]),
        update("account", 1, status="b", expect=[equals("version", 8), equals("status", "a")]),
        delete("account", 1),
        check("account", 1, absent=True),
        insert("account", 1, name="New"),
        images={("account", "1"): STORED},
    )
    assert not isinstance(writes, Problem)
    versions = [None if each.after is None else each.after["version"] for each in writes]
    assert versions == [8, 9, None, None, 1]
    assert all(earlier.after == later.before for earlier, later in pairwise(writes))
    assert STORED["version"] == 7, "the images that were read stay as they were"


def test_a_branch_keeps_its_positions_and_leaves_other_stores_alone() -> None:
    writes = branch(
        insert("elsewhere", "e"),
        update("account", 1, status="x"),
        images={("account", "1"): STORED},
    )
    assert not isinstance(writes, Problem)
    assert [each.position for each in writes] == [1]


def test_refusals_of_several_operations_are_told_together_in_the_written_order() -> None:
    """F10; what follows a refused operation on the same key is not judged."""
    planned = unit(
        SHOP,
        update("account", 2, status="x"),
        update("account", 2, status="y"),
        insert("account", 1, name="A"),
        check("account", 3),
    )
    # The plan's order is not the written one: a reference may have moved an operation.
    first, *rest = planned.plan.operations
    moved = [replace(first, index=3), *(replace(each, index=at) for at, each in enumerate(rest))]
    planned = planned._replace(plan=planned.plan._replace(operations=tuple(moved)))
    images = {("account", "1"): STORED, ("account", "2"): None, ("account", "3"): None}
    problem = decide_branch(planned, "ledger", images)
    assert isinstance(problem, Problem)
    error = error_as_json((problem,))
    assert [(each["operation"], each["code"]) for each in error["details"]] == [
        (1, "already_exists"),
        (2, "not_found"),
        (3, "not_found"),
    ]
    assert (error["operation"], error["code"]) == (1, "already_exists")


# --- images (F34) ---------------------------------------------------------------------------------


def test_an_image_is_shown_with_all_declared_fields_and_the_version() -> None:
    shown = show_image(SHOP.entities["account"], {**STORED, "stranger": 1, "count": None})
    assert shown == {
        "id": 1,
        "balance": "10.00",
        "count": None,
        "status": "active",
        "name": "Ada",
        "version": 7,
    }
    assert show_image(SHOP.entities["account"], None) is None
    assert show_image(SHOP.entities["plain"], {"id": UUID(int=1)}) == {
        "id": str(UUID(int=1)),
        "note": None,
    }
