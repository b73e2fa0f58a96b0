"""Admission and intake positions: one statement, one transaction per batch (I1).

The statement is the function ``coordinator.admit`` of the migrations, called with arrays.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Any

from coordinator import postgres_pool
from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.domain.operation import Unit
from coordinator.domain.plan_json import plan_as_json
from coordinator.engine.ports import AdmissionBatch, Admitted, CancelArrival, Partition
from coordinator.fault_points import FaultPoint, reach
from coordinator.journal.epoch import Epoch
from coordinator.journal.packing import pack
from coordinator.journal.session import reading, single_statement

_LOCK_KEY_LENGTH_MAX = 500
_REASON_LENGTH_MAX = 500
# One number or truth per unit or lock travels as the text of an array (see `_array`).
_AS_TEXT = {9: "int[]", 10: "bigint[]", 13: "bigint[]", 19: "int[]", 22: "boolean[]"}
_PARAMETERS = ", ".join(
    f"${at}::text::{_AS_TEXT[at]}" if at in _AS_TEXT else f"${at}" for at in range(1, 29)
)
_ADMIT = f"SELECT * FROM coordinator.admit({_PARAMETERS})"
_ADMIT_BOUNDED = f"SELECT * FROM coordinator.admit_bounded({_PARAMETERS}, $29)"


class JournalAdmission:
    """Journals batches of records for one worker."""

    def __init__(
        self, pool: postgres_pool.Pool, worker: int, pivot_store: str | None, epoch: Epoch
    ) -> None:
        self._pool = pool
        self._worker = worker
        self._epoch = epoch
        self._pivot_store = pivot_store

    async def positions(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """Read the next offsets; a partition never read before is missing."""
        wanted = list(partitions)
        async with reading(self._pool) as connection:
            rows = await connection.fetch(
                "SELECT p.topic, p.partition, p.next_offset FROM coordinator.positions p"
                " JOIN unnest($1::text[], $2::int[]) AS w(topic, partition)"
                " ON w.topic = p.topic AND w.partition = p.partition",
                [topic for topic, _ in wanted],
                [number for _, number in wanted],
            )
        return {(row["topic"], row["partition"]): row["next_offset"] for row in rows}

    async def admit(self, batch: AdmissionBatch, mapping: EntityMapping) -> Admitted:
        """Journal a batch; see `coordinator.engine.ports.Journal.admit`."""
        arguments = self._arguments(batch, mapping)
        statement = _ADMIT
        if any(each.topics is not None for each in batch.cancels):
            statement = _ADMIT_BOUNDED
            arguments += ([_topics(each) for each in batch.cancels],)
        reach(FaultPoint.ADMIT_BEFORE)
        async with single_statement(self._pool) as connection:
            row = await connection.fetchrow(statement, *arguments)
        reach(FaultPoint.ADMIT_AFTER)
        return _admitted(batch, mapping, row)

    def _arguments(self, batch: AdmissionBatch, mapping: EntityMapping) -> tuple[Any, ...]:
        moves, arrivals, cancels = batch.moves, batch.arrivals, batch.cancels
        at = {move.partition: number for number, move in enumerate(moves, 1)}
        submissions = [arrival.submission for arrival in arrivals]
        locks = [
            (number, lock)
            for number, submission in enumerate(submissions, 1)
            for lock in submission.plan.locks
        ]
        return (
            self._worker,
            self._epoch.number,
            mapping.fingerprint,
            [move.partition[0] for move in moves],
            [move.partition[1] for move in moves],
            [move.expected for move in moves],
            [move.next_offset for move in moves],
            [pack(move.answers) if move.answers else None for move in moves],
            _array([at[each.origin.topic, each.origin.partition] for each in arrivals]),
            _array([each.origin.offset for each in arrivals]),
            [each.id for each in submissions],
            [each.digest for each in submissions],
            _array([each.timeout_ms for each in submissions]),
            [plan_as_json(each.plan) for each in submissions],
            [
                ",".join(name for name in each.plan.branches if name != self._pivot_store)
                for each in submissions
            ],
            _sparse([each.metadata for each in submissions]),
            _sparse([each.reply_to for each in submissions]),
            _sparse([each.traceparent for each in submissions]),
            _array([number for number, _ in locks]),
            [lock.entity for _, lock in locks],
            [lock_key(lock.key_text) for _, lock in locks],
            _array([lock.exclusive for _, lock in locks]),
            [at[each.origin.topic, each.origin.partition] for each in cancels],
            [each.after for each in cancels],
            [each.origin.offset for each in cancels],
            [each.unit_id for each in cancels],
            [None if each.reason is None else _storable(each.reason) for each in cancels],
            [each.reply_to for each in cancels],
        )


def _topics(cancel: CancelArrival) -> str | None:
    """The topics that a cancel may speak for; topics hold no commas."""
    return None if cancel.topics is None else ",".join(sorted(cancel.topics))


def _array(values: Sequence[int]) -> str:
    """Give numbers as the text of an array: the driver asks each element what it is, at a price."""
    return "{" + ",".join(map(str, values)) + "}"


def _sparse(values: Sequence[str | bytes | None]) -> Sequence[str | bytes | None]:
    """Give no values where all are null: ``unnest`` fills up what is shorter with nulls."""
    return [] if values.count(None) == len(values) else values


def lock_key(key_text: str) -> str:
    """Give the key by which a lock is stored: a long one by its hash, as an index has a limit."""
    if len(key_text) <= _LOCK_KEY_LENGTH_MAX:
        return key_text
    return "sha256:" + sha256(key_text.encode()).hexdigest()


def _storable(reason: str) -> str:
    """A reason as PostgreSQL's text can hold it: bounded, and without NUL (I10)."""
    return reason[:_REASON_LENGTH_MAX].replace("\0", "\ufffd")


def _admitted(batch: AdmissionBatch, mapping: EntityMapping, row: Mapping[str, Any]) -> Admitted:
    at = row["admitted_at"]
    base = row["base"]
    units = []
    for number in row["admitted"] or ():
        arrival = batch.arrivals[number - 1]
        submission = arrival.submission
        units.append(
            Unit(
                seq=base + number,
                id=submission.id,
                digest=submission.digest,
                plan=submission.plan,
                mapping=mapping,
                received_at=at,
                deadline_at=at + timedelta(milliseconds=submission.timeout_ms),
                metadata=submission.metadata,
                reply_to=submission.reply_to,
                traceparent=submission.traceparent,
                origin=arrival.origin,
                size_bytes=arrival.size_bytes,
            )
        )
    return Admitted(
        at=at,
        lost=frozenset(batch.moves[number - 1].partition for number in row["lost"] or ()),
        units=tuple(units),
        elsewhere=frozenset(base + number for number in row["foreign_waits"] or ()),
        newcomers=row["newcomers"] or 0,
        cancelled=tuple(row["cancelled"] or ()),
        ignored=tuple(row["cancel_ignored"] or ()),
        unknown=tuple(row["cancel_unknown"] or ()),
        forbidden=tuple(batch.cancels[at - 1] for at in row.get("cancel_forbidden") or ()),
    )
