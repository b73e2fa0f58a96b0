"""The journal's tables as plain values, and the small questions that several adapters ask.

Mirrors the files in ``coordinator/journal/migrations``: the same rows, under the same names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.domain.errors import Fenced, Problem
from coordinator.domain.lifecycle import FINAL_STATUSES, Status
from coordinator.domain.operation import Origin
from coordinator.domain.publishing import Message
from coordinator.engine.ports import Partition


@dataclass(slots=True)
class UnitRow:
    """One row of ``units``; ``plan`` is its JSON, as a restart would read it (rule 8)."""

    seq: int
    id: str
    digest: str
    status: Status
    worker: int
    mapping: str
    plan: bytes
    stores: frozenset[str]
    received_at: datetime
    deadline_at: datetime
    origin: Origin
    metadata: bytes | None
    reply_to: str | None
    traceparent: str | None
    cancel_requested: str | None = None
    cause: Problem | None = None
    problem: Problem | None = None
    outcome: bytes | None = None
    finished_at: datetime | None = None
    swept: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it still has an owner who acts on it."""
        return self.status not in FINAL_STATUSES


@dataclass(slots=True)
class WorkerRow:
    """A worker: its fence, and its lease (None once it is buried)."""

    id: int
    lanes: int
    expires_at: datetime | None
    fenced: bool = False
    fenced_at: datetime | None = None
    epoch: int = 0


@dataclass(slots=True)
class Epoch:
    """The present epoch of one worker's admissions, as the worker knows it (rule 1)."""

    number: int = 0


@dataclass(slots=True)
class ReadingRow:
    """A worker that reads a partition; ``stood_at`` is set when another one began there."""

    stood_at: int | None = None
    marked: int | None = None
    setting_aside: bool = False


@dataclass(slots=True)
class Newcomer:
    """A submission whose id was known; ``digest`` is None for a cancel of a final unit."""

    id: int
    seq: int
    digest: str | None
    origin: Origin
    metadata: bytes | None
    reply_to: str | None
    traceparent: str | None
    received_at: datetime


@dataclass(slots=True)
class RelayRow:
    """The relay's lease."""

    worker: int | None = None
    expires_at: datetime | None = None


@dataclass(slots=True)
class JournalTables:
    """The journal's database."""

    last_seq: int = 0
    mappings: dict[str, EntityMapping] = field(default_factory=dict)
    workers: dict[int, WorkerRow] = field(default_factory=dict)
    workers_drawn: int = 0
    takeovers: set[tuple[int, str]] = field(default_factory=set)
    units: dict[int, UnitRow] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    locks: dict[tuple[str, str], dict[int, bool]] = field(default_factory=dict)
    positions: dict[Partition, int] = field(default_factory=dict)
    readings: dict[Partition, dict[int, ReadingRow]] = field(default_factory=dict)
    newcomers: dict[int, Newcomer] = field(default_factory=dict)
    outbox: dict[int, tuple[Message, ...]] = field(default_factory=dict)
    aside: dict[int, tuple[str, Message]] = field(default_factory=dict)
    relay: RelayRow = field(default_factory=RelayRow)
    ids_drawn: int = 0

    def draw(self) -> int:
        """Draw the next number of an identity column."""
        self.ids_drawn += 1
        return self.ids_drawn

    def publish(self, messages: Sequence[Message]) -> None:
        """Add one row to the outbox, its number drawn last."""
        if messages:
            self.outbox[self.draw()] = tuple(messages)

    def hold_fence(self, worker: int) -> None:
        """Refuse for good once the worker is fenced (rule 3, I9)."""
        row = self.workers.get(worker)
        if row is None or row.fenced:
            raise Fenced("another worker has taken over this one's units")

    def open_units(self, worker: int) -> Iterator[UnitRow]:
        """Give a worker's open units in the order of admission."""
        for row in self.units.values():
            if row.worker == worker and row.is_open:
                yield row

    def waits_elsewhere(
        self, worker: int, seq: int, keys: Sequence[tuple[tuple[str, str], bool]]
    ) -> bool:
        """Whether an earlier unit of another worker holds any of these keys; (key, exclusive)."""
        return any(
            other < seq and (exclusive or is_exclusive) and self.units[other].worker != worker
            for key, exclusive in keys
            for other, is_exclusive in self.locks.get(key, {}).items()
        )

    def release_locks(self, seq: int) -> None:
        """Drop a unit's locks."""
        for key, requests in list(self.locks.items()):
            if requests.pop(seq, None) is not None and not requests:
                del self.locks[key]
