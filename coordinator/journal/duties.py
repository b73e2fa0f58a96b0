"""What a worker asks of the journal from time to time: waits, verbs, duplicates, sweeps."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from coordinator import postgres_pool
from coordinator.domain import announce
from coordinator.domain.errors import ErrorCode, Problem
from coordinator.domain.lifecycle import Status
from coordinator.domain.operation import Origin
from coordinator.domain.publishing import Message
from coordinator.engine.ports import JOURNAL, OpenUnit
from coordinator.fault_points import FaultPoint, reach
from coordinator.journal.mappings import JournaledMappings
from coordinator.journal.open_units import COLUMNS, open_units
from coordinator.journal.packing import pack
from coordinator.journal.session import own_statement, reading, single_statement

_STILL_ELSEWHERE = """
WITH mine AS (
    SELECT seq, entity, key, exclusive FROM coordinator.locks WHERE seq = ANY ($1)
), others AS (
    -- Once per key, or a key that many wait for would cost the square of their number.
    SELECT l.entity, l.key, min(l.seq) AS first, min(l.seq) FILTER (WHERE l.exclusive) AS writer
    FROM (SELECT DISTINCT entity, key FROM mine) k
    JOIN coordinator.locks l ON l.entity = k.entity AND l.key = k.key
    JOIN coordinator.units u ON u.seq = l.seq AND u.worker <> $2
    GROUP BY l.entity, l.key
)
SELECT DISTINCT mine.seq FROM mine JOIN others o ON o.entity = mine.entity AND o.key = mine.key
WHERE mine.seq > CASE WHEN mine.exclusive THEN o.first ELSE o.writer END
"""


class JournalDuties:
    """Periodic questions and small transactions of one worker."""

    def __init__(
        self,
        pool: postgres_pool.Pool,
        worker: int,
        announcer: announce.Announcer,
        mappings: JournaledMappings,
    ) -> None:
        self._pool = pool
        self._worker = worker
        self._announcer = announcer
        self._mappings = mappings

    async def still_elsewhere(self, seqs: Collection[int]) -> frozenset[int]:
        """Which of these units still wait for another worker's."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(
                _STILL_ELSEWHERE,
                list(seqs),
                self._worker,
            )
        return frozenset(row["seq"] for row in rows)

    async def cancel_requests(self) -> Mapping[int, str]:
        """Our accepted units whose cancel was asked for: ``seq`` → reason, maybe empty."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(
                "SELECT seq, cancel_requested FROM coordinator.units"
                " WHERE worker = $1 AND status = 'accepted' AND cancel_requested IS NOT NULL",
                self._worker,
            )
        return {row["seq"]: row["cancel_requested"] for row in rows}

    async def reopened(self, known_parked: Collection[int]) -> Sequence[OpenUnit | int]:
        """What persons did to our parked units: the unit again if retried, its seq if ended."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(
                f"SELECT {COLUMNS} FROM coordinator.units u"
                " WHERE u.seq = ANY ($1) AND u.worker = $2 AND u.status <> 'parked'",
                list(known_parked),
                self._worker,
            )
        ended = [row["seq"] for row in rows if row["status"] != Status.COMPENSATING.value]
        again = [row for row in rows if row["status"] == Status.COMPENSATING.value]
        return [*ended, *await open_units(again, self._mappings)]

    async def answer_newcomers(self, limit: int) -> int:
        """Answer duplicates whose unit is final, and reused ids, in one transaction (F4)."""
        async with reading(self._pool) as connection:
            if not await connection.fetchval("SELECT EXISTS (TABLE coordinator.newcomers)"):
                return 0
        reach(FaultPoint.NEWCOMERS_BEFORE)
        async with postgres_pool.transaction(self._pool, JOURNAL) as connection:
            with own_statement():
                rows = await connection.fetch(
                    "DELETE FROM coordinator.newcomers n USING coordinator.units u"
                    " WHERE u.seq = n.seq AND n.id IN ("
                    "   SELECT m.id FROM coordinator.newcomers m JOIN coordinator.units f"
                    "   ON f.seq = m.seq WHERE f.finished_at IS NOT NULL OR m.digest <> f.digest"
                    "   ORDER BY m.id LIMIT $1 FOR UPDATE OF m SKIP LOCKED)"
                    " RETURNING n.*, u.id AS unit_id, u.digest AS first_digest, u.outcome,"
                    " u.status, clock_timestamp() AS at",
                    limit,
                )
                if not rows:
                    return 0
                messages: list[Message] = []
                for row in sorted(rows, key=lambda one: one["id"]):
                    messages += self._answer(row)
                await connection.execute(
                    "INSERT INTO coordinator.outbox (messages) VALUES ($1)", pack(messages)
                )
            reach(FaultPoint.NEWCOMERS_WRITTEN)
        reach(FaultPoint.NEWCOMERS_AFTER)
        return len(rows)

    def _answer(self, row: Mapping[str, Any]) -> list[Message]:
        unit_id = row["unit_id"]
        at: datetime = row["at"]
        if row["digest"] is not None and row["digest"] != row["first_digest"]:
            status = Status.REJECTED
            reused = Problem(
                ErrorCode.ID_REUSED,
                "This id has been used before for a unit with other content; choose a new one.",
                path="id",
            )
            value = announce.outcome_value(
                announce.Verdict(
                    unit_id,
                    row["digest"],
                    status,
                    (reused,),
                    row["received_at"],
                    at,
                    row["metadata"],
                ),
                duplicate=True,
            )
        else:
            status = Status(row["status"])
            value = announce.as_duplicate(row["outcome"])
        origin = Origin(row["topic"], row["partition"], row["offset"])
        return announce.outcome_messages(
            self._announcer,
            unit_id=unit_id,
            ce_id=announce.duplicate_ce_id(unit_id, origin),
            status=status,
            value=value,
            finished_at=at,
            reply_to=row["reply_to"],
            traceparent=row["traceparent"],
        )

    async def unswept(
        self, age_seconds: float, limit: int, stores: Collection[str]
    ) -> Sequence[tuple[str, Sequence[str]]]:
        """Units final for that long whose undo records are not swept, at these stores alone."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(
                "SELECT id, stores FROM coordinator.units"
                " WHERE finished_at < clock_timestamp() - $1::float8 * interval '1 second'"
                " AND finished_at IS NOT NULL AND NOT swept AND stores <@ $3::text[]"
                " ORDER BY finished_at LIMIT $2",
                age_seconds,
                limit,
                list(stores),
            )
        return [(row["id"], tuple(row["stores"])) for row in rows]

    async def swept(self, unit_ids: Sequence[str]) -> None:
        """Every participant has confirmed the sweep of these units."""
        reach(FaultPoint.SWEPT_BEFORE)
        async with single_statement(self._pool) as connection:
            await connection.execute(
                "UPDATE coordinator.units SET swept = true"
                " WHERE id = ANY ($1) AND finished_at IS NOT NULL",
                list(unit_ids),
            )
        reach(FaultPoint.SWEPT_AFTER)

    async def forget(self, retention_days: float, limit: int) -> int:
        """Delete swept units that are final for longer than the retention; how many."""
        reach(FaultPoint.FORGET_BEFORE)
        async with single_statement(self._pool) as connection:
            gone: int = await connection.fetchval(
                "SELECT coordinator.forget($1, $2, $3)", self._worker, retention_days, limit
            )
        reach(FaultPoint.FORGET_AFTER)
        return gone

    async def forget_history(self, retention_days: float, limit: int) -> None:
        """Delete what persons did before the retention, and mappings that nobody needs."""
        async with single_statement(self._pool) as connection:
            await connection.execute(
                "SELECT coordinator.forget_history($1, $2, $3)",
                self._worker,
                retention_days,
                limit,
            )

    async def buried(self, age_days: float, limit: int) -> Sequence[int]:
        """Workers that were fenced so long ago and have nothing left to take over."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(
                "SELECT w.id FROM coordinator.workers w WHERE w.fenced"
                " AND w.fenced_at < clock_timestamp() - $1::float8 * interval '1 day'"
                " AND NOT EXISTS (SELECT 1 FROM coordinator.heartbeats h WHERE h.worker = w.id)"
                " ORDER BY w.id LIMIT $2",
                age_days,
                limit,
            )
        return [row["id"] for row in rows]

    async def forget_workers(self, workers: Collection[int]) -> None:
        """Delete all that is left of buried workers."""
        reach(FaultPoint.FORGET_WORKERS_BEFORE)
        async with single_statement(self._pool) as connection:
            await connection.execute(
                "WITH takeovers AS (DELETE FROM coordinator.takeovers WHERE worker = ANY ($1)),"
                " readings AS (DELETE FROM coordinator.readings WHERE worker = ANY ($1))"
                " DELETE FROM coordinator.workers w WHERE w.id = ANY ($1) AND w.fenced"
                " AND NOT EXISTS (SELECT 1 FROM coordinator.heartbeats h WHERE h.worker = w.id)",
                list(workers),
            )
        reach(FaultPoint.FORGET_WORKERS_AFTER)
