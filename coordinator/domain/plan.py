"""Planning: in which order a unit's operations act, where, and which keys they claim.

Owns the order of F13, the branches and the lock requests of F15. Refuses to look at any store: a
plan follows from the submission and the mapping alone, and is journaled with the unit.

The order has hard edges (operations on one key never swap) and soft ones (references). A soft
edge counts only between *different* entities: a table that refers to itself keeps the written
order, and so does whatever a cycle ties together. For inserts and upserts the row that is
referred to is known, so the edge is between rows. For deletes it is not (the reference is in the
store, not in the submission), so there it is between entities: the customers of a unit are
deleted after all of its orders. Among what is free to go, the operation that was written first
goes first, so an operation moves only back, and only as far as it must.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from typing import Any, Final

from coordinator.domain.entity import Entity, FieldType, Mapping, Reference
from coordinator.domain.operation import LockRequest, Operation, OperationKind, Plan
from coordinator.domain.operation_shape import CREATING
from coordinator.domain.value_reading import operand_reader
from coordinator.domain.values import Misfit, key_text, wire

RowKey = tuple[str, str]
"""(entity name, key text)."""

Edge = tuple[int, int]
"""(the position that goes before, the position that goes after)."""


def make_plan(mapping: Mapping, operations: Sequence[Operation]) -> Plan:
    """Plan the operations of one unit, given in their written order."""
    entities = mapping.entities
    refers = False
    for operation in operations:
        if entities[operation.entity].references:
            refers = True
    ordered = tuple(_in_order(mapping, operations)) if refers else tuple(operations)
    return Plan(ordered, branches_of(mapping, ordered), locks_of(mapping, ordered))


def branches_of(mapping: Mapping, operations: Sequence[Operation]) -> dict[str, tuple[int, ...]]:
    """Give the positions of the operations that act at each store."""
    positions: dict[str, list[int]] = {}
    for position, operation in enumerate(operations):
        store = mapping.entities[operation.entity].store
        if store in positions:
            positions[store].append(position)
        else:
            positions[store] = [position]
    return {store: tuple(each) for store, each in positions.items()}


def reference_text(mapping: Mapping, entity: Entity, reference: Reference, value: Any) -> str:
    """Give the key text of the row that a reference's value points at.

    The value is read again as a key of the entity that is referred to, so that a decimal that
    refers to an integer key claims the same lock.
    """
    own_type = entity.fields[reference.field].type
    target = mapping.entities.get(reference.entity)
    if target is None or target.key_field.type is own_type:
        return key_text(own_type, value)
    try:
        return key_text(target.key_field.type, _as_key(own_type, target.key_field.type, value))
    except Misfit:
        return key_text(own_type, value)


_WHOLE_DIGITS_MAX: Final = 1_000


def _as_key(own_type: FieldType, target_type: FieldType, value: Any) -> Any:
    if own_type is FieldType.DECIMAL and target_type is FieldType.INTEGER:
        if value.adjusted() < _WHOLE_DIGITS_MAX and value == value.to_integral_value():
            return int(value)
        raise Misfit("is no whole number")
    return operand_reader(target_type)(wire(own_type, value))


# --- locks --------------------------------------------------------------------------------------


def locks_of(mapping: Mapping, operations: Sequence[Operation]) -> tuple[LockRequest, ...]:
    """Give the keys that a unit claims, and how; `increment` where it only counts them."""
    claims: dict[RowKey, int] = {}
    for operation in operations:
        at = (operation.entity, operation.key_text)
        entity = mapping.entities[operation.entity]
        known = claims.get(at)
        if known is None:
            claims[at] = _claim(entity, operation)
        elif known is not _EXCLUSIVE and _claim(entity, operation) != known:
            claims[at] = _EXCLUSIVE
        if entity.references:
            for row in _referred_rows(mapping, entity, operation):
                if claims.setdefault(row, _SHARED) is _INCREMENT:
                    claims[row] = _EXCLUSIVE
    return tuple(
        [
            LockRequest(name, text, claim is not _SHARED, claim is _INCREMENT)
            for (name, text), claim in claims.items()
        ]
    )


_SHARED, _EXCLUSIVE, _INCREMENT = range(3)


def _claim(entity: Entity, operation: Operation) -> int:
    if operation.kind is OperationKind.CHECK:
        return _SHARED
    increment = operation.increment
    if (
        not increment
        or operation.set
        or operation.unset
        or operation.expect
        or operation.ignore_missing
        or operation.compensate is not None
    ):
        return _EXCLUSIVE
    fields = entity.fields
    for name in increment:
        # Sums of floats depend on their order, and are not taken back exactly.
        of_type = fields[name].type
        if of_type is not FieldType.DECIMAL and of_type is not FieldType.INTEGER:
            return _EXCLUSIVE
    return _INCREMENT


def _referred_rows(mapping: Mapping, entity: Entity, operation: Operation) -> Iterator[RowKey]:
    """Give the rows that the operation may come to refer to, its compensation included (F15)."""
    for reference in entity.references:
        for values in _assignments(operation):
            value = values.get(reference.field)
            if value is not None:
                yield reference.entity, reference_text(mapping, entity, reference, value)
    if operation.compensate is not None:
        yield from _referred_rows(mapping, entity, operation.compensate)


def _assignments(operation: Operation) -> Iterator[Any]:
    if operation.set:
        yield operation.set
    if operation.defaults:
        yield operation.defaults


# --- order --------------------------------------------------------------------------------------


def _in_order(mapping: Mapping, operations: Sequence[Operation]) -> Sequence[Operation]:
    soft = [*_creation_edges(mapping, operations), *_deletion_edges(mapping, operations)]
    if all(before < after for before, after in soft):
        return operations
    hard = list(_key_edges(operations))
    return [operations[at] for at in _sorted(len(operations), hard, _acyclic(hard, soft))]


def _key_edges(operations: Sequence[Operation]) -> Iterator[Edge]:
    last: dict[RowKey, int] = {}
    for position, operation in enumerate(operations):
        at = (operation.entity, operation.key_text)
        if at in last:
            yield last[at], position
        last[at] = position


def _creation_edges(mapping: Mapping, operations: Sequence[Operation]) -> Iterator[Edge]:
    """An insert or upsert goes after the insert or upsert of the row that it refers to."""
    creations: dict[RowKey, list[int]] = {}
    for position, operation in enumerate(operations):
        if operation.kind in CREATING:
            creations.setdefault((operation.entity, operation.key_text), []).append(position)
    for position, operation in enumerate(operations):
        if operation.kind not in CREATING:
            continue
        entity = mapping.entities[operation.entity]
        for reference in entity.references:
            if reference.entity == entity.name:
                continue
            for values in _assignments(operation):
                value = values.get(reference.field)
                if value is None:
                    continue
                row = (reference.entity, reference_text(mapping, entity, reference, value))
                if row in creations:
                    yield _nearest(creations[row], position), position


def _nearest(positions: list[int], position: int) -> int:
    """Give the last of the positions before this one, else the first after it."""
    before = [each for each in positions if each < position]
    return before[-1] if before else positions[0]


def _deletion_edges(mapping: Mapping, operations: Sequence[Operation]) -> Iterator[Edge]:
    """A delete goes after the deletes of the entities that refer to its own."""
    deletions: dict[str, list[int]] = {}
    for position, operation in enumerate(operations):
        if operation.kind is OperationKind.DELETE:
            deletions.setdefault(operation.entity, []).append(position)
    for name, referring in deletions.items():
        targets = {reference.entity for reference in mapping.entities[name].references}
        for target in targets - {name}:
            for after in deletions.get(target, ()):
                for before in referring:
                    yield before, after


def _acyclic(hard: Sequence[Edge], soft: Sequence[Edge]) -> list[Edge]:
    """Leave out the soft edges that are part of a cycle; ``hard`` ones alone never make one."""
    reach: dict[int, int] = {}
    for before, after in (*hard, *soft):
        reach[before] = reach.get(before, 0) | 1 << after
    for middle in list(reach):
        beyond = reach[middle]
        for start, reached in reach.items():
            if reached >> middle & 1:
                reach[start] = reached | beyond
    return [edge for edge in soft if not reach.get(edge[1], 0) >> edge[0] & 1]


def _sorted(count: int, hard: Sequence[Edge], soft: Sequence[Edge]) -> list[int]:
    followers: list[list[int]] = [[] for _ in range(count)]
    waits = [0] * count
    for before, after in {*hard, *soft}:
        followers[before].append(after)
        waits[after] += 1
    free = [position for position in range(count) if not waits[position]]
    heapify(free)
    order: list[int] = []
    while free:
        position = heappop(free)
        order.append(position)
        for follower in followers[position]:
            waits[follower] -= 1
            if not waits[follower]:
                heappush(free, follower)
    return order
