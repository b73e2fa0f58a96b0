"""Plans of random units: the constraints of F13, and the journal's form (rule 8)."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.domain.entity import FieldType, Reference
from coordinator.domain.mapping_json import make_mapping
from coordinator.domain.operation import Operation, OperationKind
from coordinator.domain.plan import make_plan
from coordinator.domain.plan_json import plan_as_json, plan_from_json
from tests.mapping_samples import POSTGRESQL, entity, field

# a ← b ← c and a ← c without a cycle; d ↔ e with one; f refers to itself.
REFERENCES = {"a": "", "b": "a", "c": "ab", "d": "e", "e": "d", "f": "f"}
MAPPING = make_mapping(
    entity(
        name,
        POSTGRESQL,
        [field("id", FieldType.INTEGER), *(field(each, FieldType.INTEGER) for each in targets)],
        references=tuple(Reference(each, each) for each in targets),
    )
    for name, targets in REFERENCES.items()
)
KEYS = st.integers(1, 3)


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    name = draw(st.sampled_from(sorted(REFERENCES)))
    kind = draw(st.sampled_from(list(OperationKind)))
    key = draw(KEYS)
    values = {each: draw(KEYS) for each in REFERENCES[name]}
    is_set = kind not in (OperationKind.DELETE, OperationKind.CHECK)
    return Operation(0, kind, name, key, str(key), values if is_set else {})


UNITS = st.lists(operations(), max_size=8).map(
    lambda unit: [replace(each, index=at) for at, each in enumerate(unit)]
)
CREATING = (OperationKind.INSERT, OperationKind.UPSERT)


def must_precede(before: Operation, after: Operation, unit: list[Operation]) -> bool:
    """Whether F13 alone asks for it, read naively; cycles and one key left aside."""
    if before.entity == after.entity:
        return False
    if before.kind is after.kind is OperationKind.DELETE:
        return after.entity in REFERENCES[before.entity]
    creates = before.kind in CREATING and after.kind in CREATING
    if not creates or after.set.get(before.entity) != before.key:
        return False
    same_row = [
        each.index
        for each in unit
        if each.kind in CREATING and (each.entity, each.key) == (before.entity, before.key)
    ]
    return same_row == [before.index]


@settings(max_examples=500, deadline=None)
@given(UNITS)
def test_f13_the_plan_keeps_every_constraint_and_loses_nothing(unit: list[Operation]) -> None:
    plan = make_plan(MAPPING, unit)
    order = [each.index for each in plan.operations]
    at = {index: position for position, index in enumerate(order)}
    assert sorted(order) == list(range(len(unit)))
    for one in unit:
        for other in unit[one.index + 1 :]:
            if (one.entity, one.key) == (other.entity, other.key):
                assert at[one.index] < at[other.index]
    keys = [(each.entity, each.key) for each in unit]
    if len(set(keys)) == len(keys):
        acyclic = [each for each in unit if each.entity in "abc"]
        for before in acyclic:
            for after in acyclic:
                if must_precede(before, after, unit):
                    assert at[before.index] < at[after.index]


@settings(max_examples=300, deadline=None)
@given(UNITS)
def test_f13_an_operation_stays_unless_a_reference_moves_it(unit: list[Operation]) -> None:
    assert make_plan(MAPPING, make_plan(MAPPING, unit).operations).operations == (
        make_plan(MAPPING, unit).operations
    )
    needed = any(
        must_precede(after, before, unit) for before in unit for after in unit[before.index + 1 :]
    )
    several = len({(each.entity, each.key) for each in unit}) < len(unit)
    if not needed and not several:
        assert list(make_plan(MAPPING, unit).operations) == unit


@settings(max_examples=200, deadline=None)
@given(UNITS)
def test_f15_every_key_and_reference_is_claimed_once(unit: list[Operation]) -> None:
    plan = make_plan(MAPPING, unit)
    claims = {(each.entity, each.key_text): each.exclusive for each in plan.locks}
    assert len(claims) == len(plan.locks)
    written = {(each.entity, each.key_text) for each in unit if each.writes}
    assert {row for row, exclusive in claims.items() if exclusive} == written
    touched = {(each.entity, each.key_text) for each in unit}
    referred = {(name, str(key)) for each in unit for name, key in each.set.items()}
    assert set(claims) == touched | referred


@settings(max_examples=200, deadline=None)
@given(UNITS)
def test_rule_8_a_plan_survives_the_journal(unit: list[Operation]) -> None:
    plan = make_plan(MAPPING, unit)
    assert plan_from_json(plan_as_json(plan), MAPPING) == plan
