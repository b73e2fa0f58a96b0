"""Deciding: what an operation does to the image of its key, or why it is refused.

Plain functions over frozen values. A participant calls them twice: once on images that were
read without locks, so that most refusals cost no write anywhere, and again under the lock,
where the answer counts. Images hold every declared field and the version, as domain values;
``None`` is null and missing alike (F22), and a whole image that is ``None`` means no such row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from enum import StrEnum
from typing import Any, NamedTuple

from coordinator.domain.entity import Entity, Field, FieldType
from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.domain.errors import ErrorCode, Problem, clipped, together
from coordinator.domain.operation import Condition, Operation, OperationKind, Unit
from coordinator.domain.values import Alien, Misfit, check_storable, compare, wire

Image = Mapping[str, Any]
"""Field name → domain value, for every declared field and the version."""

ImageKey = tuple[str, str]
"""(entity name, key text)."""


_EXACT = Context(prec=150_000, Emax=MAX_EMAX, Emin=MIN_EMIN)
"""More digits than any stored decimal has (numeric: 147,455); a sum never rounds."""


class Effect(StrEnum):
    """What happened to a row or document; the letters are Debezium's (F34)."""

    __hash__ = str.__hash__  # Enum hashes in Python, and these are looked up for every event

    CREATED = "c"
    UPDATED = "u"
    DELETED = "d"
    NOTHING = "-"


class Write(NamedTuple):
    """What one operation does to its key.

    ``assigned`` holds the fields to set (the version included; for a creation all that the row
    shall hold but the key), ``unset`` those to clear, ``deltas`` the increments among the
    assigned, for undo by the inverse. ``after`` is as predicted; a store may know better
    (column defaults, triggers).
    """

    position: int
    operation: Operation
    effect: Effect
    before: Image | None
    after: Image | None
    assigned: Mapping[str, Any]
    unset: tuple[str, ...] = ()
    deltas: Mapping[str, Any] | None = None


class Refused(Exception):
    """Inside this module's callers: the unit is refused for ``problem``."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def decide_branch(
    unit: Unit, store: str, images: Mapping[ImageKey, Image | None]
) -> tuple[Write, ...] | Problem:
    """Decide all of a unit's operations at one store, each seeing the former's result (F14).

    ``images`` must hold every key of the branch. All refusals are told together; what follows a
    refused operation on the same key is not judged.
    """
    seen: dict[ImageKey, Image | None] = {}
    writes: list[Write] = []
    problems: list[Problem] = []
    refused_keys: set[ImageKey] = set()
    for position, operation in unit.branch(store):
        at = (operation.entity, operation.key_text)
        if problems and at in refused_keys:
            continue
        image = seen[at] if at in seen else images[at]
        try:
            write = decide_operation(unit.mapping, position, operation, image)
        except Refused as refusal:
            problems.append(refusal.problem)
            refused_keys.add(at)
            continue
        seen[at] = write.after
        writes.append(write)
    return together(problems) if problems else tuple(writes)


def decide_operation(
    mapping: EntityMapping, position: int, operation: Operation, image: Image | None
) -> Write:
    """Decide one operation on the current image of its key; raise `Refused` when it may not act."""
    entity = mapping.entities[operation.entity]
    match operation.kind:
        case OperationKind.INSERT:
            if image is not None:
                raise refused(operation, ErrorCode.ALREADY_EXISTS, "it exists already")
            return _create(entity, position, operation, operation.set)
        case OperationKind.UPSERT:
            return _upsert(entity, position, operation, image)
        case OperationKind.UPDATE:
            return _update(entity, position, operation, image)
        case OperationKind.DELETE:
            return _delete(entity, position, operation, image)
        case OperationKind.CHECK:
            return _check(entity, position, operation, image)


def refused(
    operation: Operation, code: ErrorCode, what: str, *, path: str = "key", entity: str = ""
) -> Refused:
    """Make the refusal of ``operation`` in a sentence that names its key."""
    name = entity or operation.entity
    return Refused(
        Problem(
            code=code,
            message=f"{operation.kind.value} of {name} {clipped(operation.key_text)}: {what}.",
            path=f"operations.{operation.index}.{path}",
            operation=operation.index,
            entity=name,
            key=key_as_json(operation),
        )
    )


def key_as_json(operation: Operation) -> Any:
    """Give the operation's key as a problem shows it: a long one is cut (I12)."""
    key = operation.key
    if isinstance(key, str):
        return clipped(key)
    if isinstance(key, int) and abs(key) < 2**53:
        return key
    return clipped(operation.key_text.strip('"'))


def _create(
    entity: Entity, position: int, operation: Operation, values: Mapping[str, Any]
) -> Write:
    assigned = dict(values)
    if entity.version is not None:
        assigned[entity.version] = 1
    after = {name: assigned.get(name) for name in _imaged(entity)}
    after[entity.key] = operation.key
    return Write(position, operation, Effect.CREATED, None, after, assigned)


def _upsert(entity: Entity, position: int, operation: Operation, image: Image | None) -> Write:
    if image is not None:
        return _assign(entity, position, operation, image, dict(operation.set), (), {})
    values = {**(operation.defaults or {}), **operation.set}
    for field in entity.fields.values():
        if field.nullable or field.name in values or field.name in (entity.key, entity.version):
            continue
        raise refused(
            operation,
            ErrorCode.CONSTRAINT_VIOLATED,
            f"it does not exist yet, and the required field {field.name} is not given",
            path="values",
        )
    return _create(entity, position, operation, values)


def _update(entity: Entity, position: int, operation: Operation, image: Image | None) -> Write:
    if image is None:
        return _missing(position, operation)
    _expect(entity, operation, image)
    assigned = dict(operation.set)
    deltas = dict(operation.increment or {})
    for name, delta in deltas.items():
        assigned[name] = _incremented(entity.fields[name], operation, image.get(name), delta)
    return _assign(entity, position, operation, image, assigned, operation.unset, deltas)


def _assign(
    entity: Entity,
    position: int,
    operation: Operation,
    image: Image,
    assigned: dict[str, Any],
    unset: tuple[str, ...],
    deltas: dict[str, Any],
) -> Write:
    if entity.version is not None:
        assigned[entity.version] = _version(operation, image.get(entity.version)) + 1
    after = {**image, **assigned, **dict.fromkeys(unset)}
    return Write(position, operation, Effect.UPDATED, image, after, assigned, unset, deltas or None)


def _delete(entity: Entity, position: int, operation: Operation, image: Image | None) -> Write:
    if image is None:
        return _missing(position, operation)
    _expect(entity, operation, image)
    return Write(position, operation, Effect.DELETED, image, None, {})


def _check(entity: Entity, position: int, operation: Operation, image: Image | None) -> Write:
    if operation.absent:
        if image is not None:
            raise refused(operation, ErrorCode.ALREADY_EXISTS, "it should be absent and is there")
    elif image is None:
        raise refused(operation, ErrorCode.NOT_FOUND, "there is no such row")
    else:
        _expect(entity, operation, image)
    return Write(position, operation, Effect.NOTHING, image, image, {})


def _missing(position: int, operation: Operation) -> Write:
    if not operation.ignore_missing:
        raise refused(operation, ErrorCode.NOT_FOUND, "there is no such row")
    return Write(position, operation, Effect.NOTHING, None, None, {})


def _expect(entity: Entity, operation: Operation, image: Image) -> None:
    problems = []
    for condition in operation.expect:
        try:
            _judge(entity, operation, condition, image)
        except Refused as refusal:
            problems.append(refusal.problem)
    if problems:
        raise Refused(together(problems))


def _judge(entity: Entity, operation: Operation, condition: Condition, image: Image) -> None:
    name = condition.field
    stored = image.get(name)
    path = f"expect.{name}"
    field = entity.fields.get(name)
    field_type = field.type if field is not None else FieldType.INTEGER
    if isinstance(stored, Alien):
        raise refused(
            operation,
            ErrorCode.TYPE_MISMATCH,
            f"the stored {name} is not of the declared type {field_type.value}",
            path=path,
        )
    if not compare(condition.comparison, field_type, stored, condition.operand):
        raise refused(
            operation,
            ErrorCode.EXPECTATION_FAILED,
            f"{name} does not satisfy {condition.comparison.value} as expected",
            path=path,
        )


def _incremented(field: Field, operation: Operation, stored: Any, delta: Any) -> Any:
    path = f"increment.{field.name}"
    if stored is None or isinstance(stored, Alien):
        held = "null or missing" if stored is None else f"not {field.type.value}"
        raise refused(
            operation,
            ErrorCode.TYPE_MISMATCH,
            f"{field.name} cannot be incremented, the stored value is {held}",
            path=path,
        )
    result = exact_sum(stored, delta)
    if (field.min is not None and result < field.min) or (
        field.max is not None and result > field.max
    ):
        raise refused(
            operation,
            ErrorCode.OUT_OF_BOUNDS,
            f"{field.name} would pass its bound",
            path=path,
        )
    try:
        check_storable(field, result)
    except Misfit as misfit:
        raise refused(
            operation,
            ErrorCode.OUT_OF_BOUNDS,
            f"{field.name} would no longer fit: {misfit.sentence}",
            path=path,
        ) from misfit
    return result


def exact_sum(stored: Any, delta: Any) -> Any:
    """Add without the rounding of Decimal's default context."""
    if isinstance(stored, Decimal) or isinstance(delta, Decimal):
        return _EXACT.add(Decimal(stored), Decimal(delta))
    return stored + delta


def _version(operation: Operation, stored: Any) -> int:
    if stored is None:
        return 0
    if isinstance(stored, int) and not isinstance(stored, bool):
        return stored
    raise refused(operation, ErrorCode.TYPE_MISMATCH, "the stored version is no integer")


def _imaged(entity: Entity) -> Sequence[str]:
    names = list(entity.fields)
    if entity.version is not None and entity.version not in entity.fields:
        names.append(entity.version)
    return names


def show_image(entity: Entity, image: Image | None) -> dict[str, Any] | None:
    """Give an image as change events show it: all declared fields and the version, JSON-ready."""
    if image is None:
        return None
    shown = {}
    for name in _imaged(entity):
        field = entity.fields.get(name)
        shown[name] = wire(field.type if field is not None else FieldType.INTEGER, image.get(name))
    return shown
