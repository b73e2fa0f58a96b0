"""The participant of a MongoDB store.

One method is one transaction; each begins by writing the lane's fence (see `transactions`). `apply`
reads the documents again inside it, decides, writes, and inserts one undo record per unit beside
the writes; `compensate` undoes from those records or plants tombstones. They stand one above the
other below. What needs no decision between is sent together: the fence with the first read, all
writes with the commit. A batch takes as many round trips as it has collections and kinds of
writes, and five.

What can go wrong, and what is true then: an error before the commit leaves nothing. A commit
without an answer is `ResultUnknown`: the next `apply` finds the undo record or not, and the
tombstone of a `compensate` has the same ``_id`` as that record, so that only one of them can be
(rule 1). A document in a stranger's transaction is `StoreBusy` at once, because MongoDB does not
wait there. I1, I3, I6, I9, I11.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import Any, Final

from coordinator.domain.decide import ImageKey
from coordinator.domain.errors import (
    BatchRefused,
    ErrorCode,
    Problem,
    StoreBusy,
    StoreUnavailable,
)
from coordinator.domain.operation import Unit
from coordinator.domain.preview import NOTHING_SEEN, Loaded, Preview
from coordinator.domain.publishing import Done
from coordinator.domain.sharing import Line
from coordinator.engine.ports import Applied, Undone
from coordinator.fault_points import FaultPoint, reach
from coordinator.participants.mongodb import bookkeeping
from coordinator.participants.mongodb.batch_writing import WriteRefused, write_batch
from coordinator.participants.mongodb.branches import (
    Branch,
    Documents,
    decide,
    documents_by_match,
    wanted,
)
from coordinator.participants.mongodb.driver import Driver, FoundTooMuch
from coordinator.participants.mongodb.errors import (
    DRIVER_ERRORS,
    translate,
)
from coordinator.participants.mongodb.going_back import DocumentKey, document_key
from coordinator.participants.mongodb.shared_undo import SharedUndo
from coordinator.participants.mongodb.shares import (
    KeyShare,
    ShareDocuments,
    Sharing,
    done_again,
    settled,
)
from coordinator.participants.mongodb.takeover import Takeover
from coordinator.participants.mongodb.transactions import (
    WORKER_LANE,
    Transaction,
    Transactions,
    too_much,
)
from coordinator.participants.mongodb.undo import decide_undo
from coordinator.participants.mongodb.undo_record import (
    Identity,
    KeyUndo,
    StoredUndo,
    UndoState,
)
from coordinator.participants.mongodb.undo_store import UndoRecords
from coordinator.participants.mongodb.writes import DocumentWrite, grouped, in_order

TRANSACTION_TIMEOUT_SECONDS: Final = 5.0
_BATCH_BYTES_MAX: Final = 64 * 1024 * 1024
_SWEEP_IDS_MAX: Final = 5_000
_FOUND_BYTES_MAX: Final = 64 * 1024 * 1024
"""What is read for a batch of several units; a smaller one is tried then."""
_SEEN_BYTES_MAX: Final = 64 * 1024


def _bytes_max(units: Sequence[Unit]) -> int | None:
    return _FOUND_BYTES_MAX if len(units) > 1 else None  # of one unit its undo record bounds it


class MongodbParticipant:
    """Applies and undoes branches in one MongoDB database; see `coordinator.engine.ports`.

    ``driver`` is from `coordinator.participants.mongodb.driver.open_driver`.
    ``transaction_timeout_seconds`` bounds a transaction; it must stay well under the lease.
    """

    def __init__(
        self,
        store: str,
        driver: Driver,
        journal_id: str,
        *,
        transaction_timeout_seconds: float = TRANSACTION_TIMEOUT_SECONDS,
    ) -> None:
        self._store = store
        self._driver = driver
        self._journal_id = journal_id
        self._timeout_seconds = transaction_timeout_seconds
        self._worker = 0
        self._transactions = Transactions(driver, store, journal_id, transaction_timeout_seconds)
        self._takeover = Takeover(driver, store, journal_id)
        self._records = UndoRecords(store, journal_id)
        self._shares = ShareDocuments(store)

    @property
    def store(self) -> str:
        """The store's name in the configuration."""
        return self._store

    async def prepare(self, collections: Collection[str] = ()) -> None:
        """Make our collections, and these, where they are missing (F35, F37).

        Raises `ConfigurationInvalid` for a server without transactions.
        """
        await bookkeeping.prepare(self._driver, self._store, collections)

    async def load(self, units: Sequence[Unit]) -> Loaded:
        """Read the images of all keys of these units' branches here, outside any transaction.

        Majority reads at the primary: our own earlier commits are in them, because each of those
        waited for a majority, and nothing that a failover could take back.
        """
        documents = Documents()
        try:
            for each in wanted(self._store, units):
                command = {
                    "find": each.shape.collection,
                    "filter": each.condition(),
                    "readConcern": {"level": "majority"},
                    "maxTimeMS": int(self._timeout_seconds * 1000),
                }
                documents.take(each, await self._driver.find(command, _bytes_max(units)))
        except FoundTooMuch as error:
            raise too_much(self._store) from error
        except DRIVER_ERRORS as error:
            raise translate(self._store, error) from error
        # A large document is compared field by field later, instead of being held till then.
        rows = {at: raw for at, raw in documents.raws.items() if len(raw) <= _SEEN_BYTES_MAX}
        return Loaded(documents.images, rows)

    # --- apply ----------------------------------------------------------------------------------

    async def apply(
        self, lane: int, units: Sequence[Unit], preview: Preview = NOTHING_SEEN
    ) -> Applied:
        """Apply the branches in one transaction, with an undo record per unit.

        Durable on return: what ``done`` tells. Raises `BatchRefused` and `StoreBusy`, after
        which nothing of the batch is applied by this call.
        """
        try:
            return await self._apply(lane, units, preview, precisely=False)
        except WriteRefused:
            return await self._apply(lane, units, preview, precisely=True)

    async def _apply(
        self, lane: int, units: Sequence[Unit], preview: Preview, *, precisely: bool
    ) -> Applied:
        reach(FaultPoint.APPLY_BEFORE, self._store)
        async with self._transactions.begin(lane) as transaction:
            transaction.later_call(partial(reach, FaultPoint.APPLY_FENCED, self._store))
            # What is tried for the first time has no record; if it has one all the same, its
            # insertion fails, and the next attempt looks.
            doubtful = [unit for unit in units if preview.tried_before(unit.seq)]
            found = await self._records.find(transaction, doubtful) if doubtful else {}
            again = await self._again(transaction, units, found) if found else {}
            fresh = [unit for unit in units if unit.id not in found] if found else units
            documents = Documents(preview)
            for each in wanted(self._store, fresh):
                where = each.condition()
                raws = await transaction.find(each.shape.collection, where, _bytes_max(units))
                documents.take(each, raws)
            sharing = await self._sharing(units, found)
            branches, refused = decide(self._store, self._identity(), fresh, documents, sharing)
            self._check_size(branches)
            if precisely:
                statements = in_order(w for each in branches for w in each.writes_in_order())
            else:
                shared = () if sharing is None else sharing.net_writes()
                own = (w for each in branches for w in each.net_writes())
                statements = grouped(chain(own, shared))
            write_batch(transaction, self._store, statements, fresh)
            self._records.insert(transaction, (each.record_write() for each in branches))
            if sharing is not None:
                self._shares.keep(transaction, list(sharing.shares()))
            transaction.later_call(partial(reach, FaultPoint.APPLY_WRITTEN, self._store))
        reach(FaultPoint.APPLY_AFTER, self._store)
        done = {each.unit.seq: each.done for each in branches}
        done.update(again)
        blocked = self._take(units, found, done, refused)
        behind = frozenset[int]() if sharing is None else frozenset(sharing.behind)
        return Applied(done=done, refused=refused, blocked=blocked, behind=behind)

    async def _sharing(
        self, units: Sequence[Unit], found: Mapping[str, StoredUndo]
    ) -> Sharing | None:
        line = Line.of(units, self._store)
        if line is None:
            return None
        await self._part_where_judged(line, units)
        # Nobody joins those whom an earlier attempt has applied, or a compensation has stopped.
        line.stop_all(unit for unit in units if unit.id in found)
        return Sharing(line, self._store, self._journal_id)

    async def _part_where_judged(self, line: Line, units: Sequence[Unit]) -> None:
        """Let only the first on a key go where a collection judges what stands in between."""
        keys: dict[ImageKey, Unit] = {}
        counted: dict[str, set[str]] = {}
        for unit in units:
            for _, operation in unit.branch(self._store):
                at = (operation.entity, operation.key_text)
                if at in line.keys:
                    keys.setdefault(at, unit)
                    entity = unit.mapping.entities[operation.entity]
                    written = {*(operation.increment or ()), entity.version or ""}
                    counted.setdefault(entity.table, set()).update(written)
        judged = await bookkeeping.collections_with_rules(self._driver, counted)
        for (name, _), unit in keys.items():
            if unit.mapping.entities[name].table in judged:
                line.stop(unit)

    async def _again(
        self, transaction: Transaction, units: Sequence[Unit], found: Mapping[str, StoredUndo]
    ) -> dict[int, tuple[Done, ...]]:
        """Tell the branches that an earlier attempt has applied together with others (rule 7)."""
        sharers = [
            (unit, stored)
            for unit in units
            if (stored := found.get(unit.id)) is not None
            and stored.shares
            and stored.state is UndoState.APPLIED
            and stored.digest == unit.digest
        ]
        ids = {each for _, stored in sharers for each in stored.shares}
        shares = await self._shares.find(transaction, ids)
        await self._settle(transaction, shares, frozenset(unit.seq for unit in units))
        again: dict[int, tuple[Done, ...]] = {}
        for unit, stored in sharers:
            done = stored.done()
            for key in stored.keys():  # noqa: SIM118
                if (share := shares.get(key.share or "")) is not None:
                    done = done_again(unit, key, share, done)
            again[unit.seq] = done
        return again

    async def _settle(
        self, transaction: Transaction, shares: dict[str, KeyShare], open_seqs: frozenset[int]
    ) -> None:
        """Leave the sharers out of their shares that a person has ended by hand."""
        for each in list(shares.values()):
            if not any(m.parked and m.seq not in open_seqs for m in each.share.members):
                continue
            where = {"_id": {"$eq": each.names["key"]}}
            raws = await transaction.find(each.names["collection"], where)
            shares[each.id] = settled(each, raws[0] if raws else None, open_seqs)
            self._shares.keep(transaction, [shares[each.id]])

    def _take(
        self,
        units: Sequence[Unit],
        found: Mapping[str, StoredUndo],
        done: dict[int, tuple[Done, ...]],
        refused: dict[int, Problem],
    ) -> frozenset[int]:
        """Take the branches that an earlier attempt has ended (rule 7); return the blocked."""
        blocked = set()
        for unit in units if found else ():
            stored = found.get(unit.id)
            if stored is None:
                continue
            if stored.digest != unit.digest:
                refused[unit.seq] = Problem(
                    ErrorCode.ID_REUSED,
                    f"Store {self._store} holds an undo record of another content under this id, "
                    "left by a unit that the journal does not know any more.",
                    path="id",
                )
            elif stored.state is UndoState.APPLIED:
                if unit.seq not in done:
                    done[unit.seq] = stored.done()
            else:
                blocked.add(unit.seq)
        return frozenset(blocked)

    def _check_size(self, branches: Sequence[Branch]) -> None:
        size_bytes = sum(len(each.record) for each in branches)
        if len(branches) > 1 and size_bytes > _BATCH_BYTES_MAX:
            raise StoreBusy(self._store, "the batch has too many bytes for one transaction")

    # --- compensate -----------------------------------------------------------------------------

    async def compensate(self, lane: int, units: Sequence[Unit]) -> Mapping[int, Undone]:
        """Undo the branches, in one transaction if no stranger is in the way.

        Plants a tombstone where nothing was applied. Durable on return: what the result tells;
        units that are missing in it were busy. Raises `BatchRefused`, after which nothing was
        undone by this call.
        """
        result: dict[int, Undone] = {}
        ends_at = time.monotonic() + 2 * self._timeout_seconds
        parts = [units]
        while parts:
            part = parts.pop(0)
            try:
                result.update(await self._compensate_part(lane, part))
            except StoreBusy:
                middle = len(part) // 2
                if middle and time.monotonic() < ends_at:
                    parts[:0] = [part[:middle], part[middle:]]
            except BatchRefused:
                if not result:
                    raise
                # What is undone stays so; the refusal is told when the rest is tried again.
        return result

    async def _compensate_part(self, lane: int, units: Sequence[Unit]) -> Mapping[int, Undone]:
        try:
            return await self._compensate(lane, units, precisely=False)
        except WriteRefused:
            return await self._compensate(lane, units, precisely=True)

    async def _compensate(
        self, lane: int, units: Sequence[Unit], *, precisely: bool
    ) -> Mapping[int, Undone]:
        reach(FaultPoint.COMPENSATE_BEFORE, self._store)
        async with self._transactions.begin(lane) as transaction:
            transaction.later_call(partial(reach, FaultPoint.COMPENSATE_FENCED, self._store))
            found = await self._records.find(transaction, units)
            work = _Compensation()
            for unit in units:
                stored = found.get(unit.id)
                if stored is None:
                    work.missing.append(unit)
                    work.result[unit.seq] = Undone(wrote=False)
                elif stored.digest != unit.digest:
                    # Of another content: nothing of this unit is here, and nothing can come.
                    work.result[unit.seq] = Undone(wrote=False)
                elif stored.state is UndoState.APPLIED:
                    work.applied.append((unit, stored))
                else:
                    work.result[unit.seq] = Undone(wrote=stored.wrote)
            if work.applied:
                ids = {each for _, stored in work.applied for each in stored.shares}
                shared = SharedUndo(await self._shares.find(transaction, ids))
                await self._undo_applied(transaction, work, shared)
                if precisely:
                    statements = in_order([*work.writes, *shared.in_order])
                else:
                    statements = grouped([*work.writes, *shared.net_writes()])
                write_batch(transaction, self._store, statements, units)
                self._records.mark_undone(transaction, work.undone)
                self._shares.keep(transaction, list(shared.changed.values()))
            self._records.plant(transaction, self._identity(), work.missing)
            transaction.later_call(partial(reach, FaultPoint.COMPENSATE_WRITTEN, self._store))
        reach(FaultPoint.COMPENSATE_AFTER, self._store)
        return work.result

    async def _undo_applied(
        self, transaction: Transaction, work: _Compensation, shared: SharedUndo
    ) -> None:
        keys_of = {unit.seq: stored.keys() for unit, stored in work.applied}
        documents = await self._current(transaction, keys_of)
        # The last applied is the first undone.
        for unit, stored in reversed(work.applied):
            decided = decide_undo(unit, keys_of[unit.seq], documents, shared)
            if isinstance(decided, Problem):
                work.result[unit.seq] = Undone(wrote=True, problem=decided)
                shared.park(unit, keys_of[unit.seq])
                continue
            work.result[unit.seq] = Undone(wrote=stored.wrote)
            work.undone.append(unit.id)
            work.writes += decided

    async def _current(
        self, transaction: Transaction, keys_of: Mapping[int, Sequence[KeyUndo]]
    ) -> Mapping[DocumentKey, bytes | None]:
        """Read the documents of all keys as they are now."""
        by_collection: dict[str, dict[Hashable, Any]] = {}
        for keys in keys_of.values():
            for key in keys:
                collection, match = document_key(key)
                by_collection.setdefault(collection, {})[match] = key.key
        documents: dict[DocumentKey, bytes | None] = {}
        for collection, wanted_keys in by_collection.items():
            condition = {"_id": {"$in": list(wanted_keys.values())}}
            found = documents_by_match(await transaction.find(collection, condition))
            for match in wanted_keys:
                documents[collection, match] = found.get(match)
        return documents

    # --- what both need -------------------------------------------------------------------------

    def _identity(self) -> Identity:
        return Identity(self._journal_id, self._worker, datetime.now(UTC))

    # --- duties ---------------------------------------------------------------------------------

    async def enrol(self, worker: int, lanes: int) -> None:
        """Make this worker's fences (and our collections, if need be). Raises `Fenced`."""
        await self.prepare()
        await self._transactions.enrol(worker, lanes)
        self._worker = worker

    async def fence(self, worker: int) -> None:
        """Fence another worker: when this returns, no transaction of it can commit here (I9)."""
        await self.prepare()
        await self._takeover.fence(worker)

    async def sweep(self, unit_ids: Sequence[str]) -> None:
        """Delete the undo records and tombstones of units that are final for long."""
        for start in range(0, len(unit_ids), _SWEEP_IDS_MAX):
            part = unit_ids[start : start + _SWEEP_IDS_MAX]
            async with self._transactions.begin(WORKER_LANE) as transaction:
                self._records.delete(transaction, part)
                self._shares.sweep(transaction, part)

    async def forget_workers(self, workers: Collection[int]) -> None:
        """Delete the fences of workers that were fenced long ago; see the port."""
        await self._transactions.forget(workers)

    async def ping(self) -> None:
        """Answer if the store is reachable and writable; else raise `StoreUnavailable`."""
        try:
            hello = await self._driver.run({"hello": 1, "maxTimeMS": 2_000})
        except DRIVER_ERRORS as error:
            raise translate(self._store, error) from error
        if not hello.get("isWritablePrimary"):
            raise StoreUnavailable(self._store, "the server takes no writes (no primary?)")

    async def close(self) -> None:
        """Let connections go, in bounded time."""
        await self._transactions.close()
        await self._driver.close()


@dataclass(slots=True)
class _Compensation:
    """A compensation in the making."""

    result: dict[int, Undone] = field(default_factory=dict)
    missing: list[Unit] = field(default_factory=list)
    applied: list[tuple[Unit, StoredUndo]] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    writes: list[DocumentWrite] = field(default_factory=list)
