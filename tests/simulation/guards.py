"""The guards that can be taken out, one at a time, to see whether the simulation notices.

Each is a promise of an adapter or a rule of the engine, put out of force in this process by
replacing one function. A guard whose loss nobody notices has no test.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from coordinator.domain import submission
from coordinator.domain.decide import decide_branch
from coordinator.domain.errors import BatchRefused, ErrorCode, Problem, StoreUnavailable
from coordinator.domain.operation import Unit
from coordinator.domain.publishing import Done, Message
from coordinator.domain.sharing import Escrow, Line, Verdict
from coordinator.engine import admission, compensation, execution, reporting
from coordinator.engine.execution import Execution
from coordinator.engine.halving import Tried, try_in_parts
from coordinator.engine.locks import LockQueues
from coordinator.engine.membership import Membership
from coordinator.engine.ports import JOURNAL, Applied, Pivot
from coordinator.engine.reporting import Reporting
from coordinator.engine.schedule import Entry
from coordinator.memory import undo
from coordinator.memory.admission import MemoryAdmission
from coordinator.memory.branches import done_of
from coordinator.memory.duties import MemoryDuties
from coordinator.memory.journal_tables import JournalTables, UnitRow
from coordinator.memory.outbox import MemoryOutbox
from coordinator.memory.participant import APPLIED, MemoryParticipant
from coordinator.memory.pivot import MemoryPivot
from coordinator.memory.store_tables import StoreTables, UndoRecord

GUARDS: dict[str, Callable[[], None]] = {}


def take_out(name: str) -> None:
    """Take one guard out of this process, for good."""
    GUARDS[name]()


def _guard(switch: Callable[[], None]) -> Callable[[], None]:
    GUARDS[switch.__name__.replace("_", "-")] = switch
    return switch


def _nothing(*_: object, **__: object) -> None:
    return None


async def _unasked(pivot: Pivot, reporting: Reporting, entries: Sequence[Entry]) -> Sequence[Entry]:
    return entries


def _replace(owner: Any, name: str, by: object) -> None:
    if not hasattr(owner, name):
        raise AttributeError(f"{owner!r} has no {name}: the guard is somewhere else by now")
    setattr(owner, name, by)


@_guard
def undo_record_barrier() -> None:
    """An undo record that is there no longer stops a second apply (I3)."""

    def recorded(self: MemoryParticipant, unit: Unit) -> UndoRecord | None:
        record = self._tables.undo.get(unit.id)
        return None if record is not None and record.state == APPLIED else record

    _replace(MemoryParticipant, "_recorded", recorded)


@_guard
def tombstone() -> None:
    """A compensation that finds nothing writes nothing, and so waits for nobody (rule 1)."""

    async def compensate(
        self: MemoryParticipant, lane: int, units: Sequence[Unit]
    ) -> Mapping[int, Any]:
        step = partial(self._compensate, units)
        return await self._link.call(self._store, "compensate", step)

    _replace(MemoryParticipant, "_plant", _nothing)
    _replace(MemoryParticipant, "compensate", compensate)


@_guard
def participant_fence() -> None:
    """A fenced worker may go on at a store (I9)."""
    _replace(StoreTables, "hold_fence", _nothing)


@_guard
def journal_fence() -> None:
    """A fenced worker may go on in the journal (I9)."""
    _replace(JournalTables, "hold_fence", _nothing)


@_guard
def position_compare_and_set() -> None:
    """Whoever has read a partition may move its position."""
    _replace(MemoryAdmission, "_may_move", lambda *_: True)


@_guard
def lock_order() -> None:
    """Units of one worker do not wait for each other (I5)."""
    _replace(LockQueues, "is_free", lambda *_: True)


@_guard
def waiting_elsewhere() -> None:
    """Nobody waits for another worker's units (I5)."""

    def still_elsewhere(self: MemoryDuties, seqs: Collection[int]) -> frozenset[int]:
        return frozenset()

    _replace(MemoryDuties, "_still_elsewhere", still_elsewhere)


@_guard
def foreign_write_check() -> None:
    """Undo does not look whether somebody else has written (I6)."""
    _replace(undo, "is_foreign", lambda *_: False)


@_guard
def deciding_once() -> None:
    """A branch that is found applied is decided again (rule 7)."""
    apply = MemoryParticipant._apply

    def decides_again(self: MemoryParticipant, units: Sequence[Unit]) -> Applied:
        records = self._tables.undo
        found = [each for each in units if each.id in records]
        found = [each for each in found if records[each.id].state == APPLIED]
        again = {each.seq: decide_branch(each, self._store, self._tables.rows) for each in found}
        applied = apply(self, units)
        done, refused = dict(applied.done), dict(applied.refused)
        for unit in found:
            decided = again[unit.seq]
            if isinstance(decided, Problem):
                del done[unit.seq]
                refused[unit.seq] = decided
            else:
                done[unit.seq] = done_of(unit, decided)
        return Applied(done, refused, blocked=applied.blocked, busy=applied.busy)

    _replace(MemoryParticipant, "_apply", decides_again)


@_guard
def direction_first() -> None:
    """A unit is undone before the journal says that it goes back (rule 2)."""
    refuse = MemoryPivot._refuse

    def undoes_first(
        self: MemoryPivot,
        decided: Any,
        row: UnitRow,
        unit: Unit,
        problem: Problem,
        *,
        in_doubt: bool,
    ) -> None:
        if in_doubt:
            decided.compensating[unit.seq] = problem
        else:
            refuse(self, decided, row, unit, problem, in_doubt=False)

    _replace(MemoryPivot, "_refuse", undoes_first)


@_guard
def doubt_of_an_apply() -> None:
    """A refusal after an apply was sent ends the unit as if nothing had been (rule 1)."""
    refuse = MemoryPivot._refuse

    def ends_it(self: MemoryPivot, *arguments: Any, in_doubt: bool) -> None:
        refuse(self, *arguments, in_doubt=False)

    _replace(MemoryPivot, "_refuse", ends_it)


@_guard
def retry_class() -> None:
    """A store that does not answer counts as one that refuses (I11, the error tree)."""

    async def tries(
        units: Sequence[Unit], attempt: Callable[[Sequence[Unit]], Awaitable[Any]]
    ) -> Tried[Any]:
        async def attempts(part: Sequence[Unit]) -> Any:
            try:
                return await attempt(part)
            except StoreUnavailable as error:
                problem = Problem(ErrorCode.STORE_REFUSED, error.message)
                raise BatchRefused(error.store, problem) from error

        return await try_in_parts(units, attempts)

    _replace(reporting, "try_in_parts", tries)


@_guard
def byte_bound() -> None:
    """A submission may be as large as it likes (I12)."""
    read = submission.read

    def reads(value: Any, headers: Any, mapping: Any, max_bytes: int, *rest: Any) -> Any:
        return read(value, headers, mapping, 1 << 40, *rest)

    _replace(admission, "read", reads)


@_guard
def newcomers_atomicity() -> None:
    """A duplicate is forgotten in one transaction and answered in another (F4)."""

    async def answer_newcomers(self: MemoryDuties, limit: int) -> int:
        due: list[Message] = []

        def forget() -> None:
            for newcomer, row in self._due(limit):
                due.extend(self._answer(newcomer, row))
                del self._journal.newcomers[newcomer.id]

        await self._link.call(JOURNAL, "answer", forget)
        await self._link.call(JOURNAL, "answer", partial(self._journal.publish, due))
        return len(due)

    _replace(MemoryDuties, "answer_newcomers", answer_newcomers)


@_guard
def outbox_order() -> None:
    """The outbox is read from its end (I8)."""

    def claim(
        self: MemoryOutbox, rows_max: int, skip: Collection[int]
    ) -> Sequence[tuple[int, Sequence[Message]]]:
        ids = sorted(self._journal.outbox, reverse=True)
        return [(each, self._journal.outbox[each]) for each in ids[:rows_max]]

    _replace(MemoryOutbox, "_claim", claim)


@_guard
def status_compare_and_set() -> None:
    """A unit is concluded whatever its status is by now (rule 2)."""
    _replace(MemoryPivot, "_is_as_expected", lambda *_: True)


@_guard
def finding_the_missing() -> None:
    """After a lost answer nobody asks the journal what it made ours (I7)."""

    async def find_missing(self: Membership) -> None:
        return None

    _replace(Membership, "find_missing", find_missing)


@_guard
def waiting_in_doubt() -> None:
    """While units may be ours unknown to us, others are let go past them (I5)."""
    _replace(Membership, "is_doubtful", False)


@_guard
def settling_first() -> None:
    """A unit whose decision was lost runs again without a question (I11)."""

    _replace(execution, "settled", _unasked)


@_guard
def settling_before_undoing() -> None:
    """A compensation whose end was lost runs again without a question: a tombstone stays."""
    _replace(compensation, "settled", _unasked)


@_guard
def epoch_of_admissions() -> None:
    """An admission that was given up may still happen (I11)."""
    _replace(MemoryAdmission, "_in_its_time", _nothing)


@_guard
def sweep_after_the_end() -> None:
    """Undo records are swept while their unit is open (I3)."""

    def unswept(
        self: MemoryDuties, age_seconds: float, limit: int, stores: frozenset[str]
    ) -> Sequence[tuple[str, Sequence[str]]]:
        rows = self._journal.units.values()
        return [(row.id, tuple(sorted(row.stores))) for row in rows if not row.swept]

    _replace(MemoryDuties, "_unswept", unswept)


@_guard
def journaled_status() -> None:
    """`rejected` or `compensated` is guessed by the last attempt, not told by the record (F6)."""
    compensate = MemoryParticipant._compensate

    def forgets(self: MemoryParticipant, units: Sequence[Unit]) -> Mapping[int, Any]:
        result = compensate(self, units)
        for unit in units:
            record = self._tables.undo.get(unit.id)
            if record is not None:
                record.wrote = False
        return result

    _replace(MemoryParticipant, "_compensate", forgets)


@_guard
def escrow() -> None:
    """A debit counts the uncommitted credits of others, a credit their debits (F23)."""
    _replace(Escrow, "judge", lambda *_: Verdict.PASSES)


@_guard
def images_without_the_undone() -> None:
    """A sharer that runs again is told as it was applied, undone deltas of others included (I8)."""

    def as_applied(
        self: MemoryParticipant, unit: Unit, key: Any, done: tuple[Done, ...], seqs: frozenset[int]
    ) -> tuple[Done, ...]:
        return done

    _replace(MemoryParticipant, "_without_the_undone", as_applied)


@_guard
def staying_behind() -> None:
    """A sharer goes past an earlier one that is not applied, or not committed (I5, I8)."""
    _replace(Line, "holds", lambda *_: False)


@_guard
def version_of_the_share() -> None:
    """Undo of a sharer takes the other sharers' writes for a stranger's (F28)."""

    def by_itself(key: Any, share: Any, row: Any) -> bool:
        version = key.entity.version
        left = key.steps[-1].after
        return row is None or (version is not None and row[version] != left[version])

    _replace(undo, "is_shared_foreign", by_itself)


@_guard
def refusing_before_passing() -> None:
    """A refusal is journaled after others have gone past it (I5)."""

    async def later(self: Any, line: Any, entries: Any, refused: Any) -> Any:
        return entries

    _replace(Execution, "_refuse_first", later)
