"""Workers, leases and fences in the journal.

A lease is a row of ``heartbeats`` with an expiry on the database's clock; the fence is the row of
``workers``, which every journal transaction of a worker holds ``FOR KEY SHARE`` and a takeover
takes ``FOR UPDATE``. So a lease that has run out harms nobody until somebody has fenced it, and
once fenced nothing of that worker can commit (I9, rules 3–5).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

import asyncpg

from coordinator import postgres_pool
from coordinator.domain.errors import Fenced, StoreBusy
from coordinator.engine.ports import JOURNAL, OpenUnit
from coordinator.fault_points import FaultPoint, reach
from coordinator.journal.epoch import Epoch
from coordinator.journal.mappings import JournaledMappings
from coordinator.journal.open_units import COLUMNS, open_units
from coordinator.journal.session import fence_told, own_statement, reading, single_statement

_FENCE_ATTEMPTS_MAX = 50
_UNITS_AT_A_TIME = 1000
_EXPIRED = (
    "SELECT true FROM coordinator.heartbeats WHERE worker = $1 AND expires_at < clock_timestamp()"
)


def application_name(worker: int) -> str:
    """The name by which a takeover finds what a worker has left open (rule 5)."""
    return f"coordinator/worker/{worker}"


async def register(
    connection: asyncpg.Connection, name: str, lanes: int, lease_ttl_seconds: float
) -> int:
    """Make a new worker with a fresh lease; give its number."""
    worker: int = await connection.fetchval(
        "WITH made AS (INSERT INTO coordinator.workers (name, lanes) VALUES ($1, $2) RETURNING id)"
        " INSERT INTO coordinator.heartbeats (worker, expires_at)"
        " SELECT id, clock_timestamp() + $3::float8 * interval '1 second' FROM made"
        " RETURNING worker",
        name,
        lanes,
        lease_ttl_seconds,
    )
    return worker


async def _end_sessions(connection: asyncpg.Connection, worker: int) -> None:
    """Cut what the worker left open (rule 5).

    Without the right to it we wait for the server's own limit on idle transactions instead: the
    lock on the fence is what counts.
    """
    await connection.execute("SAVEPOINT ending_sessions")  # the driver's own refuses our BEGIN
    try:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = $1 AND datname = current_database()"
            " AND pid <> pg_backend_pid()",
            application_name(worker),
        )
    except asyncpg.InsufficientPrivilegeError:
        await connection.execute("ROLLBACK TO SAVEPOINT ending_sessions")


class JournalWorkers:
    """This worker's lease, and the taking over of others'."""

    def __init__(
        self,
        pool: postgres_pool.Pool,
        worker: int,
        lease_ttl_seconds: float,
        mappings: JournaledMappings,
        epoch: Epoch,
    ) -> None:
        self._pool = pool
        self._worker = worker
        self._ttl = lease_ttl_seconds
        self._mappings = mappings
        self._epoch = epoch

    @property
    def worker(self) -> int:
        """This worker's number; never used again."""
        return self._worker

    async def beat(self) -> datetime:
        """Renew the lease by its TTL from now; give the journal's time; `Fenced` if it is lost."""
        reach(FaultPoint.HEARTBEAT_BEFORE)
        async with single_statement(self._pool) as connection:
            told: datetime | None = await connection.fetchval(
                "UPDATE coordinator.heartbeats h"
                " SET expires_at = clock_timestamp() + $2::float8 * interval '1 second'"
                " WHERE h.worker = $1 AND EXISTS"
                " (SELECT 1 FROM coordinator.workers w WHERE w.id = $1 AND NOT w.fenced)"
                " RETURNING clock_timestamp()",
                self._worker,
                self._ttl,
            )
        reach(FaultPoint.HEARTBEAT_AFTER)
        if told is None:
            raise Fenced("another worker has taken over this one's units")
        return told

    async def leave(self) -> None:
        """Let go of every partition, and the lease expire now."""
        reach(FaultPoint.LEAVE_BEFORE)
        async with single_statement(self._pool) as connection:
            await connection.execute(
                "WITH let_go AS (DELETE FROM coordinator.readings WHERE worker = $1)"
                " UPDATE coordinator.heartbeats SET expires_at = clock_timestamp()"
                " WHERE worker = $1",
                self._worker,
            )
        reach(FaultPoint.LEAVE_AFTER)

    async def expired(self) -> Sequence[int]:
        """Workers whose lease has expired and that still have something to take over."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(
                "SELECT worker FROM coordinator.heartbeats"
                " WHERE expires_at < clock_timestamp() AND worker <> $1 ORDER BY worker",
                self._worker,
            )
        return [row["worker"] for row in rows]

    async def fence(self, worker: int) -> bool:
        """Fence it in the journal, cutting what it left open; on True it changes nothing more.

        False when its lease was renewed in the meantime: then it is alive and left alone.
        """
        for _ in range(_FENCE_ATTEMPTS_MAX):
            try:
                return await self._fence_once(worker)
            except StoreBusy:
                continue
        raise StoreBusy(JOURNAL, f"worker {worker} holds its fence and does not let go")

    async def _fence_once(self, worker: int) -> bool:
        async with postgres_pool.transaction(self._pool, JOURNAL) as connection:
            with own_statement(), fence_told():
                await connection.execute("SELECT coordinator.hold_fence($1)", self._worker)
                if await connection.fetchval(
                    "SELECT fenced FROM coordinator.workers WHERE id = $1", worker
                ):
                    return True
                if not await connection.fetchval(_EXPIRED, worker):
                    return False
                # Whoever could not renew its own lease may be what is wrong, not the other one.
                if await connection.fetchval(_EXPIRED, self._worker):
                    return False
                await _end_sessions(connection, worker)
                await connection.execute(
                    "SELECT 1 FROM coordinator.workers WHERE id = $1 FOR UPDATE", worker
                )
                await connection.execute(
                    "UPDATE coordinator.workers SET fenced = true, fenced_by = $2,"
                    " fenced_at = clock_timestamp() WHERE id = $1",
                    worker,
                    self._worker,
                )
                return True

    async def fenced_stores(self, worker: int) -> frozenset[str]:
        """The stores at which a takeover has fenced this worker already."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(
                "SELECT store FROM coordinator.takeovers WHERE worker = $1", worker
            )
        return frozenset(row["store"] for row in rows)

    async def record_fenced(self, worker: int, store: str) -> None:
        """Remember that it is fenced at this store (rule 6)."""
        async with single_statement(self._pool) as connection:
            await connection.execute(
                "INSERT INTO coordinator.takeovers (worker, store) VALUES ($1, $2)"
                " ON CONFLICT DO NOTHING",
                worker,
                store,
            )

    async def take_over(self, worker: int, stores: Collection[str]) -> Sequence[OpenUnit]:
        """Make some of a fenced worker's open units ours, the oldest; none when there is none left.

        Only those that need none but these stores. Some at a time, because a backlog may be large.
        """
        reach(FaultPoint.TAKE_OVER_BEFORE)
        async with postgres_pool.transaction(self._pool, JOURNAL) as connection:
            with own_statement(), fence_told():
                await connection.execute("SELECT coordinator.hold_takeover($1)", self._worker)
                await connection.execute("SELECT coordinator.hold_fence($1)", self._worker)
                rows = await connection.fetch(
                    f"UPDATE coordinator.units u SET worker = $1 WHERE u.seq IN ("
                    f" SELECT o.seq FROM coordinator.units o WHERE o.worker = $2"
                    f" AND o.status IN ('accepted', 'compensating', 'parked')"
                    f" AND o.stores <@ $3::text[]"
                    f" AND EXISTS (SELECT 1 FROM coordinator.workers w"
                    f"             WHERE w.id = $2 AND w.fenced)"
                    f" ORDER BY o.seq LIMIT $4 FOR UPDATE)"
                    f" RETURNING {COLUMNS}",
                    self._worker,
                    worker,
                    list(stores),
                    _UNITS_AT_A_TIME,
                )
        reach(FaultPoint.TAKE_OVER_AFTER)
        return await open_units(rows, self._mappings)

    async def ours(self) -> Sequence[OpenUnit]:
        """Read this worker's own open units, in a new epoch of its admissions.

        Waits for a takeover of ours that is still on its way, so that the answer holds (I11).
        """
        async with single_statement(self._pool) as connection:
            self._epoch.number = await connection.fetchval(
                "SELECT coordinator.new_epoch($1)", self._worker
            )
        found: list[OpenUnit] = []
        last = 0
        while True:
            async with reading(self._pool) as connection:
                rows = await connection.fetch(
                    f"SELECT {COLUMNS} FROM coordinator.units u WHERE u.worker = $1 AND u.seq > $2"
                    " AND u.status IN ('accepted', 'compensating', 'parked')"
                    " ORDER BY u.seq LIMIT $3",
                    self._worker,
                    last,
                    _UNITS_AT_A_TIME,
                )
            found += await open_units(rows, self._mappings)
            if len(rows) < _UNITS_AT_A_TIME:
                return found
            last = rows[-1]["seq"]

    async def bury(self, worker: int) -> bool:
        """Forget the lease of a fenced worker that has no open unit left; whether it was so."""
        reach(FaultPoint.BURY_BEFORE)
        async with single_statement(self._pool) as connection:
            gone = await connection.fetchval(
                "DELETE FROM coordinator.heartbeats h USING coordinator.workers w"
                " WHERE h.worker = $1 AND w.id = $1 AND w.fenced AND NOT EXISTS"
                " (SELECT 1 FROM coordinator.units u WHERE u.worker = $1"
                "  AND u.status IN ('accepted', 'compensating', 'parked')) RETURNING true",
                worker,
            )
        reach(FaultPoint.BURY_AFTER)
        return bool(gone)
