"""Batches for the journal's admission, built from operations: no Kafka, no parsing.

`arrival` makes a submission that was read at a place in a topic, `batch` puts arrivals and
cancels together and moves their partitions on from where the journal is thought to stand.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coordinator.domain.entity import FieldType, StoreKind
from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.domain.operation import Operation, Origin
from coordinator.domain.plan import make_plan
from coordinator.domain.publishing import Message
from coordinator.domain.submission import Submission
from coordinator.engine.ports import AdmissionBatch, Arrival, CancelArrival, Move, Partition
from tests.units import entity, mapping, unit

TOPIC = "units"
SHOP = mapping(
    entity("account", {"id": FieldType.INTEGER, "balance": FieldType.INTEGER}, table="accounts"),
    entity(
        "order",
        {"_id": FieldType.STRING, "total": FieldType.INTEGER},
        store="catalog",
        kind=StoreKind.MONGODB,
        table="orders",
        key="_id",
    ),
)

_offsets = itertools.count(100)


def arrival(
    unit_id: str,
    *operations: Operation,
    on: EntityMapping = SHOP,
    partition: int = 0,
    offset: int | None = None,
    timeout_ms: int = 30_000,
    digest: str | None = None,
    **parts: Any,
) -> Arrival:
    """Make a submission of the operations; its digest follows from them unless it is given."""
    plan = make_plan(on, unit(on, *operations, seq=0).plan.operations)
    content = digest or hashlib.sha256(repr(operations).encode()).hexdigest()
    given: dict[str, Any] = {"metadata": None, "reply_to": None, "traceparent": None, **parts}
    at = next(_offsets) if offset is None else offset
    return Arrival(
        Submission(unit_id, content, plan, timeout_ms, **given), Origin(TOPIC, partition, at)
    )


def cancel(
    unit_id: str,
    *,
    after: int = 0,
    reason: str | None = None,
    partition: int = 0,
    reply_to: str | None = None,
    topics: Iterable[str] | None = None,
) -> CancelArrival:
    """Make a cancel that stands behind so many arrivals of its batch."""
    origin = Origin(TOPIC, partition, next(_offsets))
    may_end = None if topics is None else frozenset(topics)
    return CancelArrival(unit_id, reason, reply_to, after, origin, may_end)


def batch(
    *records: Arrival | CancelArrival,
    expected: Mapping[int, int | None] | None = None,
    answers: Mapping[int, Sequence[Message]] | None = None,
) -> AdmissionBatch:
    """Put records together. ``expected`` is where each partition is thought to stand."""
    known, said = expected or {}, answers or {}
    moves: dict[Partition, Move] = {}
    for number in {*known, *said}:
        moves[TOPIC, number] = Move(
            (TOPIC, number), known.get(number), 1, tuple(said.get(number, ()))
        )
    for record in records:
        at = (record.origin.topic, record.origin.partition)
        number = record.origin.partition
        moves[at] = Move(
            at, known.get(number), record.origin.offset + 1, tuple(said.get(number, ()))
        )
    return AdmissionBatch(
        tuple(moves[at] for at in sorted(moves)),
        tuple(each for each in records if isinstance(each, Arrival)),
        tuple(each for each in records if isinstance(each, CancelArrival)),
    )
