"""The plan's form in the journal: made once, never made again (rule 8).

Owns the round trip of `Plan`. The mapping that a plan is read with must be the one it was made
with; the journal keeps that under its fingerprint (`coordinator.domain.mapping_json`).
"""

from __future__ import annotations

from typing import Any

import orjson

from coordinator.domain.entity import Entity, FieldType, Mapping
from coordinator.domain.journal_form import restore, restore_all, to_bytes
from coordinator.domain.operation import (
    Comparison,
    Condition,
    LockRequest,
    Operation,
    OperationKind,
    Plan,
)
from coordinator.domain.plan import branches_of


def plan_as_json(plan: Plan) -> bytes:
    """Write a plan for the journal."""
    return to_bytes(
        {
            "operations": [_operation_form(operation) for operation in plan.operations],
            "locks": [_lock_form(lock) for lock in plan.locks],
        }
    )


def plan_from_json(raw: bytes | str, mapping: Mapping) -> Plan:
    """Read a plan back with the mapping that it was made with."""
    form = orjson.loads(raw)
    operations = tuple(_operation(each, mapping) for each in form["operations"])
    return Plan(
        operations,
        branches_of(mapping, operations),
        tuple([LockRequest(*each) for each in form["locks"]]),
    )


def _lock_form(lock: LockRequest) -> list[Any]:
    form = [lock.entity, lock.key_text, lock.exclusive]
    return [*form, True] if lock.increment else form


def _operation_form(operation: Operation) -> dict[str, Any]:
    form: dict[str, Any] = {
        "index": operation.index,
        "op": operation.kind,
        "entity": operation.entity,
        "key": operation.key,
        "key_text": operation.key_text,
    }
    if operation.set:
        form["set"] = operation.set
    if operation.unset:
        form["unset"] = operation.unset
    if operation.increment is not None:
        form["increment"] = operation.increment
    if operation.expect:
        form["expect"] = [[each.field, each.comparison, each.operand] for each in operation.expect]
    if operation.ignore_missing:
        form["ignore_missing"] = True
    if operation.absent:
        form["absent"] = True
    if operation.defaults is not None:
        form["defaults"] = operation.defaults
    if operation.compensate is not None:
        form["compensate"] = _operation_form(operation.compensate)
    return form


_KINDS = {kind.value: kind for kind in OperationKind}
_COMPARISONS = {comparison.value: comparison for comparison in Comparison}


def _operation(form: dict[str, Any], mapping: Mapping) -> Operation:
    entity = mapping.entities[form["entity"]]
    compensate = form.get("compensate")
    return Operation(
        index=form["index"],
        kind=_KINDS[form["op"]],
        entity=entity.name,
        key=restore(entity.key_field.type, form["key"]),
        key_text=form["key_text"],
        set=_values(entity, form.get("set")) or {},
        unset=tuple(form.get("unset", ())),
        increment=_values(entity, form.get("increment")),
        expect=tuple([_condition(entity, each) for each in form.get("expect", ())]),
        ignore_missing=form.get("ignore_missing", False),
        absent=form.get("absent", False),
        defaults=_values(entity, form.get("defaults")),
        compensate=None if compensate is None else _operation(compensate, mapping),
    )


def _values(entity: Entity, forms: dict[str, Any] | None) -> dict[str, Any] | None:
    if forms is None:
        return None
    fields = entity.fields
    return {name: restore(fields[name].type, form) for name, form in forms.items()}


def _condition(entity: Entity, form: list[Any]) -> Condition:
    name, comparison_name, operand = form
    field = entity.fields.get(name)
    field_type = FieldType.INTEGER if field is None else field.type
    comparison = _COMPARISONS[comparison_name]
    if comparison is Comparison.IN:
        return Condition(name, comparison, restore_all(field_type, operand))
    return Condition(name, comparison, restore(field_type, operand))
