"""Units for tests, built straight from domain values: no parser, no validation, no planner.

`mapping` makes a mapping of entities; `unit` makes a unit of operations, executed in their given
order; `insert`, `update`, `upsert`, `delete` and `check` make those. Values are domain values.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from coordinator.domain.entity import (
    Column,
    Entity,
    Field,
    FieldType,
    ForeignWritePolicy,
    StoreKind,
)
from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.domain.operation import (
    Comparison,
    Condition,
    Operation,
    OperationKind,
    Origin,
    Plan,
    Unit,
)
from coordinator.domain.plan import locks_of
from coordinator.domain.values import key_text

RECEIVED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

_seqs = itertools.count(1)


def entity(
    name: str,
    fields: Mapping[str, FieldType | Field],
    *,
    store: str = "ledger",
    kind: StoreKind = StoreKind.POSTGRESQL,
    schema: str | None = "public",
    table: str | None = None,
    key: str = "id",
    version: str | None = "version",
    columns: Sequence[Column] = (),
    on_foreign_write: ForeignWritePolicy = ForeignWritePolicy.PARK,
) -> Entity:
    """Make an entity; a field given by its type alone is nullable, unless it is the key."""
    return Entity(
        name=name,
        store=store,
        kind=kind,
        schema=schema if kind is StoreKind.POSTGRESQL else None,
        table=table or name,
        key=key,
        fields={
            field: of if isinstance(of, Field) else Field(field, of, nullable=field != key)
            for field, of in fields.items()
        },
        version=version,
        on_foreign_write=on_foreign_write,
        columns=tuple(columns),
    )


def mapping(*entities: Entity) -> EntityMapping:
    """Make a mapping; equal entities have the same fingerprint."""
    return EntityMapping(
        entities={each.name: each for each in entities},
        fingerprint=hashlib.sha256(repr(entities).encode()).hexdigest(),
        stores=tuple(dict.fromkeys(each.store for each in entities)),
    )


def operation(kind: OperationKind, entity: str, key: Any, **parts: Any) -> Operation:
    """Make an operation; `unit` fills in its index and the text of its key."""
    return Operation(0, kind, entity, key, "", **{"set": {}, **parts})


def insert(entity: str, key: Any, **values: Any) -> Operation:
    """Make an insert."""
    return operation(OperationKind.INSERT, entity, key, set=values)


def update(
    entity: str,
    key: Any,
    *,
    unset: Sequence[str] = (),
    increment: Mapping[str, Any] | None = None,
    expect: Sequence[Condition] = (),
    ignore_missing: bool = False,
    **values: Any,
) -> Operation:
    """Make an update that sets ``values``."""
    return operation(
        OperationKind.UPDATE,
        entity,
        key,
        set=values,
        unset=tuple(unset),
        increment=increment,
        expect=tuple(expect),
        ignore_missing=ignore_missing,
    )


def upsert(
    entity: str, key: Any, *, defaults: Mapping[str, Any] | None = None, **values: Any
) -> Operation:
    """Make an upsert."""
    return operation(OperationKind.UPSERT, entity, key, set=values, defaults=defaults)


def delete(
    entity: str, key: Any, *, expect: Sequence[Condition] = (), ignore_missing: bool = False
) -> Operation:
    """Make a delete."""
    return operation(
        OperationKind.DELETE, entity, key, expect=tuple(expect), ignore_missing=ignore_missing
    )


def check(entity: str, key: Any, *expect: Condition, absent: bool = False) -> Operation:
    """Make a check."""
    return operation(OperationKind.CHECK, entity, key, expect=expect, absent=absent)


def equals(field: str, operand: Any) -> Condition:
    """Expect that the field holds the operand."""
    return Condition(field, Comparison.EQ, operand)


def undone_by(operation: Operation, compensation: Operation) -> Operation:
    """Give the operation with the sender's own undo (F25)."""
    return replace(operation, compensate=compensation)


def unit(
    mapping: EntityMapping, *operations: Operation, seq: int | None = None, id: str | None = None
) -> Unit:
    """Make a unit of the operations in their given order, with a fresh seq and id."""
    number = next(_seqs) if seq is None else seq
    planned = tuple(_placed(mapping, at, each) for at, each in enumerate(operations))
    branches: dict[str, tuple[int, ...]] = {}
    for at, each in enumerate(planned):
        store = mapping.entities[each.entity].store
        branches[store] = (*branches.get(store, ()), at)
    unit_id = id or f"unit-{number}"
    return Unit(
        seq=number,
        id=unit_id,
        digest=hashlib.sha256(repr((unit_id, planned)).encode()).hexdigest(),
        plan=Plan(operations=planned, branches=branches, locks=locks_of(mapping, planned)),
        mapping=mapping,
        received_at=RECEIVED_AT,
        deadline_at=RECEIVED_AT + timedelta(seconds=30),
        metadata=None,
        reply_to=None,
        traceparent=None,
        origin=Origin("coordinator.units", 0, number),
    )


def _placed(mapping: EntityMapping, index: int, given: Operation) -> Operation:
    of_type = mapping.entities[given.entity].key_field.type
    compensate = given.compensate
    return replace(
        given,
        index=index,
        key_text=key_text(of_type, given.key),
        compensate=None if compensate is None else _placed(mapping, index, compensate),
    )
