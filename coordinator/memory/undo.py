"""What undo does to each row of an applied branch, and whether a stranger is in the way.

The rules are those of the two real participants (F25, F27–F29), over rows as plain values: every
declared field and the version. Per key there are *steps*, the operations merged as far as undo
goes back over them in one way; one that brought its own undo stays a step by itself. I6.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from coordinator.domain.decide import (
    Effect,
    Image,
    ImageKey,
    Refused,
    Write,
    decide_operation,
    exact_sum,
    key_as_json,
)
from coordinator.domain.entity import Entity, ForeignWritePolicy
from coordinator.domain.errors import ErrorCode, Problem, clipped
from coordinator.domain.operation import Operation, OperationKind, Unit
from coordinator.domain.sharing import Member, Share


@dataclass(frozen=True, slots=True)
class UndoStep:
    """``whole``: the row was made, deleted or replaced, so that undo judges all of it."""

    position: int
    before: Image | None
    after: Image | None
    written: frozenset[str]
    deltas: Mapping[str, Any]
    whole: bool
    compensated: bool


@dataclass(frozen=True, slots=True)
class KeyUndo:
    """One key that a branch wrote, and the steps to go back over."""

    at: ImageKey
    entity: Entity
    steps: tuple[UndoStep, ...]


def undo_of(unit: Unit, writes: Iterable[Write]) -> tuple[KeyUndo, ...]:
    """Record what a branch's writes did, by key, in the order of the first write."""
    by_key: dict[ImageKey, list[UndoStep]] = {}
    for write in writes:
        if write.effect is Effect.NOTHING:
            continue
        operation = write.operation
        steps = by_key.setdefault((operation.entity, operation.key_text), [])
        step = _step(unit.mapping.entities[operation.entity], write)
        if steps and not steps[-1].compensated and not step.compensated:
            steps[-1] = _merged(steps[-1], step)
        else:
            steps.append(step)
    entities = unit.mapping.entities
    return tuple(KeyUndo(at, entities[at[0]], tuple(steps)) for at, steps in by_key.items())


def _step(entity: Entity, write: Write) -> UndoStep:
    deltas = write.deltas or {}
    written = {name for name in write.assigned if name not in deltas and name != entity.version}
    return UndoStep(
        write.position,
        write.before,
        write.after,
        frozenset(written.union(write.unset)),
        deltas,
        write.effect is not Effect.UPDATED,
        write.operation.compensate is not None,
    )


def _merged(one: UndoStep, other: UndoStep) -> UndoStep:
    written = one.written | other.written
    deltas = dict(one.deltas)
    for name, delta in other.deltas.items():
        deltas[name] = exact_sum(deltas[name], delta) if name in deltas else delta
    return replace(
        other,
        before=one.before,
        written=written,
        deltas={name: delta for name, delta in deltas.items() if name not in written},
        whole=one.whole or other.whole,
    )


def decide_undo(
    unit: Unit,
    keys: Sequence[KeyUndo],
    rows: Mapping[ImageKey, Image | None],
    shares: dict[ImageKey, Share],
) -> list[tuple[KeyUndo, Image | None]] | Problem:
    """Give the rows as they shall be, last write first; a problem leaves the branch as it is.

    ``shares`` holds those of the keys that were applied together with others; unless there is a
    problem it holds them without this unit afterwards.
    """
    targets: list[tuple[KeyUndo, Image | None]] = []
    left: dict[ImageKey, Share] = {}
    for key in reversed(keys):
        row = rows[key.at]
        share = shares.get(key.at)
        member = None if share is None else share.member(unit.seq)
        if share is None or member is None:
            foreign = is_foreign(unit, key, row)
        else:
            foreign = is_shared_foreign(key, share, row)
            left[key.at] = share.without(unit.seq)
        if foreign and key.entity.on_foreign_write is ForeignWritePolicy.PARK:
            return undo_problem(
                unit,
                key,
                ErrorCode.FOREIGN_WRITE,
                f"{key.at[0]} {clipped(key.at[1])} was changed by somebody else after the unit "
                "wrote it; undoing would overwrite that.",
            )
        if foreign and key.entity.on_foreign_write is ForeignWritePolicy.SKIP:
            continue
        try:
            if share is None or member is None:
                target = _restored(unit, key, row, forced=foreign)
            else:
                target, left[key.at] = _taken_out(key, share, member, row, forced=foreign)
        except Refused as refusal:
            return undo_problem(unit, key, ErrorCode.UNDO_FAILED, refusal.problem.message)
        if target != row:
            targets.append((key, target))
    shares.update(left)
    return targets


def undo_problem(unit: Unit, key: KeyUndo, code: ErrorCode, message: str) -> Problem:
    """Make a problem about one key of a branch."""
    operation = unit.plan.operations[key.steps[-1].position]
    return Problem(
        code,
        message,
        path=f"operations.{operation.index}",
        operation=operation.index,
        entity=operation.entity,
        key=key_as_json(operation),
    )


# --- strangers (F28) ----------------------------------------------------------------------------


def is_foreign(unit: Unit, key: KeyUndo, row: Image | None) -> bool:
    """Whether somebody else's write would be lost by this undo."""
    left = key.steps[-1].after
    if left is None:
        return row is not None
    if row is None:
        return not _made_it(key)
    if row == left:
        return False
    return any(_is_step_foreign(unit, key, step, row, left) for step in key.steps)


def is_shared_foreign(key: KeyUndo, share: Share, row: Image | None) -> bool:
    """The same for a key of several sharers: the version is that after the last write or undo."""
    if row is None:
        return True
    version = key.entity.version
    return version is not None and row.get(version) != share.version_left()


def _made_it(key: KeyUndo) -> bool:
    return key.steps[0].before is None and not key.steps[0].compensated


def _is_step_foreign(unit: Unit, key: KeyUndo, step: UndoStep, row: Image, left: Image) -> bool:
    if step.compensated:
        operation = _compensation(unit, step)
        if operation.kind is OperationKind.DELETE:
            return True
        return _differs((*operation.set, *operation.unset), row, left)
    if step.whole:
        return True
    version = key.entity.version
    if version is not None and _differs((version,), row, left):
        return True
    return _differs(step.written, row, left)


def _differs(names: Iterable[str], row: Image, other: Image) -> bool:
    return any(row.get(name) != other.get(name) for name in names)


# --- what comes back (F25, F27, F29) ------------------------------------------------------------


def _restored(unit: Unit, key: KeyUndo, row: Image | None, *, forced: bool) -> Image | None:
    if _made_it(key):
        return None
    target = row
    for step in reversed(key.steps):
        if step.compensated:
            target = _compensated(unit, step, target)
        else:
            target = _step_back(key, step, target)
    version = key.entity.version
    standing = row if row is not None else key.steps[-1].after
    if forced and target is not None and version is not None and standing is not None:
        target = {**target, version: standing[version] + 1}
    return target


def _taken_out(
    key: KeyUndo, share: Share, member: Member, row: Image | None, *, forced: bool
) -> tuple[Image, Share]:
    """Take one sharer's deltas out of the row, and it out of the share."""
    rest = share.without(member.seq)
    if row is None:
        # A deleted row comes back (F29), as it would be had this one never been.
        row = {**(key.steps[0].before or {}), **{name: share.value(name) for name in share.base}}
    back = dict(row)
    for name, delta in member.deltas.items():
        if back[name] == share.value(name):
            back[name] = rest.value(name)
        elif back[name] is not None:
            back[name] = exact_sum(back[name], -delta)
    version = key.entity.version
    if version is not None:
        back[version] = row[version] + 1 if forced else rest.version_left()
        rest = rest._replace(drift=back[version] - rest.version_before(None))
    return back, rest


def _step_back(key: KeyUndo, step: UndoStep, target: Image | None) -> Image | None:
    before = step.before
    if before is None or target is None or step.whole:
        return before
    back = dict(target)
    for name in step.written:
        back[name] = before.get(name)
    if key.entity.version is not None:
        back[key.entity.version] = before.get(key.entity.version)
    for name, delta in step.deltas.items():
        if back[name] is not None:
            back[name] = exact_sum(back[name], -delta)
    return back


def _compensation(unit: Unit, step: UndoStep) -> Operation:
    operation = unit.plan.operations[step.position].compensate
    assert operation is not None
    return operation


def _compensated(unit: Unit, step: UndoStep, target: Image | None) -> Image | None:
    """Let the sender's own undo act on the row, as any operation would; raise `Refused`."""
    operation = _compensation(unit, step)
    return decide_operation(unit.mapping, step.position, operation, target).after
