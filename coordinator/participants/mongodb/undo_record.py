"""Undo records: what a branch has done, as it is stored in the database beside its effect.

Pure. A record holds what each operation did, for its events, because a branch that is found
applied is never decided again (rule 7); and per key the very document before, what was written,
and every name that undo needs, so that undo never asks the live mapping (rule 8). A record is one
document, and so MongoDB's 16 MB bound what one unit may touch. Refuses to decide what undo does:
see `undo`. Its form is documented in ``docs/reference/bookkeeping-mongodb.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

import bson
from bson.codec_options import CodecOptions
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument

from coordinator.domain.decide import Effect, key_as_json
from coordinator.domain.entity import FieldType, ForeignWritePolicy
from coordinator.domain.errors import InvariantViolated
from coordinator.domain.operation import Operation, Unit
from coordinator.domain.publishing import Done
from coordinator.participants.mongodb.changes import Change, elements_after, steps
from coordinator.participants.mongodb.elements import EXACT, Elements, elements_of
from coordinator.participants.mongodb.images import Shape

FORMAT: Final = 1
FORMAT_SHARED: Final = 2
"""Of a record with shared keys: who does not know of shares must not undo it."""

RECORD_BYTES_MAX: Final = 16 * 1024 * 1024 - 4096
"""A stored document's 16 MB, less what a statement has around it."""

_RAW: Final[CodecOptions[RawBSONDocument]] = CodecOptions(
    document_class=RawBSONDocument,
    tz_aware=True,
    datetime_conversion=EXACT.datetime_conversion,
    unicode_decode_error_handler="replace",
)


class UndoState(StrEnum):
    """Where a branch stands in its store."""

    APPLIED = "applied"
    UNDONE = "undone"
    TOMBSTONE = "tombstone"


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose record it is: the journal, the worker that writes it, and when (UTC)."""

    journal_id: str
    worker: int
    at: datetime

    def record_id(self, unit_id: str) -> str:
        """Give the ``_id`` of a unit's record."""
        return record_id(self.journal_id, unit_id)


class KeyChanges(NamedTuple):
    """The changes of one key, in their order (a tuple: one is made per key).

    ``key`` is its BSON value, ``share`` the id of its share if it is shared.
    """

    shape: Shape
    operation: Operation
    key: Any
    changes: list[Change]
    share: str | None = None


@dataclass(frozen=True, slots=True)
class UndoStep:
    """A net change of one key, as elements; ``None`` where there was no document.

    ``deltas`` holds (field type, amount as text). ``compensated``: the operation at ``position``
    brought its own undo, which is in the plan (F25).
    """

    position: int
    before: Elements | None
    after: Elements | None
    before_raw: bytes | None
    written: tuple[str, ...]
    deltas: Mapping[str, tuple[FieldType, str]]
    compensated: bool
    whole: bool


@dataclass(frozen=True, slots=True)
class KeyUndo:
    """What was done to one key; ``shown`` is the key as outcomes show it.

    ``share`` is the id of its share, if it was written together with other units.
    """

    entity: str
    collection: str
    key: Any
    shown: Any
    version: str | None
    policy: ForeignWritePolicy
    steps: tuple[UndoStep, ...]
    share: str | None = None


@dataclass(frozen=True, slots=True)
class StoredUndo:
    """A record as it was found; ``raw`` is all of it."""

    digest: str
    state: UndoState
    wrote: bool
    raw: bytes
    shares: tuple[str, ...] = ()

    def done(self) -> tuple[Done, ...]:
        """Give what each operation did (rule 7)."""
        record = bson.decode(self.raw, EXACT)
        return tuple(
            Done(position, Effect(effect), before, after, None if at is None else int(at))
            for position, effect, before, after, at in record["done"]
        )

    def keys(self) -> tuple[KeyUndo, ...]:
        """Give what was done per key, in the order of their first writes."""
        record = bson.decode(self.raw, _RAW)
        if record["format"] not in (FORMAT, FORMAT_SHARED):
            raise InvariantViolated(
                f"an undo record has format {record['format']!r}, and this program reads {FORMAT}"
                f" and {FORMAT_SHARED}"
            )
        return tuple(_key_undo(key) for key in record["keys"])


def record_id(journal_id: str, unit_id: str) -> str:
    """Give the ``_id`` of a unit's record."""
    return f"{journal_id}/{unit_id}"


def read_record(raw: bytes) -> tuple[str, StoredUndo]:
    """Read a record; return the unit's id and what was found."""
    head = RawBSONDocument(raw, _RAW)
    shares = tuple(head["shares"]) if head["format"] == FORMAT_SHARED else ()
    state = UndoState(head["state"])
    return head["unit"], StoredUndo(head["digest"], state, head["wrote"], raw, shares)


_APPLIED: Final = UndoState.APPLIED.value


# --- writing ------------------------------------------------------------------------------------


def applied_record(
    identity: Identity, unit: Unit, done: Sequence[Done], keys: Sequence[KeyChanges]
) -> bytes:
    """Write the record of a branch that is being applied."""
    shares = [key.share for key in keys if key.share is not None]
    return bson.encode(
        {
            **_head(identity, unit, _APPLIED),
            **({"format": FORMAT_SHARED, "shares": shares} if shares else {}),
            "wrote": any(each.effect is not Effect.NOTHING for each in done),
            "done": [
                (
                    each.position,
                    f"{each.effect}",
                    each.before,
                    each.after,
                    None if each.version is None else Int64(each.version),
                )
                for each in done
            ],
            "keys": [recorded for key in keys if (recorded := _key_document(key)) is not None],
        }
    )


def tombstone(identity: Identity, unit: Unit) -> dict[str, Any]:
    """Write what blocks a late apply (rule 1)."""
    return {
        **_head(identity, unit, UndoState.TOMBSTONE.value),
        "wrote": False,
        "done": [],
        "keys": [],
    }


def _head(identity: Identity, unit: Unit, state: str) -> dict[str, Any]:
    return {
        "_id": identity.record_id(unit.id),
        "format": FORMAT,
        "journal": identity.journal_id,
        "unit": unit.id,
        "digest": unit.digest,
        "worker": identity.worker,
        "state": state,
        "created_at": identity.at,
    }


def _key_document(key: KeyChanges) -> dict[str, Any] | None:
    changes = key.changes if len(key.changes) == 1 else steps(key.changes)
    recorded = [each for each in changes if not each.is_nothing]
    if not recorded:
        return None  # made and deleted again: whatever is there is not ours
    shape = key.shape
    return {
        **shape.names,
        "key": key.key,
        "shown": key_as_json(key.operation),
        "steps": [_step_document(shape, step) for step in recorded],
        **({} if key.share is None else {"share": key.share}),
    }


def _step_document(shape: Shape, step: Change) -> dict[str, Any]:
    document: dict[str, Any] = {"position": step.position}
    if step.before is not None:
        document["before"] = RawBSONDocument(step.before)
    if step.whole is not None:
        document["after"] = step.whole
    elif step.gone:
        document["after"] = None
    else:
        document["set"] = step.assigned
        document["unset"] = step.unset
        document["written"] = step.written
        if step.deltas:
            names = shape.type_names
            document["deltas"] = {
                name: (names[name], str(delta)) for name, delta in step.deltas.items()
            }
    if step.compensated:
        document["compensated"] = True
    return document


# --- reading ------------------------------------------------------------------------------------


def _key_undo(key: Mapping[str, Any]) -> KeyUndo:
    return KeyUndo(
        entity=key["entity"],
        collection=key["collection"],
        key=key["key"],
        shown=key["shown"],
        version=key["version_field"],
        policy=ForeignWritePolicy(key["on_foreign_write"]),
        steps=tuple(_undo_step(step) for step in key["steps"]),
        share=key.get("share"),
    )


def _undo_step(step: Mapping[str, Any]) -> UndoStep:
    before_raw = _bytes(step["before"]) if "before" in step else None
    whole = "after" in step
    after: Elements | None
    if whole:
        after = None if step["after"] is None else elements_of(_bytes(step["after"]))
        written: tuple[str, ...] = ()
    else:
        after = elements_after(before_raw, None, elements_of(_bytes(step["set"])), step["unset"])
        written = tuple(step["written"])
    return UndoStep(
        position=step["position"],
        before=None if before_raw is None else elements_of(before_raw),
        after=after,
        before_raw=before_raw,
        written=written,
        deltas={
            name: (FieldType(of_type), amount)
            for name, (of_type, amount) in step.get("deltas", {}).items()
        },
        compensated=bool(step.get("compensated", False)),
        whole=whole,
    )


def _bytes(document: RawBSONDocument) -> bytes:
    return bytes(document.raw)  # a large one comes as a view of its message
