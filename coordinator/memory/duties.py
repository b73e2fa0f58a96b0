"""What a worker asks of the journal from time to time, in memory: waits, verbs, duplicates, sweeps.

Mirrors `coordinator.journal.duties`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from functools import partial

from coordinator.domain import announce
from coordinator.domain.errors import ErrorCode, InvariantViolated, Problem
from coordinator.domain.lifecycle import FINAL_STATUSES, Status
from coordinator.domain.publishing import Message
from coordinator.engine.ports import JOURNAL, OpenUnit
from coordinator.memory.journal_tables import Newcomer, UnitRow
from coordinator.memory.link import Link
from coordinator.memory.world import World


class MemoryDuties:
    """Periodic questions and small steps of one worker."""

    def __init__(self, world: World, worker: int, link: Link) -> None:
        self._world = world
        self._journal = world.journal
        self._worker = worker
        self._link = link

    async def still_elsewhere(self, seqs: Collection[int]) -> frozenset[int]:
        """Which of these units still wait for another worker's."""
        return await self._link.read(
            JOURNAL, "still_elsewhere", partial(self._still_elsewhere, seqs)
        )

    def _still_elsewhere(self, seqs: Collection[int]) -> frozenset[int]:
        journal = self._journal
        waiting = set()
        for seq in seqs:
            keys = [(key, held[seq]) for key, held in journal.locks.items() if seq in held]
            if journal.waits_elsewhere(self._worker, seq, keys):
                waiting.add(seq)
        return frozenset(waiting)

    async def cancel_requests(self) -> Mapping[int, str]:
        """Our accepted units whose cancel was asked for: ``seq`` → reason, maybe empty."""
        return await self._link.read(JOURNAL, "cancel_requests", self._cancel_requests)

    def _cancel_requests(self) -> Mapping[int, str]:
        return {
            row.seq: row.cancel_requested
            for row in self._journal.units.values()
            if row.worker == self._worker
            and row.status is Status.ACCEPTED
            and row.cancel_requested is not None
        }

    async def reopened(self, known_parked: Collection[int]) -> Sequence[OpenUnit | int]:
        """What persons did to our parked units: the unit again if retried, its seq if ended."""
        return await self._link.read(JOURNAL, "reopened", partial(self._reopened, known_parked))

    def _reopened(self, known_parked: Collection[int]) -> Sequence[OpenUnit | int]:
        changed: list[OpenUnit | int] = []
        for seq in sorted(known_parked):
            row = self._journal.units.get(seq)
            if row is None or row.worker != self._worker or row.status is Status.PARKED:
                continue
            is_again = row.status is Status.COMPENSATING
            changed.append(self._world.open_unit(row) if is_again else seq)
        return changed

    # --- newcomers ----------------------------------------------------------------------------

    async def answer_newcomers(self, limit: int) -> int:
        """Answer duplicates whose unit is final, and reused ids, in one step (F4)."""
        if not await self._link.read(JOURNAL, "newcomers", lambda: bool(self._journal.newcomers)):
            return 0
        return await self._link.call(JOURNAL, "answer", partial(self._answer_newcomers, limit))

    def _answer_newcomers(self, limit: int) -> int:
        due = self._due(limit)
        messages: list[Message] = []
        for newcomer, row in due:
            messages += self._answer(newcomer, row)
            del self._journal.newcomers[newcomer.id]
        self._journal.publish(messages)
        return len(due)

    def _due(self, limit: int) -> list[tuple[Newcomer, UnitRow]]:
        due = []
        for newcomer in sorted(self._journal.newcomers.values(), key=lambda one: one.id):
            row = self._journal.units[newcomer.seq]
            is_other = newcomer.digest is not None and newcomer.digest != row.digest
            if row.status in FINAL_STATUSES or is_other:
                due.append((newcomer, row))
        return due[:limit]

    def _answer(self, newcomer: Newcomer, row: UnitRow) -> list[Message]:
        at = self._world.now()
        if newcomer.digest is not None and newcomer.digest != row.digest:
            status = Status.REJECTED
            reused = Problem(
                ErrorCode.ID_REUSED,
                "This id has been used before for a unit with other content; choose a new one.",
                path="id",
            )
            value = announce.outcome_value(
                announce.Verdict(
                    row.id,
                    newcomer.digest,
                    status,
                    (reused,),
                    newcomer.received_at,
                    at,
                    newcomer.metadata,
                ),
                duplicate=True,
            )
        else:
            if row.outcome is None:
                raise InvariantViolated(f"unit {row.id} is final and has no outcome")
            status, value = row.status, announce.as_duplicate(row.outcome)
        return announce.outcome_messages(
            self._world.announcer,
            unit_id=row.id,
            ce_id=announce.duplicate_ce_id(row.id, newcomer.origin),
            status=status,
            value=value,
            finished_at=at,
            reply_to=newcomer.reply_to,
            traceparent=newcomer.traceparent,
        )

    # --- sweeps -------------------------------------------------------------------------------

    async def unswept(
        self, age_seconds: float, limit: int, stores: Collection[str]
    ) -> Sequence[tuple[str, Sequence[str]]]:
        """Units final for that long whose undo records are not swept, at these stores alone."""
        step = partial(self._unswept, age_seconds, limit, frozenset(stores))
        return await self._link.read(JOURNAL, "unswept", step)

    def _unswept(
        self, age_seconds: float, limit: int, stores: frozenset[str]
    ) -> Sequence[tuple[str, Sequence[str]]]:
        before = self._world.now() - timedelta(seconds=age_seconds)
        due = [
            row
            for row in self._journal.units.values()
            if row.finished_at is not None
            and row.finished_at < before
            and not row.swept
            and row.stores <= stores
        ]
        return [(row.id, tuple(sorted(row.stores))) for row in due[:limit]]

    async def swept(self, unit_ids: Sequence[str]) -> None:
        """Every participant has confirmed the sweep of these units."""
        await self._link.call(JOURNAL, "swept", partial(self._swept, unit_ids))

    def _swept(self, unit_ids: Sequence[str]) -> None:
        for unit_id in unit_ids:
            row = self._journal.units.get(self._journal.ids.get(unit_id, 0))
            if row is not None and row.finished_at is not None:
                row.swept = True

    async def forget(self, retention_days: float, limit: int) -> int:
        """Delete swept units that are final for longer than the retention; how many."""
        return await self._link.call(
            JOURNAL, "forget", partial(self._forget, retention_days, limit)
        )

    def _forget(self, retention_days: float, limit: int) -> int:
        before = self._world.now() - timedelta(days=retention_days)
        asked_for = {each.seq for each in self._journal.newcomers.values()}
        due = [
            row
            for row in self._journal.units.values()
            if row.finished_at is not None
            and row.finished_at < before
            and row.swept
            and row.seq not in asked_for
        ][:limit]
        for row in due:
            del self._journal.units[row.seq], self._journal.ids[row.id]
        return len(due)

    async def forget_history(self, retention_days: float, limit: int) -> None:
        """Nothing to do: a world has one mapping, and nobody writes down what persons do."""

    async def buried(self, age_days: float, limit: int) -> Sequence[int]:
        """Workers that were fenced so long ago and have nothing left to take over."""
        return await self._link.read(JOURNAL, "buried", partial(self._buried, age_days, limit))

    def _buried(self, age_days: float, limit: int) -> Sequence[int]:
        before = self._world.now() - timedelta(days=age_days)
        found = [
            row.id
            for row in self._journal.workers.values()
            if row.fenced_at is not None and row.fenced_at < before and row.expires_at is None
        ]
        return found[:limit]

    async def forget_workers(self, workers: Collection[int]) -> None:
        """Delete all that is left of buried workers."""
        await self._link.call(JOURNAL, "forget_workers", partial(self._forget_workers, workers))

    def _forget_workers(self, workers: Collection[int]) -> None:
        journal = self._journal
        for worker in workers:
            journal.workers.pop(worker, None)
        journal.takeovers -= {each for each in journal.takeovers if each[0] in workers}
        for held in journal.readings.values():
            for worker in workers:
                held.pop(worker, None)
