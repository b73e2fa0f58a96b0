"""Deciding what undo does to each document of a branch, and whether a stranger is in the way.

Pure, over documents as elements (see `elements`); called on the documents as they are inside the
transaction that undoes. Per key:

======================= ============================== ===========================================
what we did             a stranger's write (F28)       what comes back
======================= ============================== ===========================================
update                  a field that we set or unset   the very document if it is as we left it;
                        holds something else; the      else the fields that we wrote, the version,
                        version is not the one that    and increments by the inverse delta; what
                        we left; the document is gone  the stranger changed beside them stays
insert                  it differs anywhere            no document
delete                  there is one again             the very document
own undo (F25)          a field that it would set      what it says, decided on the current
                        holds something else           document, version plus one
======================= ============================== ===========================================

With a stranger in the way the entity's policy rules (F29): ``park`` leaves the whole branch,
``skip`` leaves that document, ``force`` goes on: before-values win, increments by delta, version
plus one. Increments are never compared; one that cannot be taken back, because the field holds no
number of its type any more, counts as a stranger's write. "Something else" is judged by type and
value, byte for byte; the order of top-level fields does not count. I6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, TypeAlias

from bson.int64 import Int64

from coordinator.domain.decide import (
    Effect,
    Refused,
    decide_operation,
    exact_sum,
    key_as_json,
)
from coordinator.domain.entity import FieldType, ForeignWritePolicy
from coordinator.domain.errors import ErrorCode, Problem
from coordinator.domain.operation import Operation, OperationKind, Unit
from coordinator.domain.storable import INT64_MAX, INT64_MIN, Misfit, fit_decimal128
from coordinator.domain.values import Alien
from coordinator.participants.mongodb.bson_values import READERS, WRITERS, match_key
from coordinator.participants.mongodb.elements import (
    Elements,
    document_of,
    elements_from,
    elements_of,
    values_of,
)
from coordinator.participants.mongodb.images import KEY_FIELD, shape_of
from coordinator.participants.mongodb.undo_record import KeyUndo, UndoStep
from coordinator.participants.mongodb.writes import (
    DocumentWrite,
    WriteKind,
    deletion_body,
    document_body,
    replacement_body,
)

DocumentKey: TypeAlias = tuple[str, Any]
"""Whose document: the collection, and `match_key` of its ``_id``."""

_INT32_MIN: Final = -(2**31)
_INT32_MAX: Final = 2**31 - 1
_SAFE_DOUBLE_MAX: Final = 2**53


@dataclass(frozen=True, slots=True)
class _Standing:
    """One key's undo record beside its document as it is."""

    unit: Unit
    key: KeyUndo
    raw: bytes | None
    elements: Elements | None


class _CannotTakeBack(Exception):
    """An increment cannot be undone by its inverse."""


def document_key(key: KeyUndo) -> DocumentKey:
    """Give where a key's document is found."""
    return key.collection, match_key(key.key)


def decide_undo(
    unit: Unit, keys: Sequence[KeyUndo], documents: Mapping[DocumentKey, bytes | None]
) -> tuple[DocumentWrite, ...] | Problem:
    """Decide the undo of one branch, last write first; a problem means: leave it as a whole."""
    writes: list[DocumentWrite] = []
    for key in reversed(keys):
        raw = documents[document_key(key)]
        standing = _Standing(unit, key, raw, None if raw is None else elements_of(raw))
        foreign = is_foreign(standing)
        if foreign and key.policy is ForeignWritePolicy.PARK:
            return _foreign_write(unit, key)
        if foreign and key.policy is ForeignWritePolicy.SKIP:
            continue
        try:
            target = _restored(standing, forced=foreign)
        except Refused as refusal:
            return _undo_failed(unit, key, refusal.problem.message)
        except Misfit as misfit:
            return _undo_failed(unit, key, f"a value would no longer fit: it {misfit.sentence}.")
        writes += _writes(standing, target)
    return tuple(writes)


# --- strangers (F28) ----------------------------------------------------------------------------


def is_foreign(standing: _Standing) -> bool:
    """Whether somebody else's write would be lost by this undo."""
    key, current = standing.key, standing.elements
    left = key.steps[-1].after
    if left is None:
        return current is not None
    if current is None:
        return not _made_it(key)
    if current == left:
        return False
    return any(_is_step_foreign(standing.unit, key, step, current, left) for step in key.steps)


def _made_it(key: KeyUndo) -> bool:
    """Whether undo ends without a document: our insert, whatever came after it."""
    return key.steps[0].before is None and not key.steps[0].compensated


def _is_step_foreign(
    unit: Unit, key: KeyUndo, step: UndoStep, current: Elements, left: Elements
) -> bool:
    if step.compensated:
        operation = _compensation(unit, step)
        if operation.kind is OperationKind.DELETE:
            return True
        return _differs((*operation.set, *operation.unset), current, left)
    if step.whole:
        return True
    if key.version is not None and _differs((key.version,), current, left):
        return True
    if _differs(step.written, current, left):
        return True
    return any(not _can_take_back(of[0], current.get(name)) for name, of in step.deltas.items())


def _differs(names: Sequence[str], current: Elements, left: Elements) -> bool:
    return any(current.get(name) != left.get(name) for name in names)


# --- what comes back (F25, F27, F29) ------------------------------------------------------------


def _restored(standing: _Standing, *, forced: bool) -> Elements | None:
    key, current = standing.key, standing.elements
    if _made_it(key):
        return None
    if len(key.steps) == 1 and not key.steps[0].compensated and current == key.steps[0].after:
        return key.steps[0].before
    target = None if current is None else dict(current)
    own_undos = 0
    for step in reversed(key.steps):
        if step.compensated:
            target = _compensated(standing.unit, step, target)
            own_undos += 1
        else:
            target = _step_back(key, step, target)
    made_anew = current is None and own_undos
    if target is not None and (forced or own_undos) and not made_anew:
        _bump(standing, target, max(own_undos, 1))
    return target


def _step_back(key: KeyUndo, step: UndoStep, target: Elements | None) -> Elements | None:
    before = step.before
    if before is None or target is None or step.whole:
        return None if before is None else dict(before)
    back = dict(target)
    for name in (*step.written, *([] if key.version is None else [key.version])):
        if name in before:
            back[name] = before[name]
        else:
            back.pop(name, None)
    for name, (of_type, amount) in step.deltas.items():
        try:
            back[name] = _without(of_type, amount, back.get(name), before[name])
        except _CannotTakeBack:
            back[name] = before[name]  # only under force: else it was found foreign
    return back


def _can_take_back(of_type: FieldType, element: bytes | None) -> bool:
    return element is not None and not isinstance(_read(of_type, element), Alien | None)


def _read(of_type: FieldType, element: bytes) -> Any:
    stored = values_of({"v": element})["v"]
    return None if stored is None else READERS[of_type](stored)


def _without(of_type: FieldType, amount: str, element: bytes | None, before: bytes) -> bytes:
    if element is None or not _can_take_back(of_type, element):
        raise _CannotTakeBack
    value = _read(of_type, element)
    if of_type is FieldType.DECIMAL:
        result = fit_decimal128(exact_sum(value, -Decimal(amount)))
        return _element(WRITERS[of_type](result))
    if of_type is FieldType.FLOAT:
        return _element(value - float(amount))
    return _integer_element(value - int(amount), values_of({"v": before})["v"])


def _integer_element(value: int, like: Any) -> bytes:
    """Store an integer in the type that it had before, where it fits (F27)."""
    if not INT64_MIN <= value <= INT64_MAX:
        raise Misfit("is no int64")
    if isinstance(like, float) and abs(value) <= _SAFE_DOUBLE_MAX:
        return _element(float(value))
    if type(like) is int and _INT32_MIN <= value <= _INT32_MAX:
        return _element(value)
    return _element(Int64(value))


def _element(stored: Any) -> bytes:
    return elements_from({"v": stored})["v"]


def _bump(standing: _Standing, target: Elements, count: int) -> None:
    """Count the version on: from the document that is there, else from the one that we left."""
    version = standing.key.version
    base = standing.elements or standing.key.steps[-1].after or standing.key.steps[0].before
    if version is None or base is None or version not in base:
        return
    value = _read(FieldType.INTEGER, base[version])
    if isinstance(value, int):
        target[version] = _integer_element(value + count, values_of({"v": base[version]})["v"])


def _compensation(unit: Unit, step: UndoStep) -> Operation:
    operation = unit.plan.operations[step.position].compensate
    assert operation is not None
    return operation


def _compensated(unit: Unit, step: UndoStep, target: Elements | None) -> Elements | None:
    """Let the sender's own undo act on the document, as any operation would; raise `Refused`."""
    operation = _compensation(unit, step)
    shape = shape_of(unit.mapping.entities[operation.entity])
    image = None if target is None else shape.image(values_of(target))
    write = decide_operation(unit.mapping, step.position, operation, image)
    if write.effect is Effect.DELETED:
        return None
    if write.effect is Effect.CREATED or target is None:
        return elements_from(shape.document(operation.key, write.assigned))
    changed = {**target, **elements_from(shape.assigned(write.assigned))}
    for name in write.unset:
        changed.pop(name, None)
    return changed


# --- writes -------------------------------------------------------------------------------------


def _writes(standing: _Standing, target: Elements | None) -> list[DocumentWrite]:
    unit, key, raw, current = standing.unit, standing.key, standing.raw, standing.elements
    position = key.steps[-1].position

    def write(kind: WriteKind, body: Mapping[str, Any], size_bytes: int) -> DocumentWrite:
        return DocumentWrite(unit.seq, position, key.collection, kind, body, size_bytes)

    deletion = write(WriteKind.DELETE, deletion_body(key.key), 1024)
    if target is None:
        return [] if raw is None else [deletion]
    document = _document(key, target)
    if raw == document:
        return []
    insertion = write(WriteKind.INSERT, document_body(document), len(document))
    if current is None:
        return [insertion]
    if target.get(KEY_FIELD) != current[KEY_FIELD] or any(name[:1] == "$" for name in target):
        # A replacement may neither change the type of _id nor hold such a name.
        return [deletion, insertion]
    return [write(WriteKind.UPDATE, replacement_body(key.key, document), len(document))]


def _document(key: KeyUndo, target: Elements) -> bytes:
    before = key.steps[0]
    if target is before.before and before.before_raw is not None:
        return before.before_raw
    return document_of(target)


# --- problems -----------------------------------------------------------------------------------


def _foreign_write(unit: Unit, key: KeyUndo) -> Problem:
    return operation_problem(
        unit,
        key.steps[-1].position,
        ErrorCode.FOREIGN_WRITE,
        f"{key.entity} {key.shown} was changed by somebody else after the unit wrote it; "
        "undoing would overwrite that.",
    )


def _undo_failed(unit: Unit, key: KeyUndo, cause: str) -> Problem:
    return operation_problem(
        unit,
        key.steps[-1].position,
        ErrorCode.UNDO_FAILED,
        f"The undo of {key.entity} {key.shown} could not be done: {cause}",
    )


def operation_problem(unit: Unit, position: int, code: ErrorCode, message: str) -> Problem:
    """Make a problem about one operation of a unit."""
    operation = unit.plan.operations[position]
    return Problem(
        code=code,
        message=message,
        path=f"operations.{operation.index}",
        operation=operation.index,
        entity=operation.entity,
        key=key_as_json(operation),
    )
