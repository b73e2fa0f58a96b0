"""What a unit does to its documents: each operation's change, and the net change per key.

Pure. Operations on one key follow each other (F14); their changes merge into a net one, which is
what is written and what undo goes back over. An operation that brought its own undo (F25) stays
a step by itself in the record, because undo goes back over it in its own way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from coordinator.domain.decide import Effect, Write, exact_sum
from coordinator.participants.mongodb.elements import (
    Elements,
    document_of,
    elements_from,
    elements_of,
)
from coordinator.participants.mongodb.images import Shape
from coordinator.participants.mongodb.writes import (
    DocumentWrite,
    WriteKind,
    deletion_body,
    replacement_body,
    update_body,
)

_NO_VALUES: Final[Mapping[str, Any]] = MappingProxyType({})


class Change(NamedTuple):
    """What one or several operations do to a document (a tuple: one is made per operation).

    ``before`` is the stored document, ``None`` where there was none. Afterwards there is the new
    document ``whole``, or none (``gone``), or ``before`` with fields ``assigned`` and ``unset``.
    ``written`` names the fields that were set or unset, without the version; ``deltas`` holds the
    domain values of those that were only incremented. ``position`` is that of the last operation.
    """

    position: int
    before: bytes | None
    whole: Mapping[str, Any] | None = None
    gone: bool = False
    assigned: Mapping[str, Any] = _NO_VALUES
    unset: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    deltas: Mapping[str, Any] = _NO_VALUES
    compensated: bool = False

    @property
    def is_nothing(self) -> bool:
        """Whether it leaves no trace: made and deleted again."""
        return self.before is None and self.gone


def change_of(shape: Shape, write: Write, before: bytes | None) -> Change:
    """Give the change of one decided operation that writes something."""
    compensated = write.operation.compensate is not None
    if write.effect is Effect.CREATED:
        whole = shape.document(write.operation.key, write.assigned)
        return Change(write.position, before, whole=whole, compensated=compensated)
    if write.effect is Effect.DELETED:
        return Change(write.position, before, gone=True, compensated=compensated)
    deltas = write.deltas or _NO_VALUES
    version = shape.version
    return Change(
        write.position,
        before,
        assigned=shape.assigned(write.assigned),
        unset=write.unset,
        written=(
            *[name for name in write.assigned if name != version and name not in deltas],
            *write.unset,
        ),
        deltas=deltas,
        compensated=compensated,
    )


def merged(one: Change, other: Change) -> Change:
    """Give both changes, one after the other, as a single one."""
    if other.whole is not None or other.gone:
        return other._replace(before=one.before)
    if one.whole is not None:
        whole = {**one.whole, **other.assigned}
        for name in other.unset:
            whole.pop(name, None)
        return one._replace(position=other.position, whole=whole)
    assigned = {name: each for name, each in one.assigned.items() if name not in other.unset}
    written = tuple(dict.fromkeys((*one.written, *other.written)))
    deltas = dict(one.deltas)
    for name, delta in other.deltas.items():
        deltas[name] = exact_sum(deltas[name], delta) if name in deltas else delta
    return Change(
        other.position,
        one.before,
        assigned={**assigned, **other.assigned},
        unset=(*[name for name in one.unset if name not in other.assigned], *other.unset),
        written=written,
        deltas={name: delta for name, delta in deltas.items() if name not in written},
    )


def net(changes: Sequence[Change]) -> Change:
    """Merge all changes of one key."""
    result = changes[0]
    for change in changes[1:]:
        result = merged(result, change)
    return result


def steps(changes: Sequence[Change]) -> list[Change]:
    """Merge the changes of one key as far as undo goes back over them in one way."""
    found: list[Change] = []
    for change in changes:
        if not found:
            found.append(change)
        elif found[-1].compensated or change.compensated:
            found.append(change._replace(before=document_after(found[-1])))
        else:
            found[-1] = merged(found[-1], change)
    return found


def document_after(change: Change) -> bytes | None:
    """Give the document as the change leaves it."""
    if change.gone:
        return None
    whole = change.whole
    return document_of(
        elements_after(
            change.before,
            None if whole is None else elements_from(whole),
            elements_from(change.assigned),
            change.unset,
        )
    )


def elements_after(
    before: bytes | None, whole: Elements | None, assigned: Elements, unset: Sequence[str]
) -> Elements:
    """Give a document's elements after it was replaced by ``whole``, or changed."""
    if whole is not None:
        return whole
    left = {**elements_of(before or b"\5\0\0\0\0"), **assigned}
    for name in unset:
        left.pop(name, None)
    return left


def write_of(
    seq: int, shape: Shape, key: Any, change: Change, size_bytes: int
) -> DocumentWrite | None:
    """Give the write that brings a change about; ``None`` if nothing has to be written."""
    body: Mapping[str, Any]
    if change.gone:
        if change.before is None:
            return None
        kind, body = WriteKind.DELETE, deletion_body(key)
    elif change.whole is None:
        if not change.assigned and not change.unset:
            return None
        kind, body = WriteKind.UPDATE, update_body(key, change.assigned, change.unset)
    elif change.before is None:
        kind, body = WriteKind.INSERT, change.whole
    else:
        kind, body = WriteKind.UPDATE, replacement_body(key, change.whole)
    return DocumentWrite(seq, change.position, shape.collection, kind, body, size_bytes)
