"""Deciding what undo does to each row of an applied branch, and whether a stranger is in the way.

Pure; called on the current rows, under their locks. Per key:

======================= ============================== ===========================================
what we did             a stranger's write (F28)       what comes back
======================= ============================== ===========================================
update                  a field that we set or unset   the very row if it is as we left it; else
                        holds something else; the      the fields that we wrote, the version, and
                        version is not the one that    increments by the inverse delta; what the
                        we left; the row is gone       stranger changed beside them stays
insert                  the row differs anywhere       no row
delete                  there is a row again           the very row
own undo (F25)          a field that it would set      what it says, decided on the current row,
                        holds something else           version plus one
======================= ============================== ===========================================

With a stranger in the way the entity's policy rules (F29): ``park`` leaves the whole branch,
``skip`` leaves that row, ``force`` goes on: before-values win, increments by delta, version plus
one. Increments are never compared. I6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from coordinator.domain.decide import Effect, Refused, decide_operation, exact_sum
from coordinator.domain.entity import ForeignWritePolicy
from coordinator.domain.errors import ErrorCode, Problem
from coordinator.domain.operation import Operation, OperationKind, Unit
from coordinator.domain.values import Alien
from coordinator.participants.postgresql.mapped_table import mapped_table
from coordinator.participants.postgresql.statements import Statements
from coordinator.participants.postgresql.text_values import reader, writer
from coordinator.participants.postgresql.undo_record import Delta, KeyUndo, Row, UndoStep

RowKey: TypeAlias = tuple[Statements, str]
"""Whose row: a table's statements, and the text of the key."""

Target: TypeAlias = dict[str, str | None] | None
"""The row as it shall be: column → text; columns that are left out are not touched."""


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row to insert, update or delete; ``values`` stand in the order of ``columns``."""

    statements: Statements
    effect: Effect
    key: str
    columns: tuple[str, ...] = ()
    values: tuple[str | None, ...] = ()


def decide_undo(
    unit: Unit, keys: Sequence[KeyUndo], rows: Mapping[RowKey, Row | None]
) -> tuple[RowChange, ...] | Problem:
    """Decide the undo of one branch, last write first; a problem means: leave it as a whole."""
    changes: list[RowChange] = []
    for key in reversed(keys):
        row = rows[key.table.statements, key.key]
        foreign = is_foreign(unit, key, row)
        if foreign and key.table.policy is ForeignWritePolicy.PARK:
            return _foreign_write(unit, key)
        if foreign and key.table.policy is ForeignWritePolicy.SKIP:
            continue
        try:
            target = _restored(unit, key, row, forced=foreign)
        except Refused as refusal:
            return _undo_failed(unit, key, refusal.problem)
        changes += _changes(key, row, target)
    return tuple(changes)


# --- strangers (F28) ----------------------------------------------------------------------------


def is_foreign(unit: Unit, key: KeyUndo, row: Row | None) -> bool:
    """Whether somebody else's write would be lost by this undo."""
    left = key.steps[-1].after
    if left is None:
        return row is not None
    if row is None:
        return not _made_it(key)
    if _same(key, row, left):
        return False
    return any(_is_step_foreign(unit, key, step, row, left) for step in key.steps)


def _made_it(key: KeyUndo) -> bool:
    """Whether undo ends without a row: our insert, whatever came after it."""
    return key.steps[0].before is None and not key.steps[0].compensated


def _is_step_foreign(unit: Unit, key: KeyUndo, step: UndoStep, row: Row, left: Row) -> bool:
    if step.compensated:
        operation = _compensation(unit, step)
        if operation.kind is OperationKind.DELETE:
            return True
        return _differs(key, (*operation.set, *operation.unset), row, left)
    if step.before is None:
        return True
    version = key.table.version
    if version is not None and _differs(key, (version,), row, left):
        return True
    return _differs(key, step.written, row, left)


def _same(key: KeyUndo, row: Row, other: Row) -> bool:
    return row == other or not _differs(key, key.table.statements.restorable, row, other)


def _differs(key: KeyUndo, columns: Sequence[str], row: Row, other: Row) -> bool:
    index = key.table.statements.index
    return any(row[index[name]] != other[index[name]] for name in columns)


# --- what comes back (F25, F27, F29) ------------------------------------------------------------


def _restored(unit: Unit, key: KeyUndo, row: Row | None, *, forced: bool) -> Target:
    if _made_it(key):
        return None
    names = key.table.statements.names
    target: Target = None if row is None else dict(zip(names, row, strict=True))
    if len(key.steps) == 1 and not key.steps[0].compensated:
        step = key.steps[0]
        if row is not None and step.before is not None and row == step.after:
            return dict(zip(names, step.before, strict=True))
        target = _step_back(key, step, target)
    else:
        for step in reversed(key.steps):
            if step.compensated:
                target = _compensated(unit, step, target)
            else:
                target = _step_back(key, step, target)
    if forced and target is not None:
        _bump(key, row, target)
    return target


def _step_back(key: KeyUndo, step: UndoStep, target: Target) -> Target:
    if step.before is None:
        return None
    names = key.table.statements.names
    before = dict(zip(names, step.before, strict=True))
    if step.after is None or target is None:
        return before
    after = dict(zip(names, step.after, strict=True))
    mine = {*step.written, key.table.version}
    back = dict(target)
    for name, was in before.items():
        # Beside what we wrote: what our triggers wrote and nobody has changed since.
        if name in mine or target.get(name) == after[name]:
            back[name] = was
        elif name in step.deltas:
            back[name] = _without(step.deltas[name], target.get(name))
    return back


def _without(delta: Delta, text: str | None) -> str | None:
    of_type, amount = delta
    if text is None:
        return None
    value = reader(of_type)(text)
    if isinstance(value, Alien):
        return text
    return writer(of_type)(exact_sum(value, -reader(of_type)(amount)))


def _bump(key: KeyUndo, row: Row | None, target: dict[str, str | None]) -> None:
    """Version plus one: of the row that is there, else of the one that we left (F29)."""
    version = key.table.version
    standing = row if row is not None else key.steps[-1].after
    if version is None or standing is None:
        return
    text = standing[key.table.statements.index[version]]
    if text is not None and text.lstrip("-").isdigit():
        target[version] = str(int(text) + 1)


def _compensation(unit: Unit, step: UndoStep) -> Operation:
    operation = unit.plan.operations[step.position].compensate
    assert operation is not None
    return operation


def _compensated(unit: Unit, step: UndoStep, target: Target) -> Target:
    """Let the sender's own undo act on the row, as any operation would; raise `Refused`."""
    operation = _compensation(unit, step)
    table = mapped_table(unit.mapping, operation.entity)
    image = None
    if target is not None:
        texts = [None, *(target.get(name) for name in table.statements.names)]
        image = table.image(texts)
    write = decide_operation(unit.mapping, step.position, operation, image)
    if write.effect is Effect.DELETED:
        return None
    assigned: dict[str, str | None] = {
        name: None if value is None else table.write[name](value)
        for name, value in write.assigned.items()
    }
    return {**(target or {}), **assigned, **dict.fromkeys(write.unset)}


def _changes(key: KeyUndo, row: Row | None, target: Target) -> tuple[RowChange, ...]:
    """What makes the row what it shall be."""
    statements = key.table.statements
    if target is None:
        return () if row is None else (RowChange(statements, Effect.DELETED, key.key),)
    own = statements.table.key
    candidates = [name for name in statements.restorable if name in target and name != own]
    if row is None:
        return (_filled(key, Effect.CREATED, candidates, target),)
    index = statements.index
    changed = [name for name in candidates if target[name] != row[index[name]]]
    if statements.identity.intersection(changed):
        # GENERATED ALWAYS: an update may not set it, an insert may (OVERRIDING SYSTEM VALUE).
        gone = RowChange(statements, Effect.DELETED, key.key)
        return (gone, _filled(key, Effect.CREATED, candidates, target))
    return (_filled(key, Effect.UPDATED, changed, target),) if changed else ()


def _filled(
    key: KeyUndo, effect: Effect, columns: Sequence[str], target: Mapping[str, str | None]
) -> RowChange:
    values = tuple(target[name] for name in columns)
    return RowChange(key.table.statements, effect, key.key, tuple(columns), values)


# --- problems -----------------------------------------------------------------------------------


def _foreign_write(unit: Unit, key: KeyUndo) -> Problem:
    return _problem(
        unit,
        key,
        ErrorCode.FOREIGN_WRITE,
        f"{key.table.entity} {key.shown} was changed by somebody else after the unit wrote it; "
        "undoing would overwrite that.",
    )


def _undo_failed(unit: Unit, key: KeyUndo, cause: Problem) -> Problem:
    return _problem(
        unit,
        key,
        ErrorCode.UNDO_FAILED,
        f"The unit's own compensation could not be done: {cause.message}",
    )


def _problem(unit: Unit, key: KeyUndo, code: ErrorCode, message: str) -> Problem:
    operation = unit.plan.operations[key.steps[-1].position]
    return Problem(
        code=code,
        message=message,
        path=f"operations.{operation.index}",
        operation=operation.index,
        entity=key.table.entity,
        key=key.shown,
    )
