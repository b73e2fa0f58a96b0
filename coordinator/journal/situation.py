"""What the journal tells of one unit's situation, in one snapshot: who is in front, who owns it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from coordinator import postgres_pool
from coordinator.domain.lifecycle import Status
from coordinator.domain.situation import Blocker, Owner, Situation
from coordinator.journal.open_units import problem_of
from coordinator.journal.session import reading

_BLOCKERS_SHOWN_MAX = 10
_OWNER = "w.id AS worker, w.name, w.fenced, h.expires_at"
_UNIT = (
    "SELECT u.seq, u.id, u.status, u.received_at, u.deadline_at, u.finished_at, u.stores, u.cause,"
    " u.problem, u.cancel_requested, u.swept, clock_timestamp() AS now,"
    f" {_OWNER}"
    " FROM coordinator.units u LEFT JOIN coordinator.workers w ON w.id = u.worker"
    " LEFT JOIN coordinator.heartbeats h ON h.worker = u.worker WHERE u.id = $1"
)
_CONFLICTING = (
    " FROM coordinator.locks mine JOIN coordinator.locks other ON other.entity = mine.entity"
    " AND other.key = mine.key AND (other.exclusive OR mine.exclusive)"
)
_BLOCKERS = (
    "SELECT o.id, o.status, o.received_at, other.entity, other.key, other.exclusive,"
    f" {_OWNER}"
    f"{_CONFLICTING} AND other.seq < mine.seq"
    " JOIN coordinator.units o ON o.seq = other.seq"
    " LEFT JOIN coordinator.workers w ON w.id = o.worker"
    " LEFT JOIN coordinator.heartbeats h ON h.worker = o.worker"
    " WHERE mine.seq = $1 ORDER BY other.seq, other.entity, other.key LIMIT $2"
)
_IN_FRONT = (
    f"SELECT count(DISTINCT other.seq){_CONFLICTING} AND other.seq < mine.seq WHERE mine.seq = $1"
)
_BEHIND = (
    f"SELECT count(DISTINCT other.seq){_CONFLICTING} AND other.seq > mine.seq WHERE mine.seq = $1"
)


async def situation_of(
    pool: postgres_pool.Pool, unit_id: str, undo_retention: timedelta, retention: timedelta
) -> Situation | None:
    """Read where a unit stands; None when the journal does not know it."""
    async with (
        reading(pool) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        row = await connection.fetchrow(_UNIT, unit_id)
        if row is None:
            return None
        blockers = await connection.fetch(_BLOCKERS, row["seq"], _BLOCKERS_SHOWN_MAX)
        in_front = await connection.fetchval(_IN_FRONT, row["seq"])
        behind = await connection.fetchval(_BEHIND, row["seq"])
    return Situation(
        unit=row["id"],
        status=Status(row["status"]),
        now=row["now"],
        received_at=row["received_at"],
        deadline_at=row["deadline_at"],
        finished_at=row["finished_at"],
        stores=tuple(row["stores"]),
        owner=_owner(row),
        cause=problem_of(row["cause"]),
        problem=problem_of(row["problem"]),
        cancel_requested=row["cancel_requested"],
        blockers=[
            Blocker(
                each["id"],
                Status(each["status"]),
                each["received_at"],
                _owner(each),
                each["entity"],
                each["key"],
                each["exclusive"],
            )
            for each in blockers
        ],
        blockers_count=in_front,
        behind=behind,
        swept=row["swept"],
        undo_retention=undo_retention,
        retention=retention,
    )


def _owner(row: Mapping[str, Any]) -> Owner | None:
    if row["worker"] is None:
        return None
    return Owner(row["worker"], row["name"], row["expires_at"], row["fenced"])
