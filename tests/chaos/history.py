"""What a run leaves for its judges, as plain values: what was sent, published, stored, journaled.

Images are `normal`: amounts are `Decimal`, lists are tuples of unit ids, keys are left out. So a
row, a document and an event can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

Json = dict[str, Any]
Image = Mapping[str, Any]
Key = int | str
At = tuple[str, Key]
"""An entity and a key of it."""


@dataclass(frozen=True, slots=True)
class Add:
    """An increment of a balance."""

    entity: str
    key: Key
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Append:
    """The unit's own id at the end of a list."""

    entity: str
    key: Key


@dataclass(frozen=True, slots=True)
class Make:
    """A new row or document."""

    entity: str
    key: Key
    image: Image


Write = Add | Append | Make


@dataclass(frozen=True, slots=True)
class Sent:
    """One unit: its submission, and its writes in the order of its operations.

    ``hopeless``: it must not commit, whatever happens. ``kind`` is for the report.
    """

    id: str
    kind: str
    body: Json
    writes: tuple[Write, ...]
    key: str | None = None
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class Submission:
    """One record of the units topic."""

    unit: str
    place: str
    is_cancel: bool = False
    is_altered: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """One record of the outcomes topic; ``at`` is Kafka's timestamp in seconds."""

    ce_id: str
    body: Json
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """One record of a changes topic, in the order of its partition."""

    entity: str
    key: Key
    ce_id: str
    unit: str
    before: Image | None
    after: Image | None
    text: bytes = b""


@dataclass(frozen=True, slots=True)
class JournalUnit:
    """A row of `coordinator.units`."""

    seq: int
    status: str
    received_at: datetime
    finished_at: datetime | None
    worker: int = 0


@dataclass(frozen=True, slots=True)
class UndoRecord:
    """An undo record or tombstone in a store."""

    store: str
    unit: str
    state: str


@dataclass(frozen=True, slots=True)
class End:
    """How a daemon ended; ``killed`` by us."""

    daemon: str
    code: int
    killed: bool = False
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that was read from outside when all had come to rest."""

    start: Mapping[At, Image]
    rows: Mapping[At, Image]
    sent: Mapping[str, Sent]
    submissions: tuple[Submission, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    changes: tuple[Change, ...] = ()
    units: Mapping[str, JournalUnit] = field(default_factory=dict)
    fenced: Mapping[int, datetime] = field(default_factory=dict)
    undo: tuple[UndoRecord, ...] = ()
    left: Mapping[str, int] = field(default_factory=dict)
    ends: tuple[End, ...] = ()
    alarms: tuple[str, ...] = ()


def normal(image: Mapping[str, Any] | None) -> Image | None:
    """Make an image comparable, be it of a row, a document or an event."""
    if image is None:
        return None
    readers = {"balance": _amount, "amount": _amount, "items": _items}
    return {
        name: readers[name](value) if name in readers else value
        for name, value in image.items()
        if name not in {"id", "_id"}
    }


def after(write: Write, unit: str, before: Image | None) -> Image | None:
    """What a write makes of a row; versions go up by one. None: it cannot be done to that row."""
    if isinstance(write, Make):
        return write.image if before is None else None
    if before is None:
        return None
    later = {**before, "version": before["version"] + 1}
    if isinstance(write, Add):
        return {**later, "balance": before["balance"] + write.amount}
    return {**later, "items": (*before["items"], unit)}


def _amount(value: Any) -> Decimal:
    return Decimal(str(value))


def _items(value: Any) -> tuple[str, ...]:
    return tuple(value.split()) if isinstance(value, str) else tuple(value)
