"""What would become of a submission, without doing it: ``coordinator explain FILE``.

Pure. It tells what follows from the submission and the mapping alone: order, branches, locks,
statements by their shape, what undo would do, and what each store may refuse when it is asked.
Values are not repeated, except keys: shapes and names are enough to judge a unit by.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from coordinator.domain.entity import Entity, ForeignWritePolicy, StoreKind
from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.domain.errors import ErrorCode, error_as_json
from coordinator.domain.operation import LockRequest, Operation, OperationKind
from coordinator.domain.submission import (
    Cancel,
    DeadLetter,
    Reading,
    RefusedCancel,
    RefusedEarly,
    Submission,
)

Explained = dict[str, Any]
"""JSON-ready; ``verdict``: ``admitted``, ``rejected``, ``dead_letter``, ``cancel``, ``ignored``."""

K = OperationKind


def explain_reading(reading: Reading, mapping: EntityMapping, pivot_store: str | None) -> Explained:
    """Explain what was read of one record."""
    match reading:
        case DeadLetter(code, message, _):
            return {
                "unit": None,
                "verdict": "dead_letter",
                "error": {"code": code.value, "message": message},
            }
        case RefusedEarly():
            error = error_as_json(reading.problems)
            return {"unit": reading.id, "verdict": "rejected", "error": error}
        case RefusedCancel(unit_id, breach):
            return {"unit": unit_id, "verdict": "ignored", "breach": breach.value}
        case Cancel(unit_id, _, _):
            return {"unit": unit_id, "verdict": "cancel"}
        case Submission():
            return _explain(reading, mapping, pivot_store)


def _explain(submission: Submission, mapping: EntityMapping, pivot_store: str | None) -> Explained:
    plan, entities = submission.plan, mapping.entities
    return {
        "unit": submission.id,
        "verdict": "admitted",
        "digest": submission.digest,
        "timeout_ms": submission.timeout_ms,
        "order": [
            {
                "position": position,
                "submitted_as": operation.index,
                "op": operation.kind.value,
                "entity": operation.entity,
                "key": operation.key_text,
                "store": entities[operation.entity].store,
                "expects": list(_expectations(operation)),
                "may_be_refused": list(_refusals(entities[operation.entity], operation)),
                "undo": _undo(entities[operation.entity], operation, pivot_store),
            }
            for position, operation in enumerate(plan.operations)
        ],
        "branches": [
            {
                "store": store,
                "commits": "with the journal, last" if store == pivot_store else "before the pivot",
                "positions": list(positions),
                "statements": _statements(
                    [plan.operations[position] for position in positions], entities
                ),
            }
            for store, positions in sorted(
                plan.branches.items(), key=lambda each: each[0] == pivot_store
            )
        ],
        "locks": [
            {
                "entity": lock.entity,
                "key": lock.key_text,
                "mode": _mode(lock),
            }
            for lock in plan.locks
        ],
    }


def _mode(lock: LockRequest) -> str:
    if lock.increment:
        return "increment"  # exclusive, but shared within a batch by units that only count the key
    return "exclusive" if lock.exclusive else "shared"


# --- statements ---------------------------------------------------------------------------------


def _statements(operations: list[Operation], entities: Mapping[str, Entity]) -> list[str]:
    """Tell the statements by their shape; operations of one shape go together."""
    shapes = Counter(_shape(entities[each.entity], each) for each in operations)
    return [shape if count == 1 else f"{shape} × {count}" for shape, count in shapes.items()]


def _shape(entity: Entity, operation: Operation) -> str:
    if entity.kind is StoreKind.MONGODB:
        return _document_shape(entity, operation)
    table = f"{entity.schema}.{entity.table}"
    written = ", ".join(_written(entity, operation))
    match operation.kind:
        case K.INSERT:
            return f"INSERT INTO {table} ({', '.join(filter(None, (entity.key, written)))})"
        case K.UPDATE:
            return f"UPDATE {table} SET {written} WHERE {entity.key}"
        case K.UPSERT:
            return f"INSERT INTO or UPDATE {table} ({written}) BY {entity.key}"
        case K.DELETE:
            return f"DELETE FROM {table} WHERE {entity.key}"
        case K.CHECK:
            return f"SELECT FROM {table} WHERE {entity.key} FOR SHARE"


def _document_shape(entity: Entity, operation: Operation) -> str:
    written = ", ".join(_written(entity, operation))
    match operation.kind:
        case K.INSERT:
            return f"insert into {entity.table} {{_id, {written}}}".replace(", }", "}")
        case K.UPDATE:
            return f"update {entity.table} by _id {{$set, $unset: {written}}}"
        case K.UPSERT:
            return f"insert into or update {entity.table} by _id {{{written}}}"
        case K.DELETE:
            return f"delete from {entity.table} by _id"
        case K.CHECK:
            return f"find in {entity.table} by _id"


def _written(entity: Entity, operation: Operation) -> list[str]:
    names = [*operation.set, *operation.unset, *(operation.increment or {})]
    if entity.version is not None:
        names.append(entity.version)
    return sorted(dict.fromkeys(names))


# --- what may be refused, and what undo does ----------------------------------------------------


def _expectations(operation: Operation) -> Iterator[str]:
    if operation.absent:
        yield "it does not exist"
    elif operation.kind is K.INSERT:
        yield "it does not exist yet"
    elif operation.kind is not K.UPSERT and not operation.ignore_missing:
        yield "it exists"
    for condition in operation.expect:
        yield f"{condition.field} {condition.comparison.value} what is given"


def _refusals(entity: Entity, operation: Operation) -> Iterator[dict[str, str]]:
    """Tell which codes the operation may be refused with, and when; the stores' rules come last."""
    match operation.kind:
        case K.INSERT:
            yield _refusal(ErrorCode.ALREADY_EXISTS, "the key is there")
        case K.CHECK if operation.absent:
            yield _refusal(ErrorCode.ALREADY_EXISTS, "the key is there")
        case K.UPDATE | K.DELETE | K.CHECK if not operation.ignore_missing:
            yield _refusal(ErrorCode.NOT_FOUND, "the key is not there")
    if operation.expect:
        yield _refusal(ErrorCode.EXPECTATION_FAILED, "an expectation does not hold")
    if operation.increment:
        yield _refusal(ErrorCode.TYPE_MISMATCH, "what is incremented is null or missing")
        yield _refusal(ErrorCode.OUT_OF_BOUNDS, "the sum is more or less than the field may hold")
    if operation.kind is K.UPSERT and (lacking := _lacking(entity, operation)):
        yield _refusal(
            ErrorCode.CONSTRAINT_VIOLATED,
            f"it must be created, and {', '.join(lacking)} is missing",
        )
    if operation.writes:
        yield _refusal(ErrorCode.CONSTRAINT_VIOLATED, "a rule of the store forbids it")


def _refusal(code: ErrorCode, when: str) -> dict[str, str]:
    return {"code": code.value, "when": when}


def _lacking(entity: Entity, operation: Operation) -> list[str]:
    given = {*operation.set, *(operation.defaults or {}), entity.key, entity.version}
    return [
        each.name for each in entity.fields.values() if not each.nullable and each.name not in given
    ]


_STRANGERS = {
    ForeignWritePolicy.PARK: "if a stranger has changed it since, the unit is parked",
    ForeignWritePolicy.FORCE: "also over what a stranger has written since",
    ForeignWritePolicy.SKIP: "if a stranger has changed it since, it is left as it is",
}


def _undo(entity: Entity, operation: Operation, pivot_store: str | None) -> str:
    """Tell how the operation is undone when another store refuses the unit."""
    if not operation.writes:
        return "nothing: a check writes nothing"
    if entity.store == pivot_store:
        return "nothing: it is written in the transaction that commits the unit"
    own = operation.compensate
    if own is not None:
        return f"the sender's own: {own.kind.value} of {own.entity} {own.key_text}"
    strangers = _STRANGERS[entity.on_foreign_write]
    return f"{_inverse(operation)}; {strangers}"


def _inverse(operation: Operation) -> str:
    match operation.kind:
        case K.INSERT:
            return "delete it"
        case K.DELETE:
            return "put it back, as it was to the last field"
        case K.UPSERT:
            return "delete it if it was created, else set back what it wrote"
    fields = sorted({*operation.set, *operation.unset})
    parts = [f"set {', '.join(fields)} back to what was there"] if fields else []
    if operation.increment:
        parts.append(f"take the increment of {', '.join(sorted(operation.increment))} back")
    return " and ".join(parts)
