"""Shared keys: what several units of a batch do to one document, and how each is taken out again.

Pure, but for `ShareDocuments` at the end. The sharers of a key (see `coordinator.domain.sharing`)
are applied with one write for all of them; their undo records are those of any unit, as if they
had been written one after the other. Beside these one *share* per key is kept, a document in
``_coordinator_shares``: how the counters were before all of them, and what each has added. An undo
of one of them goes by the share instead of the document that its record tells, because the
others have written since; so the version that we left is known as well (F28). Whoever runs again
is told with the images that follow from the share, the deltas of the undone left out.

A share belongs to the units of one transaction. The next ones on that key come when all of those
have ended, and put their own in its place.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Final

import bson
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument

from coordinator.domain.decide import Effect, ImageKey, Write
from coordinator.domain.entity import FieldType
from coordinator.domain.errors import InvariantViolated
from coordinator.domain.operation import Unit
from coordinator.domain.publishing import Done
from coordinator.domain.sharing import (
    Escrow,
    Line,
    Member,
    Share,
    images_of,
    member_of,
    shared_operations,
)
from coordinator.participants.mongodb.bookkeeping import SHARES
from coordinator.participants.mongodb.bson_values import READERS, WRITERS
from coordinator.participants.mongodb.changes import net, write_of
from coordinator.participants.mongodb.elements import (
    EXACT,
    Elements,
    document_of,
    elements_from,
    elements_of,
    values_of,
)
from coordinator.participants.mongodb.errors import of_reply
from coordinator.participants.mongodb.images import shape_of, version_of
from coordinator.participants.mongodb.transactions import Transaction
from coordinator.participants.mongodb.undo_record import KeyChanges, KeyUndo
from coordinator.participants.mongodb.writes import DocumentWrite

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class KeyShare:
    """The share of one key, as elements: ``base`` holds counters and version as they were."""

    id: str
    names: Mapping[str, Any]
    base: Elements
    types: Mapping[str, FieldType]
    share: Share

    @property
    def version_field(self) -> str | None:
        """The field that holds the version, where the entity has one."""
        name: str | None = self.names["version_field"]
        return name

    def counter(self, name: str) -> bytes | None:
        """Give a counter as the members' writes have left it."""
        if any(name in member.deltas for member in self.share.members):
            return elements_from({"v": WRITERS[self.types[name]](self.share.value(name))})["v"]
        return self.base.get(name)

    def version(self) -> bytes | None:
        """Give the version that we left; ``None`` where there was none before us."""
        left = self.share.version_left()
        if left is None or not (self.share.members or self.share.drift):
            return self.base.get(self.version_field or "")
        return elements_from({"v": Int64(left)})["v"]

    def without(self, seq: int, version: int | None = None) -> KeyShare:
        """Give what is left without one member; ``version`` is that which we leave instead."""
        share = self.share.without(seq)
        if version is not None:
            share = share._replace(drift=version - share.version_before(None))
        return replace(self, share=share)

    def document(self) -> dict[str, Any]:
        """Give the document to keep."""
        share = self.share
        return {
            "_id": self.id,
            "format": FORMAT,
            **self.names,
            "base": RawBSONDocument(document_of(self.base)),
            "types": {name: of.value for name, of in self.types.items()},
            "drift": Int64(share.drift),
            "members": [
                {
                    "seq": Int64(each.seq),
                    "unit": each.unit,
                    "writes": each.writes,
                    "deltas": {name: str(delta) for name, delta in each.deltas.items()},
                    "parked": each.parked,
                }
                for each in share.members
            ],
            "last": share.members[-1].unit,
        }


_NAMES: Final = ("journal", "entity", "collection", "key", "version_field")


def read_share(raw: bytes) -> KeyShare:
    """Read a share's document."""
    document = bson.decode(raw, EXACT)
    if document["format"] != FORMAT:
        raise InvariantViolated(
            f"a share has format {document['format']!r}, and this program reads {FORMAT}"
        )
    types = {name: FieldType(of) for name, of in document["types"].items()}
    base = elements_of(elements_of(raw)["base"][1:])
    stored = values_of(base)
    version_field = document["version_field"]
    version = None
    if version_field is not None:
        held = stored.get(version_field)
        version = 0 if held is None else READERS[FieldType.INTEGER](held)
    return KeyShare(
        document["_id"],
        {name: document[name] for name in _NAMES},
        base,
        types,
        Share(
            {name: READERS[of](stored[name]) for name, of in types.items()},
            version,
            tuple(
                Member(
                    int(each["seq"]),
                    each["unit"],
                    {
                        name: Decimal(text) if types[name] is FieldType.DECIMAL else int(text)
                        for name, text in each["deltas"].items()
                    },
                    int(each["writes"]),
                    each["parked"],
                )
                for each in document["members"]
            ),
            int(document["drift"]),
            version_field is not None and stored.get(version_field) is None,
        ),
    )


def share_id(journal_id: str, collection: str, key_text: str) -> str:
    """Give the ``_id`` of a key's share."""
    return f"{journal_id}/{collection}/{key_text}"


# --- forward ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Sharing:
    """The sharers of a batch while they are decided; ``behind`` are those that have to wait."""

    line: Line
    store: str
    journal_id: str
    escrow: Escrow = field(init=False)
    behind: set[int] = field(default_factory=set)
    _bases: dict[ImageKey, Elements] = field(default_factory=dict)
    _standing: dict[ImageKey, Elements] = field(default_factory=dict)
    _changes: dict[ImageKey, list[KeyChanges]] = field(default_factory=dict)
    _members: dict[ImageKey, list[Member]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.escrow = Escrow(self.line)

    def stays(self, unit: Unit) -> None:
        """Leave a unit behind, and with it those behind it."""
        self.line.stop(unit)
        self.behind.add(unit.seq)

    def share_of(self, at: ImageKey, collection: str) -> str | None:
        """Give the id of a key's share, if it is shared."""
        return share_id(self.journal_id, collection, at[1]) if at in self.line.keys else None

    def passed(
        self,
        unit: Unit,
        keys: Sequence[KeyChanges],
        writes: Sequence[Write],
        raws: dict[ImageKey, bytes],
    ) -> Iterator[tuple[ImageKey, Any]]:
        """Take note of a unit that passes; give the images that the next ones see."""
        for key in keys:
            at = (key.operation.entity, key.operation.key_text)
            if key.share is None:
                continue
            standing = self._standing.get(at)
            if standing is None:
                standing = self._bases[at] = elements_of(raws[at])
            for change in key.changes:
                standing = {**standing, **elements_from(change.assigned)}
            self._standing[at] = standing
            raws[at] = document_of(standing)
            self._changes.setdefault(at, []).append(key)
            operations = shared_operations(unit, self.store, {at})[at]
            self._members.setdefault(at, []).append(member_of(unit, (o for _, o in operations)))
        for write in writes:
            at = (write.operation.entity, write.operation.key_text)
            if at in self._standing:
                yield at, write.after

    def net_writes(self) -> Iterator[DocumentWrite]:
        """Give one write per shared key, for all of its sharers."""
        for at, keys in self._changes.items():
            shape, last = keys[-1].shape, self._members[at][-1]
            change = net([change for key in keys for change in key.changes])
            size_bytes = len(document_of(self._standing[at]))
            write = write_of(last.seq, shape, keys[-1].key, change, size_bytes)
            if write is not None:
                yield write

    def shares(self) -> Iterator[KeyShare]:
        """Give what is to be remembered of each shared key."""
        for at, members in self._members.items():
            key = self._changes[at][0]
            shape, base = key.shape, self._bases[at]
            names = list(dict.fromkeys(name for member in members for name in member.deltas))
            kept = [*names, *([] if shape.version is None else [shape.version])]
            stored = {name: base[name] for name in kept if name in base}
            image = shape.image(values_of(stored))
            yield KeyShare(
                share_id(self.journal_id, shape.collection, at[1]),
                {
                    "journal": self.journal_id,
                    "entity": at[0],
                    "collection": shape.collection,
                    "key": key.key,
                    "version_field": shape.version,
                },
                stored,
                {name: shape.entity.fields[name].type for name in names},
                Share.begin(image, shape.version, members),
            )


def done_again(unit: Unit, key: KeyUndo, share: KeyShare, done: Sequence[Done]) -> tuple[Done, ...]:
    """Tell a sharer that was found applied, without those that have been undone since."""
    step = key.steps[0]
    if share.share.member(unit.seq) is None or step.before_raw is None:
        return tuple(done)
    operation = unit.plan.operations[step.position]
    shape = shape_of(unit.mapping.entities[operation.entity])
    at = (operation.entity, operation.key_text)
    operations = [
        (position, each)
        for position, each in enumerate(unit.plan.operations)
        if (each.entity, each.key_text) == at
    ]
    image = shape.image(values_of(elements_of(step.before_raw)))
    seen = {
        position: Done(
            position,
            Effect.UPDATED,
            shape.show(before),
            shape.show(after),
            version_of(after, shape.version),
        )
        for position, before, after in images_of(
            share.share, unit.seq, shape.version, image, operations
        )
    }
    return tuple(seen.get(each.position, each) for each in done)


def settled(key: KeyShare, raw: bytes | None, open_seqs: frozenset[int]) -> KeyShare:
    """Leave out the members that a person has ended by hand; ``raw`` is the document as it is."""
    held = None if raw is None else elements_of(raw).get(key.version_field or "")
    version = None if held is None else READERS[FieldType.INTEGER](values_of({"v": held})["v"])
    return replace(
        key,
        share=key.share.settled(open_seqs, version if isinstance(version, int) else None),
    )


# --- kept ---------------------------------------------------------------------------------------


class ShareDocuments:
    """The shares of one journal in one store, inside a transaction of the caller's."""

    def __init__(self, store: str) -> None:
        self._store = store

    async def find(self, transaction: Transaction, ids: Collection[str]) -> dict[str, KeyShare]:
        """Read shares by their ids."""
        if not ids:
            return {}
        found = await transaction.find(SHARES, {"_id": {"$in": list(ids)}})
        return {each.id: each for each in map(read_share, found)}

    def keep(self, transaction: Transaction, shares: Sequence[KeyShare]) -> None:
        """Let shares be written as they are now; those without members go."""
        updates = [
            {"q": {"_id": each.id}, "u": each.document(), "upsert": True}
            for each in shares
            if each.share.members
        ]
        gone = [{"q": {"_id": each.id}, "limit": 1} for each in shares if not each.share.members]
        if updates:
            transaction.later({"update": SHARES, "updates": updates}, self._check)
        if gone:
            transaction.later({"delete": SHARES, "deletes": gone}, self._check)

    def sweep(self, transaction: Transaction, unit_ids: Sequence[str]) -> None:
        """Let the shares go of units that are final for long: the last member is final last."""
        deletion = {"q": {"last": {"$in": list(unit_ids)}}, "limit": 0}
        transaction.later({"delete": SHARES, "deletes": [deletion]}, self._check)

    def _check(self, reply: Mapping[str, Any]) -> None:
        if reply.get("writeErrors"):
            raise of_reply(self._store, reply)
