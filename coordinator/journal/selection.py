"""Units by what a person knows of them, and what happened to one, in order.

Reads only. Without a key, rows are found by the journal's order; a filter on a key of units that
have ended reads their plans, so narrow it by age or status where the journal is large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from coordinator import postgres_pool
from coordinator.domain.announce import instant
from coordinator.domain.lifecycle import Status
from coordinator.journal.operators import COLUMNS, view
from coordinator.journal.session import reading


@dataclass(frozen=True, slots=True)
class UnitFilter:
    """What all of the units have in common. ``key`` is as a person types it: 42, o-77.

    ``text`` is looked for in the id, the reasons and the cancel's reason, in any case.
    """

    statuses: Sequence[Status] = ()
    entity: str | None = None
    key: str | None = None
    older_seconds: float | None = None
    younger_seconds: float | None = None
    code: str | None = None
    text: str | None = None


_WHERE = (
    "(cardinality($1::text[]) = 0 OR u.status = ANY ($1))"
    " AND ($2::float8 IS NULL"
    "  OR u.received_at <= clock_timestamp() - $2::float8 * interval '1 second')"
    " AND ($3::float8 IS NULL"
    "  OR u.received_at >= clock_timestamp() - $3::float8 * interval '1 second')"
    # As text: json with \u0000 in it can be stored, but not be looked into.
    " AND ($4::text IS NULL OR position($4 in coalesce(u.problem::text, u.cause::text, '')) > 0)"
    " AND ($5::text IS NULL OR position(lower($5) in lower(concat_ws(E'\\n', u.id,"
    "  u.cause::text, u.problem::text, u.cancel_requested))) > 0)"
    " AND (cardinality($6::bytea[]) = 0"
    "  OR EXISTS (SELECT 1 FROM unnest($6) AS n(piece) WHERE position(n.piece in u.plan) > 0))"
)


class JournalSelection:
    """The units of one journal, filtered."""

    def __init__(self, pool: postgres_pool.Pool) -> None:
        self._pool = pool

    async def select(self, wanted: UnitFilter, limit: int) -> Sequence[Mapping[str, Any]]:
        """Give up to ``limit`` units, the oldest first."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(
                f"SELECT {COLUMNS} FROM coordinator.units u WHERE {_WHERE} ORDER BY u.seq LIMIT $7",
                *_arguments(wanted),
                limit,
            )
        return [view(row) for row in rows]

    async def timeline(self, unit_id: str) -> Sequence[Mapping[str, Any]]:
        """Tell what happened to a unit, and when, as far as the journal still knows."""
        async with reading(self._pool) as connection:
            unit = await connection.fetchrow(
                "SELECT u.status, u.received_at, u.deadline_at, u.finished_at, u.swept, w.name"
                " FROM coordinator.units u LEFT JOIN coordinator.workers w ON w.id = u.worker"
                " WHERE u.id = $1",
                unit_id,
            )
            acts = await connection.fetch(
                "SELECT at, who, action, reason FROM coordinator.audit WHERE unit = $1"
                " AND action NOT LIKE 'dead-letters %' ORDER BY id",
                unit_id,
            )
        if unit is None:
            return []
        events = [
            (unit["received_at"], "accepted", None),
            (unit["deadline_at"], "deadline", None),
            *((each["at"], f"{each['action']} by {each['who']}", each["reason"]) for each in acts),
        ]
        if unit["finished_at"] is not None:
            swept = "its undo records are swept" if unit["swept"] else None
            events.append((unit["finished_at"], unit["status"], swept))
        return [
            {"at": instant(at), "event": event, "detail": detail}
            for at, event, detail in sorted(events, key=lambda each: each[0])
        ]


def _arguments(wanted: UnitFilter) -> tuple[object, ...]:
    return (
        [each.value for each in wanted.statuses],
        wanted.older_seconds,
        wanted.younger_seconds,
        None if wanted.code is None else f'"code":{orjson.dumps(wanted.code).decode()}',
        wanted.text,
        _pieces(wanted.entity, wanted.key),
    )


def _pieces(entity: str | None, key: str | None) -> list[bytes]:
    """Give what stands in a plan that claims such a lock; quotes inside of strings are escaped.

    A key is a number or a string: nobody but the mapping of that time knows which, so both count.
    """
    if entity is None:
        return []
    if key is None:
        return [b"[" + orjson.dumps(entity) + b","]
    texts = {key, orjson.dumps(key).decode()}
    return [orjson.dumps([entity, text])[:-1] + b"," for text in sorted(texts)]
