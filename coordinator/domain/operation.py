"""Operations, plans and units as frozen values: what was asked, in the order it will be done.

Most are tuples, because one of each is made for every operation of every unit.

Domain values by field type: string ``str`` · integer ``int`` · decimal ``Decimal`` · float
``float`` · boolean ``bool`` · timestamp aware UTC ``datetime`` · date ``date`` · uuid ``UUID`` ·
binary ``bytes`` · json `coordinator.domain.values.JsonText` · objectid 24 lower-case hex ``str``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from coordinator.domain import entity as entities


class OperationKind(StrEnum):
    """What one operation asks for."""

    __hash__ = str.__hash__  # Enum hashes in Python, and these are looked up for every value

    INSERT = "insert"
    UPDATE = "update"
    UPSERT = "upsert"
    DELETE = "delete"
    CHECK = "check"


class Comparison(StrEnum):
    """The operators of ``expect`` (F22)."""

    __hash__ = str.__hash__  # Enum hashes in Python, and these are looked up for every value

    EQ = "eq"
    NE = "ne"
    LT = "lt"
    LTE = "lte"
    GT = "gt"
    GTE = "gte"
    IN = "in"


class Condition(NamedTuple):
    """``field comparison operand``; the operand of ``in`` is a tuple. ``None`` is null (F22)."""

    field: str
    comparison: Comparison
    operand: Any


@dataclass(frozen=True, slots=True)
class Operation:
    """One validated operation: typed values, generated keys and defaults filled in, refs resolved.

    ``index`` is the submitted position. ``key_text`` is the key as canonical JSON (``42``,
    ``"o-77"``): the lock's key and the event's key. ``set`` holds an insert's or upsert's values
    (with an insert's defaults; never the key field or the version) or an update's ``set``.
    ``defaults`` holds an upsert's defaults, used only when it creates. ``compensate`` is the
    sender's own undo (F25).
    """

    index: int
    kind: OperationKind
    entity: str
    key: Any
    key_text: str
    set: Mapping[str, Any]
    unset: tuple[str, ...] = ()
    increment: Mapping[str, Any] | None = None
    expect: tuple[Condition, ...] = ()
    ignore_missing: bool = False
    absent: bool = False
    defaults: Mapping[str, Any] | None = None
    compensate: Operation | None = None

    @property
    def writes(self) -> bool:
        """Whether it may change anything: all but checks."""
        return self.kind is not OperationKind.CHECK


class LockRequest(NamedTuple):
    """A claim on one entity key, exclusive for writes, shared for checks and references (F15).

    ``increment``: exclusive, but shared with other such claims within a batch, because all that
    the unit does to the key is count it up and down (see `coordinator.domain.sharing`).
    """

    entity: str
    key_text: str
    exclusive: bool
    increment: bool = False


class Plan(NamedTuple):
    """The operations in the order of their execution, which is the events' ``total_order`` (F13).

    ``branches`` maps a store to the positions (indexes into ``operations``) that act there.
    """

    operations: tuple[Operation, ...]
    branches: Mapping[str, tuple[int, ...]]
    locks: tuple[LockRequest, ...]


class Origin(NamedTuple):
    """Where in Kafka a record came from."""

    topic: str
    partition: int
    offset: int


OPERATION_BYTES = 1024
"""What the objects of one operation take beside its values, rounded up (measured: 550)."""


class Unit(NamedTuple):
    """An admitted unit: its intent is durable. ``seq`` is its place in the order of admission.

    Times are the journal's clock. ``metadata`` is JSON text, ``digest`` hex SHA-256 (F3),
    ``size_bytes`` the length of its submission, or of its plan where it was read back.
    """

    seq: int
    id: str
    digest: str
    plan: Plan
    mapping: entities.Mapping
    received_at: datetime
    deadline_at: datetime
    metadata: bytes | None
    reply_to: str | None
    traceparent: str | None
    origin: Origin
    size_bytes: int = 0

    @property
    def weight_bytes(self) -> int:
        """About what it takes in memory while it is open, and rather more than less (I12)."""
        return self.size_bytes + OPERATION_BYTES * len(self.plan.operations)

    def branch(self, store: str) -> list[tuple[int, Operation]]:
        """Give this unit's (position, operation) pairs at one store, in plan order."""
        operations = self.plan.operations
        return [(at, operations[at]) for at in self.plan.branches.get(store, ())]
