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

from coordinator.domain.decide import Effect, Refused, decide_operation, key_as_json
from coordinator.domain.entity import ForeignWritePolicy
from coordinator.domain.errors import ErrorCode, Problem
from coordinator.domain.operation import Operation, OperationKind, Unit
from coordinator.domain.storable import Misfit
from coordinator.participants.mongodb.elements import (
    Elements,
    elements_from,
    elements_of,
    values_of,
)
from coordinator.participants.mongodb.going_back import (
    CannotTakeBack,
    DocumentKey,
    Standing,
    bump,
    can_take_back,
    document_key,
    without,
    writes_back,
)
from coordinator.participants.mongodb.images import shape_of
from coordinator.participants.mongodb.shared_undo import (
    SharedUndo,
    is_shared_foreign,
    taken_out,
)
from coordinator.participants.mongodb.shares import KeyShare
from coordinator.participants.mongodb.undo_record import KeyUndo, UndoStep
from coordinator.participants.mongodb.writes import DocumentWrite


def decide_undo(
    unit: Unit,
    keys: Sequence[KeyUndo],
    documents: Mapping[DocumentKey, bytes | None],
    shared: SharedUndo | None = None,
) -> tuple[DocumentWrite, ...] | Problem:
    """Decide the undo of one branch, last write first; a problem means: leave it as a whole.

    What is to be written to shared keys is put into ``shared`` instead of being returned.
    """
    writes: list[DocumentWrite] = []
    shared_writes: list[DocumentWrite] = []
    left: dict[str, KeyShare] = {}
    targets: dict[DocumentKey, Elements] = {}
    for key in reversed(keys):
        raw = documents[document_key(key)]
        standing = Standing(unit, key, raw, None if raw is None else elements_of(raw))
        share = None if shared is None else shared.of(unit, key)
        if shared is not None and share is not None:
            standing = shared.current(standing)
            left[share.id] = share.without(unit.seq)
        foreign = is_foreign(standing) if share is None else is_shared_foreign(standing, share)
        if foreign and key.policy is ForeignWritePolicy.PARK:
            return _foreign_write(unit, key)
        if foreign and key.policy is ForeignWritePolicy.SKIP:
            continue
        try:
            if share is not None:
                back, left[share.id] = taken_out(standing, share, forced=foreign)
                targets[document_key(key)] = back
                shared_writes += writes_back(standing, back)
                continue
            target = _restored(standing, forced=foreign)
        except Refused as refusal:
            return _undo_failed(unit, key, refusal.problem.message)
        except Misfit as misfit:
            return _undo_failed(unit, key, f"a value would no longer fit: it {misfit.sentence}.")
        writes += writes_back(standing, target)
    if shared is not None:
        shared.keep(left, targets)
        shared.in_order += shared_writes
    return tuple(writes)


# --- strangers (F28) ----------------------------------------------------------------------------


def is_foreign(standing: Standing) -> bool:
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
    return any(not can_take_back(of[0], current.get(name)) for name, of in step.deltas.items())


def _differs(names: Sequence[str], current: Elements, left: Elements) -> bool:
    return any(current.get(name) != left.get(name) for name in names)


# --- what comes back (F25, F27, F29) ------------------------------------------------------------


def _restored(standing: Standing, *, forced: bool) -> Elements | None:
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
        bump(standing, target, max(own_undos, 1))
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
            back[name] = without(of_type, amount, back.get(name), before[name])
        except CannotTakeBack:
            back[name] = before[name]  # only under force: else it was found foreign
    return back


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
