"""Admission in memory: intents, locks, positions, cancels and answers, in one step (I1).

Mirrors the functions ``coordinator.admit`` and ``coordinator.cancel_known`` of the migrations.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial

from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.domain.errors import StoreBusy
from coordinator.domain.lifecycle import FINAL_STATUSES, Status
from coordinator.domain.operation import Unit
from coordinator.domain.plan_json import plan_as_json
from coordinator.engine.ports import (
    JOURNAL,
    AdmissionBatch,
    Admitted,
    Arrival,
    CancelArrival,
    Partition,
)
from coordinator.memory.journal_tables import Epoch, Newcomer, UnitRow
from coordinator.memory.link import Link, fence_of
from coordinator.memory.world import World


class MemoryAdmission:
    """Journals batches of records for one worker."""

    def __init__(self, world: World, worker: int, link: Link, epoch: Epoch) -> None:
        self._epoch = epoch
        self._world = world
        self._journal = world.journal
        self._worker = worker
        self._link = link

    async def positions(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """Read the next offsets; a partition never read before is missing."""
        return await self._link.read(JOURNAL, "positions", partial(self._positions, partitions))

    def _positions(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        held = self._journal.positions
        return {each: held[each] for each in partitions if each in held}

    async def admit(self, batch: AdmissionBatch, mapping: EntityMapping) -> Admitted:
        """Journal a batch; see `coordinator.engine.ports.Journal.admit`."""
        step = partial(self._admit, batch, mapping, self._epoch.number)
        return await self._link.call(JOURNAL, "admit", step, shared={fence_of(self._worker)})

    def _admit(self, batch: AdmissionBatch, mapping: EntityMapping, epoch: int) -> Admitted:
        journal = self._journal
        journal.hold_fence(self._worker)
        self._in_its_time(epoch)
        at = self._world.now()
        kept, lost = self._move(batch)
        base = journal.last_seq
        journal.last_seq += len(batch.arrivals)
        units: list[Unit] = []
        newcomers = 0
        for number, arrival in enumerate(batch.arrivals, 1):
            if (arrival.origin.topic, arrival.origin.partition) not in kept:
                continue
            known = journal.ids.get(arrival.submission.id)
            if known is None:
                units.append(self._insert(base + number, arrival, mapping, at))
            else:
                newcomers += 1
                self._remember(known, arrival, at)
        elsewhere = frozenset(unit.seq for unit in units if self._request_locks(unit))
        asked = [
            each for each in batch.cancels if (each.origin.topic, each.origin.partition) in kept
        ]
        cancels = [each for each in asked if self._may_end(each, base)]
        cancelled = self._mark(cancels, base)
        self._world.witness.changed(JOURNAL, self._worker, "admit")
        return Admitted(
            at=at,
            lost=lost,
            units=tuple(units),
            elsewhere=elsewhere,
            newcomers=newcomers,
            cancelled=cancelled,
            ignored=self._answer_cancels(cancels, base, at),
            unknown=tuple(sorted({e.unit_id for e in cancels if self._row(e, base) is None})),
            forbidden=tuple(each for each in asked if each not in cancels),
        )

    def _in_its_time(self, epoch: int) -> None:
        """Refuse a call that the worker has given up and looked behind since (I11)."""
        if self._journal.workers[self._worker].epoch != epoch:
            raise StoreBusy(JOURNAL, "an admission came after its time")

    def _move(self, batch: AdmissionBatch) -> tuple[set[Partition], frozenset[Partition]]:
        kept: set[Partition] = set()
        lost: set[Partition] = set()
        for move in batch.moves:
            if self._may_move(move.partition, move.expected):
                self._journal.positions[move.partition] = move.next_offset
                self._journal.publish(move.answers)
                kept.add(move.partition)
            else:
                lost.add(move.partition)
        return kept, frozenset(lost)

    def _may_move(self, partition: Partition, expected: int | None) -> bool:
        """The compare of the compare-and-set on a position."""
        return self._journal.positions.get(partition) == expected

    def _insert(self, seq: int, arrival: Arrival, mapping: EntityMapping, at: datetime) -> Unit:
        submission = arrival.submission
        row = UnitRow(
            seq=seq,
            id=submission.id,
            digest=submission.digest,
            status=Status.ACCEPTED,
            worker=self._worker,
            mapping=mapping.fingerprint,
            plan=plan_as_json(submission.plan),
            stores=frozenset(submission.plan.branches) - {self._world.pivot_store or ""},
            received_at=at,
            deadline_at=at + timedelta(milliseconds=submission.timeout_ms),
            origin=arrival.origin,
            metadata=submission.metadata,
            reply_to=submission.reply_to,
            traceparent=submission.traceparent,
        )
        self._journal.units[seq] = row
        self._journal.ids[row.id] = seq
        self._world.witness.decided(seq, None, Status.ACCEPTED)
        return Unit(
            seq=seq,
            id=row.id,
            digest=row.digest,
            plan=submission.plan,
            mapping=mapping,
            received_at=at,
            deadline_at=row.deadline_at,
            metadata=row.metadata,
            reply_to=row.reply_to,
            traceparent=row.traceparent,
            origin=row.origin,
            size_bytes=arrival.size_bytes,
        )

    def _request_locks(self, unit: Unit) -> bool:
        """Queue a unit's lock requests; whether one of another worker's units is before them."""
        keys = [((each.entity, each.key_text), each.exclusive) for each in unit.plan.locks]
        for key, exclusive in keys:
            self._journal.locks.setdefault(key, {})[unit.seq] = exclusive
        return self._journal.waits_elsewhere(self._worker, unit.seq, keys)

    def _remember(self, seq: int, arrival: Arrival, at: datetime) -> None:
        submission = arrival.submission
        self._journal_newcomer(
            Newcomer(
                self._journal.draw(),
                seq,
                submission.digest,
                arrival.origin,
                submission.metadata,
                submission.reply_to,
                submission.traceparent,
                at,
            )
        )

    def _journal_newcomer(self, newcomer: Newcomer) -> None:
        """Remember durably who is to be answered (F4)."""
        self._journal.newcomers[newcomer.id] = newcomer

    # --- cancels (F8) -------------------------------------------------------------------------

    def _row(self, cancel: CancelArrival, base: int) -> UnitRow | None:
        seq = self._journal.ids.get(cancel.unit_id)
        if seq is None or seq > base + cancel.after:
            return None
        return self._journal.units[seq]

    def _may_end(self, cancel: CancelArrival, base: int) -> bool:
        """Whether the unit is of a topic that the cancel may speak for, or unknown."""
        row = self._row(cancel, base)
        return row is None or cancel.topics is None or row.origin.topic in cancel.topics

    def _mark(self, cancels: Sequence[CancelArrival], base: int) -> tuple[int, ...]:
        marked = []
        for cancel in {each.unit_id: each for each in cancels}.values():
            row = self._row(cancel, base)
            if row is None or row.status is not Status.ACCEPTED:
                continue
            if row.cancel_requested is None:
                row.cancel_requested = cancel.reason or ""
                if row.worker == self._worker:
                    marked.append(row.seq)
        return tuple(marked)

    def _answer_cancels(
        self, cancels: Sequence[CancelArrival], base: int, at: datetime
    ) -> tuple[str, ...]:
        ignored = set()
        for cancel in cancels:
            row = self._row(cancel, base)
            if row is None or row.status is Status.ACCEPTED:
                continue
            if row.status in FINAL_STATUSES:
                number = self._journal.draw()
                self._journal_newcomer(
                    Newcomer(number, row.seq, None, cancel.origin, None, cancel.reply_to, None, at)
                )
            else:
                ignored.add(cancel.unit_id)
        return tuple(sorted(ignored))
