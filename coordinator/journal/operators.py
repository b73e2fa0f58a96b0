"""What a person does with units: look, retry, resolve, cancel (F38, F41).

It works on the journal's rows alone, by compare-and-set on the status, so it is safe while
daemons run: nobody acts on a parked unit, and its owner sees a change within a second. Every
verb leaves a row in ``coordinator.audit``.
"""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from coordinator import postgres_pool
from coordinator.domain import announce
from coordinator.domain.errors import Problem
from coordinator.domain.lifecycle import FINAL_STATUSES, Status, Transition, next_status
from coordinator.engine.ports import JOURNAL
from coordinator.engine.units_api import ActionRefused, UnitUnknown, UnitView
from coordinator.fault_points import FaultPoint, reach
from coordinator.journal.open_units import problem_of
from coordinator.journal.packing import pack
from coordinator.journal.session import own_statement, reading

COLUMNS = (
    "u.seq, u.id, u.digest, u.status, u.worker, u.plan, u.stores, u.received_at, u.deadline_at,"
    ' u.topic, u.partition, u."offset", u.metadata, u.reply_to, u.traceparent,'
    " u.cancel_requested, u.cause, u.problem, u.outcome, u.finished_at"
)


class JournalOperators:
    """The operator's verbs. ``who`` is written to the audit."""

    def __init__(
        self, pool: postgres_pool.Pool, announcer: announce.Announcer, who: str | None = None
    ) -> None:
        self._pool = pool
        self._announcer = announcer
        self._who = who or getpass.getuser()

    async def show(self, unit_id: str) -> UnitView | None:
        """Give one unit, or None when the journal does not know it."""
        async with reading(self._pool) as connection:
            row = await connection.fetchrow(
                f"SELECT {COLUMNS} FROM coordinator.units u WHERE u.id = $1", unit_id
            )
        return None if row is None else view(row)

    async def list(self, status: str | None, limit: int) -> Sequence[UnitView]:
        """Give up to ``limit`` units, the oldest first; all statuses when ``status`` is None."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(
                f"SELECT {COLUMNS} FROM coordinator.units u"
                " WHERE $1::text IS NULL OR u.status = $1 ORDER BY u.seq LIMIT $2",
                status,
                limit,
            )
        return [view(row) for row in rows]

    async def retry(self, unit_id: str, reason: str | None) -> UnitView:
        """Let a parked unit's compensation run again (F11)."""
        async with postgres_pool.transaction(self._pool, JOURNAL) as connection:
            row = await self._held(connection, unit_id)
            after = _moved(row, Transition.RETRIED, "retry")
            with own_statement():
                await connection.execute(
                    "UPDATE coordinator.units SET status = $2, problem = NULL, outcome = NULL"
                    " WHERE seq = $1",
                    row["seq"],
                    after.value,
                )
                await self._audit(connection, "retry", unit_id, reason)
            reach(FaultPoint.VERB_BEFORE)
        reach(FaultPoint.VERB_AFTER)
        return await self._shown(unit_id)

    async def resolve(self, unit_id: str, as_status: str, reason: str) -> UnitView:
        """End a parked unit that a person has put right (F11)."""
        if as_status != Status.COMPENSATED.value:
            raise ActionRefused("A parked unit can only be resolved as compensated (F11).")
        async with postgres_pool.transaction(self._pool, JOURNAL) as connection:
            row = await self._held(connection, unit_id)
            after = _moved(row, Transition.RESOLVED_BY_HAND, "resolve")
            at = await connection.fetchval("SELECT clock_timestamp()")
            cause = problem_of(row["cause"])
            value = announce.outcome_value(
                announce.Verdict(
                    row["id"],
                    row["digest"],
                    after,
                    () if cause is None else (cause,),
                    row["received_at"],
                    at,
                    row["metadata"],
                )
            )
            messages = announce.outcome_messages(
                self._announcer,
                unit_id=row["id"],
                ce_id=f"{row['id']}/outcome",
                status=after,
                value=value,
                finished_at=at,
                reply_to=row["reply_to"],
                traceparent=row["traceparent"],
            )
            with own_statement():
                await connection.execute(
                    "SELECT coordinator.conclude($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                    row["worker"],
                    [row["seq"]],
                    [row["status"]],
                    [after.value],
                    [None],
                    [row["problem"]],
                    [value],
                    at,
                    pack(messages),
                )
                await self._audit(connection, "resolve", unit_id, reason)
            reach(FaultPoint.VERB_BEFORE)
        reach(FaultPoint.VERB_AFTER)
        return await self._shown(unit_id)

    async def cancel(self, unit_id: str, reason: str | None) -> UnitView:
        """Ask for the compensation of a unit that is not committed (F8)."""
        async with postgres_pool.transaction(self._pool, JOURNAL) as connection:
            row = await self._held(connection, unit_id)
            if row["status"] != Status.ACCEPTED.value:
                raise ActionRefused(f"Unit {unit_id} is {row['status']}; it cannot be cancelled.")
            with own_statement():
                await connection.execute(
                    "UPDATE coordinator.units SET cancel_requested = $2 WHERE seq = $1",
                    row["seq"],
                    reason or "",
                )
                await self._audit(connection, "cancel", unit_id, reason)
            reach(FaultPoint.VERB_BEFORE)
        reach(FaultPoint.VERB_AFTER)
        return await self._shown(unit_id)

    async def _held(self, connection: postgres_pool.Connection, unit_id: str) -> Mapping[str, Any]:
        with own_statement():
            row: Mapping[str, Any] | None = await connection.fetchrow(
                f"SELECT {COLUMNS} FROM coordinator.units u WHERE u.id = $1 FOR UPDATE", unit_id
            )
        if row is None:
            raise UnitUnknown(unit_id)
        return row

    async def _audit(
        self,
        connection: postgres_pool.Connection,
        action: str,
        unit_id: str,
        reason: str | None,
    ) -> None:
        await connection.execute(
            "INSERT INTO coordinator.audit (who, action, unit, reason) VALUES ($1, $2, $3, $4)",
            self._who,
            action,
            unit_id,
            reason,
        )

    async def _shown(self, unit_id: str) -> UnitView:
        view = await self.show(unit_id)
        if view is None:
            raise UnitUnknown(unit_id)
        return view


def _moved(row: Mapping[str, Any], transition: Transition, verb: str) -> Status:
    status = Status(row["status"])
    if status is not Status.PARKED:
        raise ActionRefused(f"Unit {row['id']} is {status.value}; only a parked unit takes {verb}.")
    return next_status(status, transition)


def view(row: Mapping[str, Any]) -> dict[str, Any]:
    """Give a unit's row, of `COLUMNS`, as it is shown."""
    problem: Problem | None = problem_of(row["problem"])
    cause: Problem | None = problem_of(row["cause"])
    return {
        "unit": row["id"],
        "status": row["status"],
        "outcome": None if row["outcome"] is None else orjson.loads(row["outcome"]),
        "is_final": Status(row["status"]) in FINAL_STATUSES,
        "seq": row["seq"],
        "digest": row["digest"],
        "worker": row["worker"],
        "stores": list(row["stores"]),
        "received_at": announce.instant(row["received_at"]),
        "deadline_at": announce.instant(row["deadline_at"]),
        "finished_at": row["finished_at"] and announce.instant(row["finished_at"]),
        "origin": f"{row['topic']}/{row['partition']}/{row['offset']}",
        "cause": None if cause is None else cause.as_json(),
        "problem": None if problem is None else problem.as_json(),
        "cancel_requested": row["cancel_requested"],
    }
