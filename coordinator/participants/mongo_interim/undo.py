"""Undo of documents: the record, and deciding what comes back. Pure, over BSON values.

A record holds, per key, the steps that the unit took there, each with the document before it as
the very bytes, so that nothing is lost by reading and writing (F27); what a step left follows
from that and from what it set. Names stand in the record (rule 8): collection, version field and
policy are those of the time of the apply.

======================= ============================== ===========================================
what we did             a stranger's write (F28)       what comes back
======================= ============================== ===========================================
update                  a field that we set or unset   the very document if it is the one that we
                        holds something else; the      left; else the fields that we wrote, the
                        version is not the one that    version, and increments by the inverse
                        we left; it is gone            delta; what the stranger added stays
insert                  it differs anywhere            no document
delete                  there is one again             the very document
own undo (F25)          a field that it would set      what it says, decided on the document as it
                        holds something else           is, version plus one
======================= ============================== ===========================================

With a stranger in the way the entity's policy rules (F29). Increments are never compared. I6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import bson
from bson.binary import Binary
from bson.decimal128 import Decimal128
from bson.int64 import Int64

from coordinator.domain.decide import Effect, Refused, decide_operation, exact_sum
from coordinator.domain.entity import ForeignWritePolicy
from coordinator.domain.errors import ErrorCode, Problem
from coordinator.domain.operation import OperationKind, Unit
from coordinator.participants.mongo_interim.documents import Document, documents_of, written
from coordinator.participants.mongo_interim.driver import CODEC


@dataclass(slots=True)
class Step:
    """What one operation did to its document. ``deltas`` are BSON numbers."""

    position: int
    effect: Effect
    before: bytes | None
    assigned: Document
    unset: tuple[str, ...]
    deltas: Document
    compensated: bool


@dataclass(slots=True)
class KeyUndo:
    """What a unit did to one document; ``key`` is its ``_id``."""

    entity: str
    collection: str
    key: Any
    version: str | None
    policy: ForeignWritePolicy
    steps: list[Step] = field(default_factory=list)

    def left(self) -> Document | None:
        """The document as the last step left it."""
        return after(self, self.steps[-1])


def after(undo: KeyUndo, step: Step) -> Document | None:
    """The document as one step left it."""
    if step.effect is Effect.DELETED:
        return None
    if step.before is None:
        return {"_id": undo.key, **step.assigned}
    document = {**bson.decode(step.before, CODEC), **step.assigned}
    for name in step.unset:
        document.pop(name, None)
    return document


def as_bson(undo: KeyUndo) -> Document:
    """Give the record's form of one key."""
    return {
        "entity": undo.entity,
        "collection": undo.collection,
        "key": undo.key,
        "version": undo.version,
        "policy": undo.policy.value,
        "steps": [
            {
                "position": step.position,
                "effect": step.effect.value,
                "before": None if step.before is None else Binary(step.before),
                "assigned": step.assigned,
                "unset": list(step.unset),
                "deltas": step.deltas,
                "compensated": step.compensated,
            }
            for step in undo.steps
        ],
    }


def from_record(form: Mapping[str, Any]) -> KeyUndo:
    """Read back what `as_bson` gave."""
    return KeyUndo(
        form["entity"],
        form["collection"],
        form["key"],
        form["version"],
        ForeignWritePolicy(form["policy"]),
        [
            Step(
                step["position"],
                Effect(step["effect"]),
                None if step["before"] is None else bytes(step["before"]),
                step["assigned"],
                tuple(step["unset"]),
                step["deltas"],
                step["compensated"],
            )
            for step in form["steps"]
        ],
    )


# --- deciding -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Restored:
    """What one document shall be: the very bytes, a document, or nothing."""

    collection: str
    key: Any
    exists: bool
    document: bytes | Document | None


def decide_undo(
    unit: Unit, keys: Sequence[KeyUndo], current: Mapping[tuple[str, Any], bytes]
) -> list[Restored] | Problem:
    """Decide the undo of one branch, last key first; a problem means: leave it as a whole."""
    restored: list[Restored] = []
    for undo in reversed(keys):
        raw = current.get((undo.collection, undo.key))
        document = None if raw is None else bson.decode(raw, CODEC)
        foreign = _is_foreign(unit, undo, document)
        if foreign and undo.policy is ForeignWritePolicy.PARK:
            return _problem(
                unit,
                undo,
                ErrorCode.FOREIGN_WRITE,
                "somebody else has written to it since, so it cannot be undone without them",
            )
        if foreign and undo.policy is ForeignWritePolicy.SKIP:
            continue
        try:
            target = _target(unit, undo, document, forced=foreign)
        except Refused as refusal:
            return _problem(unit, undo, ErrorCode.UNDO_FAILED, refusal.problem.message)
        if target is None and document is None:
            continue
        restored.append(Restored(undo.collection, undo.key, document is not None, target))
    return restored


def _is_foreign(unit: Unit, undo: KeyUndo, document: Document | None) -> bool:
    left = undo.left()
    if left is None:
        return document is not None
    if document is None:
        return not _made_it(undo)
    if same(document, left):
        return False
    return any(_is_step_foreign(unit, undo, step, document, left) for step in undo.steps)


def _made_it(undo: KeyUndo) -> bool:
    """Whether undo ends without a document: our insert, whatever came after it."""
    return undo.steps[0].before is None and not undo.steps[0].compensated


def _is_step_foreign(
    unit: Unit, undo: KeyUndo, step: Step, document: Document, left: Document
) -> bool:
    if step.compensated:
        operation = unit.plan.operations[step.position].compensate
        if operation is None or operation.kind is OperationKind.DELETE:
            return True
        return _differs((*operation.set, *operation.unset), document, left)
    if step.before is None:
        return True
    if undo.version is not None and _differs((undo.version,), document, left):
        return True
    compared = [name for name in step.assigned if name not in step.deltas]
    return _differs((*compared, *step.unset), document, left)


def same(one: Document, other: Document) -> bool:
    """Whether two documents hold the same fields with the same values of the same types."""
    return one.keys() == other.keys() and not _differs(tuple(one), one, other)


def _differs(names: Sequence[str], one: Document, other: Document) -> bool:
    return any(_encoded(one, name) != _encoded(other, name) for name in names)


def _encoded(document: Document, name: str) -> bytes | None:
    return bson.encode({"": document[name]}, codec_options=CODEC) if name in document else None


def _target(
    unit: Unit, undo: KeyUndo, document: Document | None, *, forced: bool
) -> bytes | Document | None:
    if _made_it(undo):
        return None
    first = undo.steps[0]
    plain = not any(step.compensated for step in undo.steps)
    left = undo.left()
    untouched = left is None if document is None else left is not None and same(document, left)
    if plain and untouched:
        return first.before
    target = None if document is None else dict(document)
    for step in reversed(undo.steps):
        target = (
            _compensated(unit, step, target) if step.compensated else _step_back(undo, step, target)
        )
    if forced and target is not None and undo.version is not None:
        standing = document if document is not None else left
        held = (standing or {}).get(undo.version)
        if isinstance(held, int) and not isinstance(held, bool):
            target[undo.version] = Int64(held + 1)
    return target


def _step_back(undo: KeyUndo, step: Step, target: Document | None) -> Document | None:
    if step.before is None:
        return None
    before: Document = bson.decode(step.before, CODEC)
    left = after(undo, step)
    if left is None or target is None:
        return before
    back = dict(target)
    for name in (*step.assigned, *step.unset):
        is_increment = name in step.deltas and name != undo.version
        if is_increment and _encoded(back, name) != _encoded(left, name):
            back[name] = _without(back.get(name), step.deltas[name])
        elif name in before:
            back[name] = before[name]
        else:
            back.pop(name, None)
    return back


def _without(stored: Any, delta: Any) -> Any:
    """The stored number less the delta; what is no number any more stays as it is."""
    if isinstance(stored, Decimal128):
        amount = delta.to_decimal() if isinstance(delta, Decimal128) else Decimal(delta)
        value = stored.to_decimal()
        return Decimal128(exact_sum(value, -amount)) if value.is_finite() else stored
    if isinstance(stored, bool) or not isinstance(stored, int | float):
        return stored
    if isinstance(delta, Decimal128):
        return stored
    value = stored - delta
    return Int64(value) if isinstance(value, int) else value


def _compensated(unit: Unit, step: Step, target: Document | None) -> Document | None:
    """Let the sender's own undo act on the document, as any operation would; raise `Refused`."""
    operation = unit.plan.operations[step.position].compensate
    if operation is None:
        return target
    documents = documents_of(unit.mapping, operation.entity)
    write = decide_operation(unit.mapping, step.position, operation, documents.image(target))
    key = documents.key(operation.key)
    return written(target, write, key, documents.assigned(write))


def _problem(unit: Unit, undo: KeyUndo, code: ErrorCode, why: str) -> Problem:
    operation = unit.plan.operations[undo.steps[0].position]
    return Problem(
        code,
        f"{undo.entity} {operation.key_text}: {why}.",
        f"operations.{operation.index}",
        operation.index,
        undo.entity,
        _shown_key(operation.key_text),
    )


def _shown_key(key_text: str) -> Any:
    return int(key_text) if key_text.lstrip("-").isdigit() else key_text.strip('"')
