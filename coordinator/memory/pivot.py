"""The pivot in memory: commits units, refuses them, or ends their undo, each in one step.

Mirrors `coordinator.journal.pivot` with ``hold_units`` and ``conclude`` of the migrations. Nothing
is changed when a step raises. I4, I7, I8, I9.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from coordinator.domain import announce
from coordinator.domain.errors import BatchRefused, InvariantViolated, Problem
from coordinator.domain.lifecycle import FINAL_STATUSES, Status, Transition, next_status
from coordinator.domain.operation import Unit
from coordinator.domain.preview import NOTHING_SEEN, Loaded, Preview
from coordinator.domain.publishing import Done, Message
from coordinator.domain.refusals import cancelled, too_late
from coordinator.domain.sharing import Line
from coordinator.engine.ports import JOURNAL, Candidate, Concluded, Ending, Refusal
from coordinator.engine.turns import in_turn
from coordinator.memory.branches import BranchWork, load
from coordinator.memory.journal_tables import UnitRow
from coordinator.memory.link import Link, fence_of, rows_of
from coordinator.memory.world import World


@dataclass(frozen=True, slots=True)
class _Change:
    row: UnitRow
    after: Status
    cause: Problem | None = None
    problem: Problem | None = None
    outcome: bytes | None = None


@dataclass(slots=True)
class _Decided:
    """What a step decides, in the making."""

    at: datetime
    changes: list[_Change] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    ended: dict[int, tuple[Status, Problem | None]] = field(default_factory=dict)
    compensating: dict[int, Problem] = field(default_factory=dict)
    parked: dict[int, Problem] = field(default_factory=dict)
    busy: frozenset[int] = frozenset()
    behind: frozenset[int] = frozenset()
    lost: frozenset[int] = frozenset()

    def result(self) -> Concluded:
        return Concluded(
            self.ended,
            self.compensating,
            self.parked,
            busy=self.busy,
            behind=self.behind,
            lost=self.lost,
        )


class MemoryPivot:
    """Concludes units of one worker."""

    def __init__(self, world: World, worker: int, link: Link) -> None:
        self._world = world
        self._journal = world.journal
        self._worker = worker
        self._link = link
        self._tables = None if world.pivot_store is None else world.stores[world.pivot_store]

    async def load(self, units: Sequence[Unit]) -> Loaded:
        """Read the images of the journal store's branches, without locks."""
        if self._tables is None:
            return Loaded({}, {})
        read = partial(load, self._tables, units)
        return Loaded(await self._link.read(JOURNAL, "load", read), {})

    # --- forward ------------------------------------------------------------------------------

    async def conclude(
        self,
        candidates: Sequence[Candidate],
        refusals: Sequence[Refusal],
        preview: Preview = NOTHING_SEEN,
    ) -> Concluded:
        """Commit what can be committed and refuse the rest; see the port."""
        step = partial(self._conclude, candidates, refusals)
        units = [*(each.unit for each in candidates), *(each.unit for each in refusals)]
        return await self._transaction("conclude", step, units)

    def _conclude(self, candidates: Sequence[Candidate], refusals: Sequence[Refusal]) -> Concluded:
        units = {each.unit.seq: each.unit for each in candidates}
        units.update({each.unit.seq: each.unit for each in refusals})
        decided = _Decided(self._world.now())
        held = self._hold(units, Status.ACCEPTED, decided)
        going = []
        for candidate in candidates:
            row = held.get(candidate.unit.seq)
            if row is None:
                continue
            stop = self._stopped(candidate.unit, row)
            if stop is None:
                going.append(candidate)
            else:
                self._refuse(decided, row, candidate.unit, stop, in_doubt=candidate.in_doubt)
        for refusal in refusals:
            row = held.get(refusal.unit.seq)
            if row is not None:
                problem, in_doubt = refusal.problem, refusal.in_doubt
                self._refuse(decided, row, refusal.unit, problem, in_doubt=in_doubt)
        line, kept, decided.behind = in_turn(candidates, refusals, going, decided.ended)
        work = self._commit_units(kept, held, line, decided)
        self._write(decided, work)
        return decided.result()

    def _commit_units(
        self,
        candidates: Sequence[Candidate],
        held: Mapping[int, UnitRow],
        line: Line | None,
        decided: _Decided,
    ) -> BranchWork | None:
        work = None
        if self._tables is not None and candidates:
            work = BranchWork(self._tables, self._worker, line)
            work.apply([each.unit for each in candidates])
            decided.busy = frozenset(work.busy)
            decided.behind |= work.behind
        too_large: dict[int, Problem] = {}
        for candidate in candidates:
            unit = candidate.unit
            done = candidate.done
            if work is not None:
                if unit.seq in work.busy or unit.seq in work.behind:
                    continue
                if unit.seq in work.refused:
                    problem = work.refused[unit.seq]
                    row = held[unit.seq]
                    self._refuse(decided, row, unit, problem, in_doubt=candidate.in_doubt)
                    continue
                done = (*done, *work.done.get(unit.seq, ()))
            large = self._commit(decided, held[unit.seq], unit, done)
            if large is not None:
                too_large[unit.seq] = large
        if too_large:
            raise BatchRefused(JOURNAL, next(iter(too_large.values())), too_large)
        return work

    def _commit(
        self, decided: _Decided, row: UnitRow, unit: Unit, done: Sequence[Done]
    ) -> Problem | None:
        """Note a commit and what it publishes; a problem if a topic cannot take it (F26)."""
        after = next_status(Status.ACCEPTED, Transition.PIVOT_COMMITTED)
        value = announce.outcome_value(
            announce.Verdict(
                unit.id,
                unit.digest,
                after,
                (),
                unit.received_at,
                decided.at,
                unit.metadata,
                announce.committed_operations(unit, done),
            )
        )
        messages = announce.change_messages(self._world.announcer, unit, done, decided.at)
        messages += self._outcome(unit, after, value, decided.at)
        problem = announce.oversize(self._world.announcer, messages)
        if problem is not None:
            return problem
        decided.messages += messages
        decided.changes.append(_Change(row, after, outcome=value))
        decided.ended[unit.seq] = (after, None)
        return None

    def _refuse(
        self, decided: _Decided, row: UnitRow, unit: Unit, problem: Problem, *, in_doubt: bool
    ) -> None:
        if in_doubt:
            after = next_status(Status.ACCEPTED, Transition.REFUSED_IN_DOUBT)
            decided.changes.append(_Change(row, after, cause=problem))
            decided.compensating[unit.seq] = problem
            return
        after = next_status(Status.ACCEPTED, Transition.REFUSED_UNTOUCHED)
        self._end(decided, row, unit, after, problem)

    async def settle(self, units: Sequence[Unit]) -> Concluded:
        """Say which of these units are not `accepted` any more; see the port."""
        return await self._transaction("settle", partial(self._settle, units), units)

    def _settle(self, units: Sequence[Unit]) -> Concluded:
        decided = _Decided(self._world.now())
        self._hold({unit.seq: unit for unit in units}, Status.ACCEPTED, decided)
        return decided.result()

    # --- backward -----------------------------------------------------------------------------

    async def finish(self, endings: Sequence[Ending]) -> Concluded:
        """End compensations: status, outcome, locks released; see the port."""
        units = [each.unit for each in endings]
        return await self._transaction("finish", partial(self._finish, endings), units)

    def _finish(self, endings: Sequence[Ending]) -> Concluded:
        decided = _Decided(self._world.now())
        units = {each.unit.seq: each.unit for each in endings}
        held = self._hold(units, Status.COMPENSATING, decided)
        for ending in endings:
            row = held.get(ending.unit.seq)
            if row is None:
                continue
            if ending.problem is not None:
                self._park(decided, row, ending, ending.problem)
                continue
            way = Transition.UNDONE if ending.wrote else Transition.FOUND_NOTHING
            after = next_status(Status.COMPENSATING, way)
            self._end(decided, row, ending.unit, after, ending.cause)
        self._write(decided, None)
        return decided.result()

    def _park(self, decided: _Decided, row: UnitRow, ending: Ending, problem: Problem) -> None:
        shown = Problem(
            problem.code,
            f"{problem.message} It was being undone because: {ending.cause.message}",
            problem.path,
            problem.operation,
            problem.entity,
            problem.key,
        )
        after = next_status(Status.COMPENSATING, Transition.PERSON_NEEDED)
        value = self._tell(decided, ending.unit, after, shown)
        decided.changes.append(_Change(row, after, ending.cause, shown, value))
        decided.parked[ending.unit.seq] = shown

    # --- both ---------------------------------------------------------------------------------

    async def _transaction(
        self, what: str, step: Callable[[], Concluded], units: Sequence[Unit]
    ) -> Concluded:
        fence = {fence_of(self._worker)}
        return await self._link.call(JOURNAL, what, step, rows=rows_of(units), shared=fence)

    def _hold(
        self, units: Mapping[int, Unit], expected: Status, decided: _Decided
    ) -> dict[int, UnitRow]:
        """Sort out the rows that are not as we thought; give the rest by seq."""
        self._journal.hold_fence(self._worker)
        held: dict[int, UnitRow] = {}
        lost = set()
        for seq, unit in units.items():
            row = self._journal.units.get(seq)
            if row is None or row.worker != self._worker:
                lost.add(seq)
            elif self._is_as_expected(row, expected):
                held[seq] = row
            elif row.status in FINAL_STATUSES:
                decided.ended[seq] = (row.status, row.cause)
            elif row.status is Status.COMPENSATING:
                decided.compensating[seq] = _told(row.cause, unit)
            elif row.status is Status.PARKED:
                decided.parked[seq] = _told(row.problem, unit)
            else:
                raise InvariantViolated(f"unit {unit.id} is {row.status}, not {expected}")
        decided.lost = frozenset(lost)
        return held

    def _is_as_expected(self, row: UnitRow, expected: Status) -> bool:
        """The compare of the compare-and-set on the status (rule 2)."""
        return row.status is expected

    def _stopped(self, unit: Unit, row: UnitRow) -> Problem | None:
        if row.cancel_requested is not None:
            return cancelled(row.cancel_requested)
        return too_late(unit) if row.deadline_at <= self._world.now() else None

    def _end(
        self, decided: _Decided, row: UnitRow, unit: Unit, after: Status, problem: Problem
    ) -> None:
        value = self._tell(decided, unit, after, problem)
        decided.changes.append(_Change(row, after, problem, outcome=value))
        decided.ended[unit.seq] = (after, problem)

    def _tell(self, decided: _Decided, unit: Unit, status: Status, problem: Problem) -> bytes:
        verdict = announce.Verdict(
            unit.id,
            unit.digest,
            status,
            (problem,),
            unit.received_at,
            decided.at,
            unit.metadata,
        )
        value = announce.outcome_value(verdict)
        decided.messages += self._outcome(unit, status, value, decided.at)
        return value

    def _outcome(self, unit: Unit, status: Status, value: bytes, at: datetime) -> list[Message]:
        kind = "parked" if status is Status.PARKED else "outcome"
        return announce.outcome_messages(
            self._world.announcer,
            unit_id=unit.id,
            ce_id=f"{unit.id}/{kind}",
            status=status,
            value=value,
            finished_at=at,
            reply_to=unit.reply_to,
            traceparent=unit.traceparent,
            shorten=status is not Status.COMMITTED,
        )

    def _write(self, decided: _Decided, work: BranchWork | None) -> None:
        """The last statements: nothing can fail from here on."""
        witness = self._world.witness
        if work is not None:
            work.tables.keep(work.draft)
            for seen in work.seen:
                witness.wrote(seen)
        for change in decided.changes:
            row = change.row
            before, row.status = row.status, change.after
            row.cause = change.cause or row.cause
            row.problem = change.problem
            row.outcome = change.outcome or row.outcome
            if not row.is_open:
                row.finished_at = decided.at
                row.swept = not row.stores
                self._journal.release_locks(row.seq)
            witness.decided(row.seq, before, change.after)
        if decided.changes:
            witness.changed(JOURNAL, self._worker, "conclude")
            self._journal.publish(decided.messages)


def _told(problem: Problem | None, unit: Unit) -> Problem:
    if problem is None:
        raise InvariantViolated(f"the journal does not tell why unit {unit.id} was refused")
    return problem
