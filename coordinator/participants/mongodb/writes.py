"""Which statements bring a batch's writes about.

Pure. A batch is written in one of two ways. *Grouped*: one net write per key, and per collection
all deletions, then all updates, then all insertions, each in one statement. That is what happens
nearly always. *In order*: every operation by itself, in the order of admission and plan, as few
statements as that allows. It is what happens after a violation, because only then is it sure that
the unit whose write failed is to blame, and not one whose turn came later (rule 9, F14).

Refuses pipelines and operators other than ``$set`` and ``$unset``: values never get a meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

from bson.raw_bson import RawBSONDocument
from bson.regex import Regex

from coordinator.participants.mongodb.driver import Command

_STATEMENT_BYTES_MAX: Final = 12 * 1024 * 1024
_STATEMENT_WRITES_MAX: Final = 50_000


class WriteKind(Enum):
    """The three write commands: (the command's name, its list, its place in a group)."""

    DELETE = ("delete", "deletes", 0)
    UPDATE = ("update", "updates", 1)
    INSERT = ("insert", "documents", 2)


class DocumentWrite(NamedTuple):
    """One write of one document (a tuple: one is made per key).

    ``size_bytes`` is an upper bound of what it takes. ``position`` is that of the operation in the
    plan of the unit ``seq``.
    """

    seq: int
    position: int
    collection: str
    kind: WriteKind
    body: Mapping[str, Any]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Statement:
    """One command, and the writes that its ``writeErrors`` count by."""

    collection: str
    kind: WriteKind
    writes: Sequence[DocumentWrite]

    def command(self) -> Command:
        """Give the command; it stops at the first write that fails."""
        name, plural, _ = self.kind.value
        return {
            name: self.collection,
            plural: [write.body for write in self.writes],
            "ordered": True,
        }


def grouped(writes: Iterable[DocumentWrite]) -> Iterator[Statement]:
    """Give the statements of net writes; each key must occur at most once per kind."""
    groups: dict[tuple[str, WriteKind], list[DocumentWrite]] = {}
    group: list[DocumentWrite] = []
    for write in writes:
        # Mostly it is where the last one went; hashing an enum member is slow.
        if not group or write.collection != group[0].collection or write.kind is not group[0].kind:
            group = groups.setdefault((write.collection, write.kind), [])
        group.append(write)
    for (collection, kind), group in sorted(groups.items(), key=_group_order):
        for part in _parts(group):
            yield Statement(collection, kind, part)


def in_order(writes: Iterable[DocumentWrite]) -> Iterator[Statement]:
    """Give the statements that do exactly these writes in exactly this order."""
    run: list[DocumentWrite] = []
    for write in writes:
        if run and (run[0].collection, run[0].kind) != (write.collection, write.kind):
            yield from (Statement(run[0].collection, run[0].kind, part) for part in _parts(run))
            run = []
        run.append(write)
    if run:
        yield from (Statement(run[0].collection, run[0].kind, part) for part in _parts(run))


def by_key(key: Any) -> dict[str, Any]:
    """Give the condition for one document.

    Keys are scalars, and for a scalar that stands there plainly the server has a shorter way: with
    ``$eq`` it plans a query for every update.
    """
    return {"_id": {"$eq": key} if isinstance(key, dict | list | Regex) else key}


def update_body(key: Any, assigned: Mapping[str, Any], unset: Sequence[str]) -> dict[str, Any]:
    """Give an update of some fields. Refuses to be empty: that would empty the document."""
    change: dict[str, Any] = {}
    if assigned:
        change["$set"] = assigned
    if unset:
        change["$unset"] = dict.fromkeys(unset, "")
    if not change:
        raise ValueError("an update that changes nothing")
    return {"q": by_key(key), "u": change}


def replacement_body(key: Any, document: bytes | Mapping[str, Any]) -> dict[str, Any]:
    """Give the replacement of a whole document."""
    return {"q": by_key(key), "u": document_body(document)}


def deletion_body(key: Any) -> dict[str, Any]:
    """Give the deletion of a document."""
    return {"q": by_key(key), "limit": 1}


def document_body(document: bytes | Mapping[str, Any]) -> Mapping[str, Any]:
    """Give a document to insert or to put in another's place."""
    return RawBSONDocument(document) if isinstance(document, bytes) else document


def _group_order(group: tuple[tuple[str, WriteKind], list[DocumentWrite]]) -> tuple[int, str]:
    (collection, kind), _ = group
    return kind.value[2], collection


def _parts(writes: Sequence[DocumentWrite]) -> Iterator[Sequence[DocumentWrite]]:
    if (
        len(writes) <= _STATEMENT_WRITES_MAX
        and sum(write.size_bytes for write in writes) <= _STATEMENT_BYTES_MAX
    ):
        yield writes
        return
    part: list[DocumentWrite] = []
    size_bytes = 0
    for write in writes:
        if part and (
            size_bytes + write.size_bytes > _STATEMENT_BYTES_MAX
            or len(part) == _STATEMENT_WRITES_MAX
        ):
            yield part
            part, size_bytes = [], 0
        part.append(write)
        size_bytes += write.size_bytes
    if part:
        yield part
