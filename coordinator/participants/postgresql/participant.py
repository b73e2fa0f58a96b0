"""The participant of a PostgreSQL store that does not hold the journal.

One method is one transaction; each begins by holding the worker's fence (rule 3). `apply` writes
the branches and, beside them, one undo record per unit; `compensate` undoes from those records or
plants tombstones. They stand one above the other below.

What can go wrong, and what is true then: an error before COMMIT leaves nothing (the server rolls
back, also when we are killed). A lost answer to COMMIT is `ResultUnknown`: the next `apply` finds
the undo record or not, and `compensate` waits for a transaction that is still on its way, because
its tombstone has the same key as that one's record (rule 1). I1, I3, I6, I9, I11.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from coordinator.domain.errors import BatchRefused, ErrorCode, Problem, StoreUnavailable
from coordinator.domain.operation import Unit
from coordinator.domain.preview import NOTHING_SEEN, Loaded, Preview
from coordinator.domain.publishing import Done
from coordinator.domain.sharing import Line
from coordinator.engine.ports import Applied, Undone
from coordinator.fault_points import FaultPoint, reach
from coordinator.participants.postgresql import bookkeeping
from coordinator.participants.postgresql.fences import WORKER_LANE, Fences
from coordinator.participants.postgresql.row_changes import write_changes
from coordinator.participants.postgresql.row_locks import lock_rows
from coordinator.participants.postgresql.statements import RowLock, Statements
from coordinator.participants.postgresql.tables import Tables, TableWork
from coordinator.participants.postgresql.undo import RowChange, RowKey, decide_undo
from coordinator.participants.postgresql.undo_record import (
    KeyUndo,
    Row,
    decode,
    encode,
    wrote_something,
)
from coordinator.participants.postgresql.undo_store import (
    NewUndo,
    StoredUndo,
    UndoState,
    UndoStore,
)
from coordinator.postgres_pool import Connection, Pool, close_pool, connected, transaction

UNDO_BYTES_MAX = 8 * 1024 * 1024


class PostgresParticipant:
    """Applies and undoes branches in one PostgreSQL store; see `coordinator.engine.ports`.

    ``pool`` is from `coordinator.postgres_pool.open_pool`, with an application name that no other
    process and no later start of this one has: it tells whose sessions a takeover may end.
    ``undo_bytes_max`` bounds the undo record of one unit; a unit beyond it is `too_large`.
    """

    def __init__(
        self, store: str, pool: Pool, journal_id: str, *, undo_bytes_max: int = UNDO_BYTES_MAX
    ) -> None:
        self._store = store
        self._pool = pool
        self._undo_bytes_max = undo_bytes_max
        self._tables = Tables(store)
        self._fences = Fences(pool, store, journal_id)
        self._undo = UndoStore(store, journal_id)

    @property
    def store(self) -> str:
        """The store's name in the configuration."""
        return self._store

    async def prepare(self) -> None:
        """Make our tables in schema ``coordinator`` where they are missing (F37)."""
        await bookkeeping.prepare(self._pool, self._store)

    async def load(self, units: Sequence[Unit]) -> Loaded:
        """Read the images of all keys of these units' branches here, without locks."""
        async with connected(self._pool, self._store) as connection:
            return await self._tables.load(connection, units)

    # --- apply ----------------------------------------------------------------------------------

    async def apply(
        self, lane: int, units: Sequence[Unit], preview: Preview = NOTHING_SEEN
    ) -> Applied:
        """Apply the branches in one transaction, with an undo record per unit.

        Durable on return: what ``done`` tells. Raises `BatchRefused` and `StoreBusy`, after
        which nothing of the batch is applied by this call.
        """
        try:
            return await self._apply(lane, units, preview, carefully=False)
        except BatchRefused as refusal:
            if len(units) == 1 or refusal.refusals:
                raise
            return await self._apply(lane, units, preview, carefully=True)

    async def _apply(
        self, lane: int, units: Sequence[Unit], preview: Preview, *, carefully: bool
    ) -> Applied:
        reach(FaultPoint.APPLY_BEFORE, self._store)
        async with transaction(self._pool, self._store) as connection:
            await self._fences.hold(connection, lane)
            reach(FaultPoint.APPLY_FENCED, self._store)
            # What is tried for the first time has no record; if it has one all the same, its
            # insertion fails, and the next attempt looks.
            doubtful = [unit for unit in units if preview.tried_before(unit.seq)]
            stored = await self._undo.find(connection, doubtful) if doubtful else {}
            done: dict[int, tuple[Done, ...]] = {}
            refused: dict[int, Problem] = {}
            blocked: set[int] = set()
            fresh: Sequence[Unit] = units
            if stored:
                fresh = [unit for unit in units if unit.id not in stored]
                for unit in units:
                    if (found := stored.get(unit.id)) is not None:
                        self._take(unit, found, done, refused, blocked)
            fresh, behind = self._first_of_each_key(units, fresh)
            work = await self._tables.apply(connection, fresh, preview, carefully=carefully)
            await self._undo.insert(connection, self._records(fresh, work))
            reach(FaultPoint.APPLY_WRITTEN, self._store)
        reach(FaultPoint.APPLY_AFTER, self._store)
        return Applied(
            done={**done, **work.done},
            refused={**refused, **work.refused},
            failing=work.failing,
            blocked=frozenset(blocked),
            busy=work.busy,
            behind=behind,
        )

    def _first_of_each_key(
        self, units: Sequence[Unit], fresh: Sequence[Unit]
    ) -> tuple[Sequence[Unit], frozenset[int]]:
        """Let one sharer of a key go, and give the others that stay behind it.

        Here a row is undone by what its record tells of it, so nobody may have written it since: a
        key is shared in the pivot's store and in MongoDB only.
        """
        line = Line.of(units, self._store)
        if line is None:
            return fresh, frozenset()
        seqs = {unit.seq for unit in fresh}
        going: list[Unit] = []
        behind: set[int] = set()
        for unit in units:
            if unit.seq in seqs and line.holds(unit):
                behind.add(unit.seq)
                continue
            if unit.seq in seqs:
                going.append(unit)
            line.stop(unit)
        return going, frozenset(behind)

    def _take(
        self,
        unit: Unit,
        found: StoredUndo,
        done: dict[int, tuple[Done, ...]],
        refused: dict[int, Problem],
        blocked: set[int],
    ) -> None:
        """Take a branch that an earlier attempt has ended (rule 7)."""
        if found.digest != unit.digest:
            refused[unit.seq] = Problem(
                ErrorCode.ID_REUSED,
                f"Store {self._store} holds an undo record of another content under this id, "
                "left by a unit that the journal does not know any more.",
                path="id",
            )
        elif found.state is UndoState.APPLIED and found.record is not None:
            done[unit.seq] = decode(found.record).done
        else:
            blocked.add(unit.seq)

    def _records(self, units: Sequence[Unit], work: TableWork) -> list[NewUndo]:
        records = []
        for unit in units:
            done = work.done.get(unit.seq)
            if done is None:
                continue
            record = encode(work.steps[unit.seq], done)
            if len(record) > self._undo_bytes_max:
                problem = Problem(
                    ErrorCode.TOO_LARGE,
                    f"The undo record of the unit at store {self._store} would take "
                    f"{len(record)} bytes; at most {self._undo_bytes_max} are kept.",
                    path="operations",
                )
                raise BatchRefused(self._store, problem, {unit.seq: problem})
            records.append(NewUndo(unit, wrote_something(done), record))
        return records

    # --- compensate -----------------------------------------------------------------------------

    async def compensate(self, lane: int, units: Sequence[Unit]) -> Mapping[int, Undone]:
        """Undo the branches in one transaction; plant a tombstone where nothing was applied.

        Durable on return: what the result tells; units that are missing in it were busy. Raises
        `BatchRefused` and `StoreBusy`, after which nothing was undone by this call.
        """
        reach(FaultPoint.COMPENSATE_BEFORE, self._store)
        async with transaction(self._pool, self._store) as connection:
            await self._fences.hold(connection, lane)
            reach(FaultPoint.COMPENSATE_FENCED, self._store)
            stored = await self._undo.plant(connection, units)
            result: dict[int, Undone] = {}
            applied: list[tuple[Unit, StoredUndo]] = []
            for unit in units:
                found = stored.get(unit.id)
                if found is None or found.digest != unit.digest:
                    # Of another content: nothing of this unit is here, and nothing can come.
                    result[unit.seq] = Undone(wrote=False)
                elif found.state is UndoState.APPLIED:
                    applied.append((unit, found))
                else:
                    result[unit.seq] = Undone(wrote=found.wrote)
            if applied:
                await self._undo_applied(connection, applied, result)
            reach(FaultPoint.COMPENSATE_WRITTEN, self._store)
        reach(FaultPoint.COMPENSATE_AFTER, self._store)
        return result

    async def _undo_applied(
        self,
        connection: Connection,
        applied: Sequence[tuple[Unit, StoredUndo]],
        result: dict[int, Undone],
    ) -> None:
        keys_of = {unit.seq: decode(found.record or "").keys for unit, found in applied}
        rows, busy = await _lock_current(connection, keys_of)
        undone: list[str] = []
        changes: list[Sequence[RowChange]] = []
        # The last applied is the first undone.
        for unit, found in reversed(applied):
            if unit.seq in busy:
                continue
            decided = decide_undo(unit, keys_of[unit.seq], rows)
            if isinstance(decided, Problem):
                result[unit.seq] = Undone(wrote=True, problem=decided)
                continue
            result[unit.seq] = Undone(wrote=found.wrote)
            undone.append(unit.id)
            changes.append(decided)
        await write_changes(connection, self._store, changes)
        await self._undo.mark_undone(connection, undone)
        await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")

    # --- duties ---------------------------------------------------------------------------------

    async def enrol(self, worker: int, lanes: int) -> None:
        """Make this worker's fences (and our tables, if need be). Raises `Fenced`."""
        await self.prepare()
        await self._fences.enrol(worker, lanes)

    async def fence(self, worker: int) -> None:
        """Fence another worker: when this returns, no transaction of it can commit here (I9)."""
        await self.prepare()
        await self._fences.fence(worker)

    async def sweep(self, unit_ids: Sequence[str]) -> None:
        """Delete the undo records and tombstones of units that are final for long."""
        async with transaction(self._pool, self._store) as connection:
            await self._fences.hold(connection, WORKER_LANE)
            await self._undo.sweep(connection, unit_ids)

    async def forget_workers(self, workers: Collection[int]) -> None:
        """Delete the fences of workers that were fenced long ago; see the port."""
        async with transaction(self._pool, self._store) as connection:
            await self._fences.hold(connection, WORKER_LANE)
            await self._fences.forget(connection, workers)

    async def ping(self) -> None:
        """Answer if the store is reachable and writable; else raise `StoreUnavailable`."""
        async with connected(self._pool, self._store) as connection:
            if await connection.fetchval("SELECT current_setting('transaction_read_only')") == "on":
                raise StoreUnavailable(self._store, "the server takes no writes (a standby?)")

    async def close(self) -> None:
        """Let connections go, in bounded time."""
        await close_pool(self._pool)


async def _lock_current(
    connection: Connection, keys_of: Mapping[int, Sequence[KeyUndo]]
) -> tuple[dict[RowKey, Row | None], frozenset[int]]:
    """Lock the rows of all keys as they are now; also tell the units with a row that is held."""
    wanted: dict[tuple[Statements, RowLock], dict[str, None]] = {}
    owners: dict[RowKey, int] = {}
    for seq, keys in keys_of.items():
        for key in keys:
            statements = key.table.statements
            # What we inserted will be deleted; all else is updated or inserted.
            strength = RowLock.UPDATE if key.steps[0].before is None else RowLock.NO_KEY_UPDATE
            wanted.setdefault((statements, strength), {})[key.key] = None
            owners[statements, key.key] = seq
    rows: dict[RowKey, Row | None] = {}
    busy: set[int] = set()
    for (statements, strength), of_table in wanted.items():
        texts = list(of_table)
        locked, held = await lock_rows(connection, statements, strength, texts)
        for at, text in enumerate(texts):
            found = locked.get(at)
            rows[statements, text] = None if found is None else tuple(found)[1:]
            if at in held:
                busy.add(owners[statements, text])
    return rows, frozenset(busy)
