"""What ``coordinator verify`` reads in the journal: pages by key, nothing locked, nothing written.

Each method is one statement, and so one snapshot, unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson

from coordinator import postgres_pool
from coordinator.domain.discrepancies import LockFacts, UnitFacts, WorkerFacts
from coordinator.domain.lifecycle import Status
from coordinator.engine.ports import Partition
from coordinator.engine.verification import Place
from coordinator.journal.session import reading

_OPEN = "u.status IN ('accepted', 'compensating', 'parked')"
_FACTS = (
    "u.seq, u.id, u.digest, u.status, u.stores, u.swept,"
    " extract(epoch FROM clock_timestamp() - u.finished_at)::float8 AS final_seconds,"
    " u.status = 'compensated' AND u.id IN (SELECT a.unit FROM coordinator.audit a"
    "  WHERE a.action = 'resolve' AND a.unit IS NOT NULL) AS by_hand"
)
_LOCKS = "(SELECT count(*) FROM coordinator.locks l WHERE l.seq = u.seq) AS locks, u.plan"
_ROWS_COUNTED_MAX = 100_000


class JournalReader:
    """The journal as a verification reads it."""

    def __init__(self, pool: postgres_pool.Pool) -> None:
        self._pool = pool

    async def unswept(
        self, after: Place | None, limit: int
    ) -> tuple[Sequence[UnitFacts], Place | None]:
        """Read a page of final units with branches elsewhere that are not swept, oldest first."""
        # The first comparison is for the index, the second for the place among equals.
        async with reading(self._pool) as connection:
            rows = await connection.fetch(
                f"SELECT u.finished_at, {_FACTS} FROM coordinator.units u"
                " WHERE u.finished_at IS NOT NULL AND NOT u.swept"
                " AND u.finished_at >= coalesce($1::timestamptz, '-infinity')"
                " AND (u.finished_at, u.seq) > (coalesce($1::timestamptz, '-infinity'), $2::bigint)"
                " ORDER BY u.finished_at, u.seq LIMIT $3",
                *(after or (None, 0)),
                limit,
            )
        last = (rows[-1]["finished_at"], rows[-1]["seq"]) if len(rows) == limit else None
        return [_facts(row) for row in rows], last

    async def open_units(
        self, after: Place | None, limit: int
    ) -> tuple[Sequence[tuple[UnitFacts, bool]], Place | None]:
        """Read a page of open units, each with whether all locks of its plan are there."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(
                f"SELECT u.worker, {_FACTS}, {_LOCKS} FROM coordinator.units u"
                f" WHERE {_OPEN} AND (u.worker, u.seq) > ($1::bigint, $2::bigint)"
                " ORDER BY u.worker, u.seq LIMIT $3",
                *(after or (-1, 0)),
                limit,
            )
        last = (rows[-1]["worker"], rows[-1]["seq"]) if len(rows) == limit else None
        return [(_facts(row), _is_locked(row)) for row in rows], last

    async def units(self, ids: Collection[str]) -> Mapping[str, UnitFacts]:
        """Read units by id; unknown ones are missing."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(
                f"SELECT {_FACTS} FROM coordinator.units u WHERE u.id = ANY ($1)", list(ids)
            )
        return {row["id"]: _facts(row) for row in rows}

    async def has_locks(self, ids: Collection[str]) -> frozenset[str]:
        """Which of these units are final, unknown, or hold all locks of their plans."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(
                f"SELECT u.id, {_LOCKS} FROM coordinator.units u WHERE u.id = ANY ($1) AND {_OPEN}",
                list(ids),
            )
        return frozenset(ids) - {row["id"] for row in rows if not _is_locked(row)}

    async def locks(
        self, after: Place | None, limit: int
    ) -> tuple[Sequence[LockFacts], Place | None]:
        """Read a page of locks, each with its unit's status at the same moment."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(
                "SELECT l.entity, l.key, l.seq, u.status FROM ("
                "  SELECT entity, key, seq FROM coordinator.locks"
                "  WHERE (entity, key, seq) > ($1::text, $2::text, $3::bigint)"
                "  ORDER BY entity, key, seq LIMIT $4) l"
                " LEFT JOIN coordinator.units u ON u.seq = l.seq ORDER BY l.entity, l.key, l.seq",
                *(after or ("", "", 0)),
                limit,
            )
        last = tuple(rows[-1])[:3] if len(rows) == limit else None
        return [
            LockFacts(entity, key, seq, None if status is None else Status(status))
            for entity, key, seq, status in rows
        ], last

    async def forsaken(self, seconds: float) -> Mapping[int, str]:
        """Workers with open units whose lease ran out so long ago, each with a sentence."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(
                "SELECT u.worker, count(*) AS units, min(u.seq) AS first, h.expires_at,"
                " (array_agg(u.id ORDER BY u.seq))[1:3] AS ids"
                " FROM coordinator.units u"
                " LEFT JOIN coordinator.heartbeats h ON h.worker = u.worker"
                f" WHERE {_OPEN} AND (h.worker IS NULL"
                "  OR h.expires_at < clock_timestamp() - $1::float8 * interval '1 second')"
                " GROUP BY u.worker, h.expires_at ORDER BY u.worker",
                seconds,
            )
        return {
            row["worker"]: f"{row['units']} open units, the oldest {', '.join(row['ids'])};"
            + (
                " it has no lease"
                if row["expires_at"] is None
                else f" its lease ran out at {row['expires_at'].isoformat(timespec='seconds')}"
            )
            for row in rows
        }

    async def outbox_stuck(self, seconds: float) -> str | None:
        """Say how old the oldest row of the outbox is, if it is older than that."""
        async with reading(self._pool) as connection:
            (row,) = await connection.fetch(
                "SELECT (SELECT extract(epoch FROM clock_timestamp() - created_at)::float8"
                "         FROM coordinator.outbox ORDER BY id LIMIT 1) AS age,"
                " (SELECT count(*) FROM (SELECT id FROM coordinator.outbox ORDER BY id LIMIT $1) c)"
                " AS rows",
                _ROWS_COUNTED_MAX,
            )
        if row["age"] is None or row["age"] < seconds:
            return None
        return f"{row['rows']} rows wait, the oldest for {row['age']:.0f} s"

    async def aside(self, seconds: float) -> Mapping[str, str]:
        """Topics that have messages set aside for longer than that, each with a sentence."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(
                "SELECT topic, count(*) AS messages,"
                " extract(epoch FROM clock_timestamp() - min(created_at))::float8 AS age"
                " FROM coordinator.outbox_aside GROUP BY topic"
                " HAVING min(created_at) < clock_timestamp() - $1::float8 * interval '1 second'"
                " ORDER BY topic",
                seconds,
            )
        return {
            row["topic"]: f"{row['messages']} messages wait, the oldest for {row['age']:.0f} s"
            for row in rows
        }

    async def workers(self) -> Mapping[int, WorkerFacts]:
        """Read all workers."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(
                "SELECT w.id, array_remove(array_agg(t.store), NULL) AS stores"
                " FROM coordinator.workers w"
                " LEFT JOIN coordinator.takeovers t ON t.worker = w.id AND w.fenced GROUP BY w.id"
            )
        return {row["id"]: WorkerFacts(row["id"], frozenset(row["stores"])) for row in rows}

    async def positions(self) -> Mapping[Partition, int]:
        """Read all intake positions."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(
                "SELECT topic, partition, next_offset FROM coordinator.positions"
            )
        return {(row["topic"], row["partition"]): row["next_offset"] for row in rows}


def _facts(row: Mapping[str, Any]) -> UnitFacts:
    return UnitFacts(
        seq=row["seq"],
        id=row["id"],
        digest=row["digest"],
        status=Status(row["status"]),
        stores=tuple(row["stores"]),
        final_seconds=row["final_seconds"],
        swept=row["swept"],
        by_hand=row["by_hand"],
    )


def _is_locked(row: Mapping[str, Any]) -> bool:
    planned: int = len(orjson.loads(row["plan"])["locks"])
    held: int = row["locks"]
    return planned == held
