"""From the documents of a batch to what shall be written: decisions, undo records, writes.

Pure: what `participant` does inside one transaction, but for the reading and writing itself. A
unit that is decided against, or whose undo record would not fit into a document, is refused
alone; nothing of it is among the writes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import bson
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from coordinator.domain.decide import Effect, Image, ImageKey, Write
from coordinator.domain.errors import ErrorCode, Problem
from coordinator.domain.operation import Unit
from coordinator.domain.preview import NOTHING_SEEN, Preview
from coordinator.domain.publishing import Done
from coordinator.participants.mongodb.bookkeeping import UNDO
from coordinator.participants.mongodb.bson_values import match_key
from coordinator.participants.mongodb.changes import Change, change_of, net, write_of
from coordinator.participants.mongodb.elements import EXACT
from coordinator.participants.mongodb.images import KEY_FIELD, Shape, shape_of, version_of
from coordinator.participants.mongodb.shares import Sharing
from coordinator.participants.mongodb.undo_record import (
    RECORD_BYTES_MAX,
    Identity,
    KeyChanges,
    applied_record,
)
from coordinator.participants.mongodb.writes import DocumentWrite, WriteKind

_STANDING: Final = b"\5\0\0\0\0"
"""Stands for a document that an earlier operation of the unit has left there."""


@dataclass(slots=True)
class Wanted:
    """The documents of one entity that a batch needs: by `match_key`, what to look for."""

    shape: Shape
    keys: dict[Hashable, tuple[ImageKey, Any]] = field(default_factory=dict)

    def condition(self) -> dict[str, Any]:
        """Give the condition that finds them all."""
        return {KEY_FIELD: {"$in": [stored for _, stored in self.keys.values()]}}


@dataclass(slots=True)
class Documents:
    """The documents of a batch: as stored, as images, and which are those of the preview."""

    preview: Preview = NOTHING_SEEN
    raws: dict[ImageKey, bytes] = field(default_factory=dict)
    images: dict[ImageKey, Image | None] = field(default_factory=dict)
    unchanged: set[ImageKey] = field(default_factory=set)

    def take(self, wanted: Wanted, found: Sequence[bytes]) -> None:
        """Take what was found of one entity; what was not is missing."""
        preview = self.preview
        known: dict[bytes, ImageKey] = {}
        missing: set[ImageKey] = set()
        for at, _ in wanted.keys.values():
            self.images[at] = None
            if (seen := preview.rows.get(at)) is not None:
                known[seen] = at
            elif preview.is_missing_still(at):
                missing.add(at)
        for raw in found:
            if (same := known.get(raw)) is not None:
                self.raws[same] = raw
                self.images[same] = preview.images[same]
                self.unchanged.add(same)
                continue
            document = bson.decode(raw, EXACT)
            match = wanted.keys.get(match_key(document[KEY_FIELD]))
            # A collection's own collation may find more than was asked for.
            if match is not None:
                self.raws[match[0]] = raw
                self.images[match[0]] = wanted.shape.image(document)
                missing.discard(match[0])
        self.unchanged |= missing


def wanted(store: str, units: Sequence[Unit]) -> list[Wanted]:
    """Collect the keys of these units' branches, by entity."""
    by_entity: dict[str, Wanted] = {}
    seen: set[ImageKey] = set()
    for unit in units:
        entities = unit.mapping.entities
        for _, operation in unit.branch(store):
            at = (operation.entity, operation.key_text)
            if at in seen:
                continue
            seen.add(at)
            of_entity = by_entity.get(operation.entity)
            if of_entity is None:
                shape = shape_of(entities[operation.entity])
                of_entity = by_entity[operation.entity] = Wanted(shape)
            stored = of_entity.shape.write_key(operation.key)
            of_entity.keys[match_key(stored)] = (at, stored)
    return list(by_entity.values())


@dataclass(slots=True)
class Branch:
    """What applying one unit's branch means. ``changes`` are in plan order, with their key."""

    unit: Unit
    done: tuple[Done, ...]
    keys: Sequence[KeyChanges]
    changes: Sequence[tuple[Shape, Any, Change]]
    record: bytes

    def net_writes(self) -> Iterator[DocumentWrite]:
        """Give one write per key that is not shared."""
        for key in self.keys:
            if key.share is not None:
                continue
            change = net(key.changes) if len(key.changes) > 1 else key.changes[0]
            write = write_of(self.unit.seq, key.shape, key.key, change, len(self.record))
            if write is not None:
                yield write

    def writes_in_order(self) -> Iterator[DocumentWrite]:
        """Give one write per operation."""
        for shape, key, change in self.changes:
            write = write_of(self.unit.seq, shape, key, change, len(self.record))
            if write is not None:
                yield write

    def record_write(self) -> DocumentWrite:
        """Give the insertion of the undo record."""
        return DocumentWrite(
            self.unit.seq,
            0,
            UNDO,
            WriteKind.INSERT,
            RawBSONDocument(self.record),
            len(self.record),
        )


def decide(
    store: str,
    identity: Identity,
    units: Sequence[Unit],
    documents: Documents,
    sharing: Sharing | None = None,
) -> tuple[list[Branch], dict[int, Problem]]:
    """Decide every unit on the documents as they are; the refused are in the second part.

    With ``sharing`` the sharers of a key are decided one after the other, on what the former
    leave; some may stay behind. ``documents`` then are as all of them leave them.
    """
    branches: list[Branch] = []
    refused: dict[int, Problem] = {}
    for unit in units:
        if sharing is not None and sharing.line.holds(unit):
            sharing.behind.add(unit.seq)
            continue
        shared = sharing if sharing is not None and sharing.line.shares(unit, store) else None
        if shared is None:
            decided = documents.preview.decide(unit, store, documents.images, documents.unchanged)
        else:
            passed = shared.escrow.decide(unit, store, documents.images)
            if passed is None:
                shared.stays(unit)
                continue
            decided = passed
        branch = (
            decided
            if isinstance(decided, Problem)
            else _branch(store, identity, unit, decided, documents, shared)
        )
        if isinstance(branch, Problem):
            refused[unit.seq] = branch
            if sharing is not None:
                sharing.line.stop(unit)
            continue
        branches.append(branch)
        if shared is not None and not isinstance(decided, Problem):
            left = shared.passed(unit, branch.keys, decided, documents.raws)
            documents.images.update(left)
    return branches, refused


def _branch(
    store: str,
    identity: Identity,
    unit: Unit,
    writes: Sequence[Write],
    documents: Documents,
    sharing: Sharing | None = None,
) -> Branch | Problem:
    keys: dict[ImageKey, KeyChanges] = {}
    changes: list[tuple[Shape, Any, Change]] = []
    shown: dict[ImageKey, bytes | None] = {}
    done: list[Done] = []
    entities = unit.mapping.entities
    for write in writes:
        operation = write.operation
        shape = shape_of(entities[operation.entity])
        version = version_of(write.after, shape.version)
        if write.effect is Effect.NOTHING:
            done.append(Done(write.position, write.effect, None, None, version))
            continue
        at = (operation.entity, operation.key_text)
        after = shape.show(write.after)
        known = keys.get(at)
        if known is None:
            before = shape.show(write.before)
            key = shape.write_key(operation.key)
            change = change_of(shape, write, documents.raws.get(at))
            share = None if sharing is None else sharing.share_of(at, shape.collection)
            keys[at] = KeyChanges(shape, operation, key, [change], share)
        else:
            before, key = shown[at], known.key
            change = change_of(shape, write, None if write.before is None else _STANDING)
            known.changes.append(change)
        shown[at] = after
        changes.append((shape, key, change))
        done.append(Done(write.position, write.effect, before, after, version))
    ordered = tuple(done)
    try:
        record = applied_record(identity, unit, ordered, list(keys.values()))
    except (BSONError, OverflowError):
        return _unfit(store)
    if len(record) > RECORD_BYTES_MAX:
        return _too_large(store, len(record))
    return Branch(unit, ordered, list(keys.values()), changes, record)


def _unfit(store: str) -> Problem:
    return Problem(
        ErrorCode.OUT_OF_BOUNDS,
        f"A value or version would no longer fit into a document of store {store}.",
        path="operations",
    )


def _too_large(store: str, size_bytes: int) -> Problem:
    return Problem(
        ErrorCode.TOO_LARGE,
        f"What the unit touches at store {store} takes {size_bytes} bytes in its undo record; "
        f"at most {RECORD_BYTES_MAX} fit into one.",
        path="operations",
    )


def documents_by_match(found: Sequence[bytes]) -> Mapping[Hashable, bytes]:
    """Give stored documents by the `match_key` of their ``_id``."""
    return {match_key(bson.decode(raw, EXACT)[KEY_FIELD]): raw for raw in found}
