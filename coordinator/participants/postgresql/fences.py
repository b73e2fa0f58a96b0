"""Fences of a PostgreSQL store: a worker that has lost its units can commit nothing here (I9).

Every transaction takes FOR KEY SHARE on the row of its worker and lane and reads that it is not
fenced. Whoever takes over locks those rows FOR UPDATE, which waits for every transaction that
has passed its fence, and takes them away; the next one of the fenced worker finds none. Waiting is
cut short by ending the sessions that the worker left behind (rule 5). Lanes have rows of their own
because many lockers of one row cost the server more than one each.

Lane -1 stands for the worker: it stays, fenced, so that a late enrolment is refused as well. When
the worker is forgotten its row goes, and lane -2 of the highest number that was ever forgotten
takes its part: whoever has that number or a lower one cannot enrol any more. Numbers are never
used again.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from coordinator.domain.errors import (
    BatchRefused,
    Fenced,
    InvariantViolated,
    StoreBusy,
    StoreUnavailable,
)
from coordinator.postgres_pool import Connection, Pool, connected, transaction

WORKER_LANE = -1
FORGOTTEN_LANE = -2

_TRIES_MAX = 40
_TRY_TIMEOUT_MS = 300

_ENROL_WORKER = """
INSERT INTO coordinator.fences (journal_id, worker, lane, session_name)
VALUES ($1, $2, -1, current_setting('application_name'))
ON CONFLICT DO NOTHING
"""
_ENROL_LANES = """
INSERT INTO coordinator.fences (journal_id, worker, lane)
SELECT $1, $2, lane FROM generate_series(0, $3::integer - 1) AS lane
ON CONFLICT DO NOTHING
"""
_HOLD = """
SELECT 1 FROM coordinator.fences
WHERE journal_id = $1 AND worker = $2 AND lane = $3 AND NOT fenced
FOR KEY SHARE
"""
_MARK = """
INSERT INTO coordinator.fences (journal_id, worker, lane, fenced) VALUES ($1, $2, -1, true)
ON CONFLICT DO NOTHING
"""
_LOCK_WORKER = """
SELECT 1 FROM coordinator.fences WHERE journal_id = $1 AND worker = $2 AND lane = -1 FOR UPDATE
"""
_LOCK_LANES = """
SELECT lane FROM coordinator.fences
WHERE journal_id = $1 AND worker = $2 AND lane >= 0 ORDER BY lane FOR UPDATE
"""
_FENCE_WORKER = """
UPDATE coordinator.fences SET fenced = true WHERE journal_id = $1 AND worker = $2 AND lane = -1
"""
_DROP_LANES = """
DELETE FROM coordinator.fences WHERE journal_id = $1 AND worker = $2 AND lane >= 0
"""
_IS_FORGOTTEN = """
SELECT true FROM coordinator.fences
WHERE journal_id = $1 AND worker >= $2 AND lane = -2 LIMIT 1
"""
_MARK_FORGOTTEN = """
INSERT INTO coordinator.fences (journal_id, worker, lane, fenced) VALUES ($1, $2, -2, true)
ON CONFLICT DO NOTHING
"""
_FORGET = """
DELETE FROM coordinator.fences f
WHERE f.journal_id = $1 AND f.fenced AND (
    (f.lane = -1 AND f.worker = ANY ($2::bigint[]))
    OR (f.lane = -2 AND f.worker < (
        SELECT max(g.worker) FROM coordinator.fences g WHERE g.journal_id = $1 AND g.lane = -2)))
"""
_END_SESSIONS = """
SELECT pg_terminate_backend(activity.pid)
FROM pg_stat_activity AS activity
JOIN coordinator.fences AS fence ON fence.session_name = activity.application_name
WHERE fence.journal_id = $1 AND fence.worker = $2 AND fence.session_name <> ''
  AND activity.datname = current_database()
  AND activity.application_name <> current_setting('application_name')
"""


class Fences:
    """The fences of one journal's workers in one store."""

    def __init__(self, pool: Pool, store: str, journal_id: str) -> None:
        self._pool = pool
        self._store = store
        self._journal_id = journal_id
        self._worker: int | None = None

    async def enrol(self, worker: int, lanes: int) -> None:
        """Make the worker's fences; from now on `hold` is about them. Raises `Fenced`."""
        async with transaction(self._pool, self._store) as connection:
            await connection.execute(_ENROL_WORKER, self._journal_id, worker)
            await self._hold(connection, worker, WORKER_LANE)
            # After the insertion: had the worker's row gone before it, this is seen as well.
            if await connection.fetchval(_IS_FORGOTTEN, self._journal_id, worker):
                raise Fenced(f"worker {worker} has been forgotten at {self._store}")
            await connection.execute(_ENROL_LANES, self._journal_id, worker, lanes)
        self._worker = worker

    async def hold(self, connection: Connection, lane: int) -> None:
        """Hold this worker's fence to the end of the transaction; raise `Fenced` if it is lost."""
        if self._worker is None:
            raise InvariantViolated(f"{self._store}: a transaction before the worker was enrolled")
        await self._hold(connection, self._worker, lane)

    async def _hold(self, connection: Connection, worker: int, lane: int) -> None:
        if await connection.fetchval(_HOLD, self._journal_id, worker, lane) is None:
            raise Fenced(f"worker {worker} has been fenced at {self._store}")

    async def fence(self, worker: int) -> None:
        """Fence another worker; when this returns, nothing of it can commit here any more.

        Raises `StoreUnavailable` when its transactions held out for longer than the bound.
        """
        for _ in range(_TRIES_MAX):
            await self._end_sessions(worker)
            with suppress(StoreBusy):
                await self._fence_once(worker)
                return
        raise StoreUnavailable(
            self._store, f"worker {worker} still has an open transaction and cannot be fenced yet"
        )

    async def _fence_once(self, worker: int) -> None:
        async with transaction(self._pool, self._store) as connection:
            await connection.execute(f"SET LOCAL lock_timeout = {_TRY_TIMEOUT_MS}")
            who = (self._journal_id, worker)
            await connection.execute(_MARK, *who)
            # In this order: with the worker's row no enrolment can add lanes that we do not see.
            await connection.execute(_LOCK_WORKER, *who)
            await connection.execute(_LOCK_LANES, *who)
            await connection.execute(_FENCE_WORKER, *who)
            await connection.execute(_DROP_LANES, *who)

    async def forget(self, connection: Connection, workers: Collection[int]) -> None:
        """Delete what is left of fenced workers: without a row they are refused as well."""
        await connection.execute(_MARK_FORGOTTEN, self._journal_id, max(workers))
        await connection.execute(_FORGET, self._journal_id, list(workers))

    async def _end_sessions(self, worker: int) -> None:
        # Without the right to end them we wait until they end: their idle time is bounded.
        with suppress(BatchRefused):
            async with connected(self._pool, self._store) as connection:
                await connection.execute(_END_SESSIONS, self._journal_id, worker)
