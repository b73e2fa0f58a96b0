"""The participant of a store in memory; see `coordinator.engine.ports.Participant`.

`apply` and `compensate` stand one above the other. Each is one step on the store's tables: the
fence first, then undo records, then rows; nothing is changed when it raises. I1, I3, I6, I9, I11.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TypeVar

from coordinator.domain.decide import Effect, ImageKey
from coordinator.domain.errors import ErrorCode, Fenced, Problem
from coordinator.domain.operation import Unit
from coordinator.domain.preview import NOTHING_SEEN, Loaded, Preview
from coordinator.domain.publishing import Done
from coordinator.domain.sharing import (
    Escrow,
    Line,
    Member,
    Share,
    images_of,
    member_of,
    shared_operations,
)
from coordinator.engine.ports import Applied, Undone
from coordinator.memory.branches import BranchWork, load, one_done, refused
from coordinator.memory.link import Link, fence_of, rows_of
from coordinator.memory.store_tables import Draft, Forbidden, StoreTables, UndoRecord
from coordinator.memory.undo import KeyUndo, decide_undo, undo_of
from coordinator.memory.witness import RowWrite, Way
from coordinator.memory.world import World

ResultT = TypeVar("ResultT")
APPLIED, UNDONE, TOMBSTONE = "applied", "undone", "tombstone"


class MemoryParticipant:
    """Applies and undoes branches in one store of the world, for one worker."""

    def __init__(self, world: World, store: str, link: Link) -> None:
        self._world = world
        self._tables: StoreTables = world.stores[store]
        self._store = store
        self._link = link
        self._worker = 0

    @property
    def store(self) -> str:
        """The store's name in the configuration."""
        return self._store

    async def load(self, units: Sequence[Unit]) -> Loaded:
        """Read the images of all keys of these units' branches here, without locks."""
        read = partial(load, self._tables, units)
        return Loaded(await self._link.read(self._store, "load", read), {})

    # --- apply ----------------------------------------------------------------------------------

    async def apply(
        self, lane: int, units: Sequence[Unit], preview: Preview = NOTHING_SEEN
    ) -> Applied:
        """Apply the branches in one step, with an undo record per unit; see the port.

        A preview only spares work, and here is none to be spared.
        """
        return await self._transaction("apply", partial(self._apply, units), units)

    def _apply(self, units: Sequence[Unit]) -> Applied:
        self._tables.hold_fence(self._worker)
        done: dict[int, tuple[Done, ...]] = {}
        refusals: dict[int, Problem] = {}
        blocked: set[int] = set()
        fresh: list[Unit] = []
        for unit in units:
            record = self._recorded(unit)
            if record is None:
                fresh.append(unit)
            elif record.digest != unit.digest:
                refusals[unit.seq] = _reused(self._store)
            elif record.state == APPLIED:
                done[unit.seq] = self._taken(unit, record, frozenset(u.seq for u in units))
            else:
                blocked.add(unit.seq)
        line = Line.of(units, self._store)
        if line is not None:
            # Nobody joins those whom an earlier attempt has applied.
            line.stop_all(unit for unit in units if unit.id in self._tables.undo)
        escrow = None if line is None else Escrow(line)
        work = BranchWork(self._tables, self._worker, line, escrow)
        work.apply(fresh)
        shared = frozenset[ImageKey]() if line is None else self._share(line, work, fresh)
        self._tables.keep(work.draft)
        for unit in fresh:
            if unit.seq in work.done:
                self._record(unit, work, shared)
        for seen in work.seen:
            self._world.witness.wrote(seen)
        return Applied(
            done={**done, **work.done},
            refused={**refusals, **work.refused},
            blocked=frozenset(blocked),
            busy=frozenset(work.busy),
            behind=frozenset(work.behind),
        )

    def _share(self, line: Line, work: BranchWork, fresh: Sequence[Unit]) -> frozenset[ImageKey]:
        """Remember the sharers of each key beside what they wrote (see `Share`)."""
        members: dict[ImageKey, list[Member]] = {}
        for unit in fresh:
            if unit.seq in work.done:
                for at, operations in shared_operations(unit, self._store, line.keys).items():
                    members.setdefault(at, []).append(member_of(unit, (o for _, o in operations)))
        for at, of_key in members.items():
            image = self._tables.rows[at]
            if image is not None:
                version = self._world.mapping.entities[at[0]].version
                self._tables.shares[at] = Share.begin(image, version, of_key)
        return frozenset(members)

    def _recorded(self, unit: Unit) -> UndoRecord | None:
        """The barrier: what an earlier attempt has done, or a compensation planted (I3)."""
        return self._tables.undo.get(unit.id)

    def _taken(self, unit: Unit, record: UndoRecord, open_seqs: frozenset[int]) -> tuple[Done, ...]:
        """A branch found applied is taken as its record tells it (rule 7).

        Of a shared key without the deltas of those that have been undone since.
        """
        done = record.done
        for key in record.keys:
            if key.at in record.shared:
                done = self._without_the_undone(unit, key, done, open_seqs)
        return done

    def _without_the_undone(
        self, unit: Unit, key: KeyUndo, done: tuple[Done, ...], open_seqs: frozenset[int]
    ) -> tuple[Done, ...]:
        share, image = self._tables.shares.get(key.at), key.steps[0].before
        if share is None or share.member(unit.seq) is None or image is None:
            return done
        version, row = key.entity.version, self._tables.rows[key.at]
        held = None if row is None or version is None else row.get(version)
        share = self._tables.shares[key.at] = share.settled(open_seqs, held)
        operations = shared_operations(unit, self._store, {key.at})[key.at]
        seen = {
            position: one_done(key.entity, position, Effect.UPDATED, before, after)
            for position, before, after in images_of(share, unit.seq, version, image, operations)
        }
        return tuple(seen.get(each.position, each) for each in done)

    def _record(self, unit: Unit, work: BranchWork, shared: frozenset[ImageKey]) -> None:
        writes = work.writes[unit.seq]
        self._tables.undo[unit.id] = UndoRecord(
            unit.seq,
            unit.digest,
            APPLIED,
            any(write.effect is not Effect.NOTHING for write in writes),
            undo_of(unit, writes),
            work.done[unit.seq],
            shared.intersection((w.operation.entity, w.operation.key_text) for w in writes),
        )
        self._tell(unit, APPLIED)

    # --- compensate -----------------------------------------------------------------------------

    async def compensate(self, lane: int, units: Sequence[Unit]) -> Mapping[int, Undone]:
        """Undo the branches in one step; plant tombstones where nothing was; see the port."""
        return await self._transaction("compensate", partial(self._compensate, units), units)

    def _compensate(self, units: Sequence[Unit]) -> Mapping[int, Undone]:
        self._tables.hold_fence(self._worker)
        result: dict[int, Undone] = {}
        draft = Draft(self._tables)
        shares = dict(self._tables.shares)
        undone: list[tuple[Unit, UndoRecord]] = []
        missing: list[Unit] = []
        seen: list[RowWrite] = []
        for unit in reversed(units):
            record = self._tables.undo.get(unit.id)
            if record is None:
                missing.append(unit)
                result[unit.seq] = Undone(wrote=False)
            elif record.digest != unit.digest:
                result[unit.seq] = Undone(wrote=False)
            elif record.state != APPLIED:
                result[unit.seq] = Undone(wrote=record.wrote)
            elif not any(key.at in self._tables.held for key in record.keys):
                problem = self._undo(unit, record, draft, shares, seen, units)
                result[unit.seq] = Undone(
                    wrote=problem is not None or record.wrote, problem=problem
                )
                if problem is None:
                    undone.append((unit, record))
        self._tables.keep(draft)
        self._tables.shares = {at: share for at, share in shares.items() if share.members}
        for unit, record in undone:
            record.state = UNDONE
            self._tell(unit, UNDONE)
        for unit in missing:
            self._plant(unit)
        for each in seen:
            self._world.witness.wrote(each)
        return result

    def _undo(
        self,
        unit: Unit,
        record: UndoRecord,
        draft: Draft,
        shares: dict[ImageKey, Share],
        seen: list[RowWrite],
        units: Sequence[Unit],
    ) -> Problem | None:
        shared = {at: shares[at] for at in record.shared if at in shares}
        targets = decide_undo(unit, record.keys, draft, shared)
        if isinstance(targets, Problem):
            shares.update({at: share.parked(unit.seq) for at, share in shared.items()})
            return targets
        shares.update(shared)
        for key, target in targets:
            before = draft[key.at]
            try:
                draft.write(key.at, target)
            except Forbidden as refusal:
                raise refused(self._tables, unit, units, str(refusal)) from refusal
            seen.append(
                RowWrite(
                    self._store,
                    self._worker,
                    unit.seq,
                    key.steps[-1].position,
                    Way.UNDO,
                    key.at,
                    before,
                    target,
                )
            )
        return None

    def _plant(self, unit: Unit) -> None:
        """Plant the tombstone that blocks an apply that comes late (rule 1)."""
        self._tables.undo[unit.id] = UndoRecord(unit.seq, unit.digest, TOMBSTONE)
        self._tell(unit, TOMBSTONE)

    # --- duties ---------------------------------------------------------------------------------

    async def enrol(self, worker: int, lanes: int) -> None:
        """Make this worker's fence; raises `Fenced`."""
        fence = {fence_of(worker)}
        await self._link.call(self._store, "enrol", partial(self._enrol, worker), rows=fence)
        self._worker = worker

    def _enrol(self, worker: int) -> None:
        forgotten = worker <= self._tables.forgotten_worker
        if forgotten or self._tables.fences.setdefault(worker, False):
            raise Fenced(f"worker {worker} has been fenced at {self._store}")

    async def fence(self, worker: int) -> None:
        """Fence another worker: when this returns, nothing of it can commit here (I9)."""
        fence = {fence_of(worker)}
        await self._link.call(self._store, "fence", partial(self._fence, worker), rows=fence)

    def _fence(self, worker: int) -> None:
        self._tables.fences[worker] = True
        self._world.witness.fenced(self._store, worker)

    async def sweep(self, unit_ids: Sequence[str]) -> None:
        """Delete the undo records and tombstones of units that are final for long."""
        await self._transaction("sweep", partial(self._sweep, unit_ids), ())

    def _sweep(self, unit_ids: Sequence[str]) -> None:
        self._tables.hold_fence(self._worker)
        for unit_id in unit_ids:
            if self._tables.undo.pop(unit_id, None) is not None:
                self._world.witness.swept(self._store, unit_id)
        self._world.witness.changed(self._store, self._worker, "sweep")

    async def forget_workers(self, workers: Collection[int]) -> None:
        """Delete the fences of workers that were fenced long ago; see the port."""
        await self._transaction("forget_workers", partial(self._forget_workers, workers), ())

    def _forget_workers(self, workers: Collection[int]) -> None:
        self._tables.hold_fence(self._worker)
        for worker in workers:
            if self._tables.fences.get(worker):
                del self._tables.fences[worker]
            self._tables.forgotten_worker = max(self._tables.forgotten_worker, worker)

    async def ping(self) -> None:
        """Answer if the store is reachable."""
        await self._link.read(self._store, "ping", _nothing)

    async def close(self) -> None:
        """There is nothing to let go."""

    async def _transaction(
        self, what: str, step: Callable[[], ResultT], units: Sequence[Unit]
    ) -> ResultT:
        fence = {fence_of(self._worker)}
        return await self._link.call(self._store, what, step, rows=rows_of(units), shared=fence)

    def _tell(self, unit: Unit, state: str) -> None:
        self._world.witness.recorded(self._store, self._worker, unit.seq, state)


def _nothing() -> None:
    return None


def _reused(store: str) -> Problem:
    return Problem(
        ErrorCode.ID_REUSED,
        f"Store {store} holds an undo record of another content under this id, "
        "left by a unit that the journal does not know any more.",
        path="id",
    )
