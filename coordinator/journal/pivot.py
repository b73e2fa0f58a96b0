"""The pivot: the journal's transaction that commits units, refuses them, or ends their undo.

Overview of `JournalPivot.conclude`, in one transaction: the fence; the unit rows locked in order
(only those that are still `accepted`, ours, not cancelled and in time go on); the data of the
journal's own store; then, as its last statement, statuses, locks and the outbox row. A crash
before COMMIT leaves nothing of it; a lost answer to COMMIT is settled by the next attempt, which
finds the rows as they are (I11). I4, I7, I8, I9.

Where all of that can be told beforehand it is tried in a single statement first: see `foretold`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import orjson

from coordinator import postgres_pool
from coordinator.domain import announce
from coordinator.domain.errors import BatchRefused, InvariantViolated, Problem, StoreBusy
from coordinator.domain.lifecycle import FINAL_STATUSES, Status, Transition, next_status
from coordinator.domain.operation import Unit
from coordinator.domain.preview import NOTHING_SEEN, Loaded, Preview
from coordinator.domain.publishing import Done, Message
from coordinator.domain.refusals import cancelled, too_late
from coordinator.domain.sharing import Line
from coordinator.engine.clock import Clock
from coordinator.engine.ports import JOURNAL, Candidate, Concluded, Ending, Refusal
from coordinator.engine.turns import in_turn
from coordinator.fault_points import FaultPoint, reach
from coordinator.journal.foretold import (
    Endings,
    Foretold,
    NoRows,
    NotAsForetold,
    conclude_foretold,
)
from coordinator.journal.fresh_rows import FreshRows
from coordinator.journal.packing import pack
from coordinator.journal.session import fence_told, own_statement

_BATCH_BYTES_MAX = 32 * 1024 * 1024
"""What the events of one transaction may hold together; a unit alone is judged by F26."""


class DataWork(Protocol):
    """What the data part did, by ``seq``."""

    @property
    def done(self) -> Mapping[int, tuple[Done, ...]]:
        """Applied in this transaction."""

    @property
    def refused(self) -> Mapping[int, Problem]:
        """Decided against; nothing of it is written."""

    @property
    def failing(self) -> Mapping[int, Problem]:
        """The store refused its writes by themselves; nothing of it is written."""

    @property
    def busy(self) -> frozenset[int]:
        """An outsider holds a row of it; nothing of it is written."""

    @property
    def behind(self) -> frozenset[int]:
        """It shares a key with an earlier one that stays open; nothing of it is written."""


class DataTables(Protocol):
    """The journal store's data tables, inside the journal's transaction.

    `coordinator.participants.postgresql.tables` is one; the journal knows no other table than its
    own and gets this by injection.
    """

    async def load(self, connection: postgres_pool.Connection, units: Sequence[Unit]) -> Loaded:
        """Read images without locks."""

    def foretell(self, units: Sequence[Unit], preview: Preview) -> Foretold | None:
        """Tell what `apply` will do if all rows are as in the preview, where that can be known."""

    def not_foretold(self, foretold: Any) -> None:
        """Note that the store has made something else of what was written."""

    async def apply(
        self,
        connection: postgres_pool.Connection,
        units: Sequence[Unit],
        preview: Preview,
        *,
        carefully: bool,
        line: Line | None = None,
    ) -> DataWork:
        """Lock, read, decide and write; the caller owns the transaction.

        ``carefully``: write in parts, so that what the store refuses is single units. ``line``:
        who of the units share keys, and so who stays behind whom.
        """


@dataclass(slots=True)
class _Change:
    """One unit's row, as the last statement changes it."""

    seq: int
    before: Status
    after: Status
    cause: Problem | None = None
    problem: Problem | None = None
    outcome: bytes | None = None


@dataclass(slots=True)
class _Decided:
    """What the transaction decides, in the making."""

    at: datetime | None = None
    changes: list[_Change] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    ended: dict[int, tuple[Status, Problem | None]] = field(default_factory=dict)
    compensating: dict[int, Problem] = field(default_factory=dict)
    parked: dict[int, Problem] = field(default_factory=dict)
    failing: Mapping[int, Problem] = field(default_factory=dict)
    busy: frozenset[int] = frozenset()
    behind: frozenset[int] = frozenset()
    lost: set[int] = field(default_factory=set)
    outbox_row: int | None = None
    packed_bytes: int = 0

    def result(self) -> Concluded:
        return Concluded(
            ended=self.ended,
            compensating=self.compensating,
            parked=self.parked,
            failing=self.failing,
            busy=self.busy,
            behind=self.behind,
            lost=frozenset(self.lost),
        )


class JournalPivot:
    """Concludes units of one worker."""

    def __init__(
        self,
        pool: postgres_pool.Pool,
        worker: int,
        announcer: announce.Announcer,
        tables: DataTables | None,
        fresh_rows: FreshRows,
        clock: Clock,
    ) -> None:
        self._pool = pool
        self._worker = worker
        self._announcer = announcer
        self._tables = tables
        self._fresh_rows = fresh_rows
        self._clock = clock

    async def load(self, units: Sequence[Unit]) -> Loaded:
        """Read the images of the journal store's branches, without locks."""
        if self._tables is None:
            return Loaded({}, {})
        async with postgres_pool.connected(self._pool, JOURNAL) as connection:
            return await self._tables.load(connection, units)

    # --- forward ------------------------------------------------------------------------------

    async def conclude(
        self,
        candidates: Sequence[Candidate],
        refusals: Sequence[Refusal],
        preview: Preview = NOTHING_SEEN,
    ) -> Concluded:
        """Commit what can be committed and refuse the rest; see the port."""
        carefully = False
        try:
            foretold = self._foretell(candidates, refusals, preview)
            if foretold is not None:
                with suppress(NotAsForetold):
                    return await self._conclude_foretold(candidates, refusals, foretold)
        except BatchRefused as refusal:
            if refusal.refusals:
                raise
            carefully = len(candidates) > 1
        try:
            return await self._conclude(candidates, refusals, preview, carefully=carefully)
        except BatchRefused as refusal:
            if carefully or len(candidates) == 1 or refusal.refusals:
                raise
            return await self._conclude(candidates, refusals, preview, carefully=True)

    # --- in one statement -----------------------------------------------------------------------

    def _foretell(
        self, candidates: Sequence[Candidate], refusals: Sequence[Refusal], preview: Preview
    ) -> Foretold | None:
        ended = {each.unit.seq for each in refusals if not each.in_doubt}
        if refusals and in_turn(candidates, refusals, candidates, ended)[2]:
            return None  # some of them stay behind
        if self._tables is None:
            return NoRows({})
        return self._tables.foretell([each.unit for each in candidates], preview)

    async def _conclude_foretold(
        self, candidates: Sequence[Candidate], refusals: Sequence[Refusal], foretold: Foretold
    ) -> Concluded:
        units = [each.unit for each in candidates] + [each.unit for each in refusals]
        # What we know of the journal's clock may be a little behind what it has told the units.
        decided = _Decided(at=max([self._clock.now(), *(unit.received_at for unit in units)]))
        for refusal in refusals:
            self._refuse(decided, refusal.unit, refusal.problem, in_doubt=refusal.in_doubt)
        self._commit_all(decided, candidates, foretold.done)
        changes = decided.changes
        packed = pack(decided.messages) if decided.messages else None
        endings = Endings(
            [each.seq for each in changes],
            [each.after.value for each in changes],
            [_as_json(each.cause) for each in changes] if refusals else [],
            [each.outcome for each in changes],
            _known(decided.at),
            packed,
        )
        reach(FaultPoint.FORETOLD_BEFORE)
        try:
            row = await conclude_foretold(self._pool, self._worker, foretold, endings)
        except NotAsForetold as mistaken:
            if mistaken.made_otherwise and self._tables is not None:
                self._tables.not_foretold(foretold)
            raise
        reach(FaultPoint.FORETOLD_AFTER)
        decided.outbox_row, decided.packed_bytes = row, len(packed or b"")
        self._keep_fresh(decided)
        return decided.result()

    # --- step by step ---------------------------------------------------------------------------

    async def _conclude(
        self,
        candidates: Sequence[Candidate],
        refusals: Sequence[Refusal],
        preview: Preview,
        *,
        carefully: bool,
    ) -> Concluded:
        units = {each.unit.seq: each.unit for each in candidates}
        units.update({each.unit.seq: each.unit for each in refusals})
        decided = _Decided()
        reach(FaultPoint.PIVOT_BEFORE)
        async with postgres_pool.transaction(self._pool, JOURNAL) as connection:
            held = await self._hold(connection, units, Status.ACCEPTED, decided)
            reach(FaultPoint.PIVOT_HELD)
            going = []
            for candidate in candidates:
                row = held.get(candidate.unit.seq)
                if row is None:
                    continue
                stop = _stopped(candidate.unit, row)
                if stop is None:
                    going.append(candidate)
                else:
                    self._refuse(decided, candidate.unit, stop, in_doubt=candidate.in_doubt)
            for refusal in refusals:
                if refusal.unit.seq in held:
                    self._refuse(decided, refusal.unit, refusal.problem, in_doubt=refusal.in_doubt)
            line, kept, decided.behind = in_turn(candidates, refusals, going, decided.ended)
            await self._commit_units(connection, kept, line, preview, decided, carefully=carefully)
            reach(FaultPoint.PIVOT_WRITTEN)
            await self._write(connection, decided)
            reach(FaultPoint.PIVOT_CONCLUDED)
        reach(FaultPoint.PIVOT_AFTER)
        self._keep_fresh(decided)
        return decided.result()

    async def _commit_units(
        self,
        connection: postgres_pool.Connection,
        candidates: Sequence[Candidate],
        line: Line | None,
        preview: Preview,
        decided: _Decided,
        *,
        carefully: bool,
    ) -> None:
        work = None
        if self._tables is not None:
            units = [each.unit for each in candidates]
            if units:
                work = await self._tables.apply(
                    connection, units, preview, carefully=carefully, line=line
                )
                decided.busy = work.busy
                decided.behind |= work.behind
                decided.failing = work.failing
        going: list[Candidate] = []
        for candidate in candidates:
            seq = candidate.unit.seq
            if work is not None and (seq in work.busy or seq in work.failing or seq in work.behind):
                continue
            if work is not None and seq in work.refused:
                self._refuse(
                    decided, candidate.unit, work.refused[seq], in_doubt=candidate.in_doubt
                )
                continue
            going.append(candidate)
        self._commit_all(decided, going, {} if work is None else work.done)

    def _commit_all(
        self,
        decided: _Decided,
        candidates: Sequence[Candidate],
        done_here: Mapping[int, tuple[Done, ...]],
    ) -> None:
        """Note commits and what they publish, or raise for what no topic or row can hold."""
        too_large: dict[int, Problem] = {}
        size_bytes = 0
        for candidate in candidates:
            seq = candidate.unit.seq
            done = (*candidate.done, *done_here.get(seq, ()))
            problem = self._commit(decided, candidate.unit, done)
            size_bytes += sum(
                len(each.before or b"") + len(each.after or b"") for each in done
            ) + len(candidate.unit.metadata or b"") * (1 + len(done))
            if size_bytes > _BATCH_BYTES_MAX and len(candidates) > 1:
                raise StoreBusy(JOURNAL, "the batch has too many bytes for one transaction")
            if problem is not None:
                too_large[seq] = problem
        if too_large:
            raise BatchRefused(JOURNAL, next(iter(too_large.values())), too_large)

    def _commit(self, decided: _Decided, unit: Unit, done: Sequence[Done]) -> Problem | None:
        """Note a commit and what it publishes; a problem if a topic cannot take it (F26)."""
        at = _known(decided.at)
        after = next_status(Status.ACCEPTED, Transition.PIVOT_COMMITTED)
        value = announce.outcome_value(
            announce.Verdict(
                unit.id,
                unit.digest,
                after,
                (),
                unit.received_at,
                at,
                unit.metadata,
                announce.committed_operations(unit, done),
            )
        )
        messages = announce.change_messages(self._announcer, unit, done, at)
        messages += self._outcome(unit, after, value, at)
        problem = announce.oversize(self._announcer, messages)
        if problem is not None:
            return problem
        decided.messages += messages
        decided.changes.append(_Change(unit.seq, Status.ACCEPTED, after, outcome=value))
        decided.ended[unit.seq] = (after, None)
        return None

    def _refuse(self, decided: _Decided, unit: Unit, problem: Problem, *, in_doubt: bool) -> None:
        if in_doubt:
            after = next_status(Status.ACCEPTED, Transition.REFUSED_IN_DOUBT)
            decided.changes.append(_Change(unit.seq, Status.ACCEPTED, after, cause=problem))
            decided.compensating[unit.seq] = problem
            return
        after = next_status(Status.ACCEPTED, Transition.REFUSED_UNTOUCHED)
        self._end(decided, unit, Status.ACCEPTED, after, problem)

    async def settle(self, units: Sequence[Unit]) -> Concluded:
        """Say which of these units are not `accepted` any more; see the port.

        The rows are locked: a transaction whose answer was lost holds them until it has ended.
        """
        decided = _Decided()
        async with postgres_pool.transaction(self._pool, JOURNAL) as connection:
            by_seq = {unit.seq: unit for unit in units}
            await self._hold(connection, by_seq, Status.ACCEPTED, decided)
        return decided.result()

    # --- backward -----------------------------------------------------------------------------

    async def finish(self, endings: Sequence[Ending]) -> Concluded:
        """End compensations: status, outcome, locks released; see the port."""
        units = {each.unit.seq: each.unit for each in endings}
        decided = _Decided()
        reach(FaultPoint.FINISH_BEFORE)
        async with postgres_pool.transaction(self._pool, JOURNAL) as connection:
            held = await self._hold(connection, units, Status.COMPENSATING, decided)
            for ending in endings:
                if ending.unit.seq not in held:
                    continue
                if ending.problem is not None:
                    self._park(decided, ending)
                    continue
                way = Transition.UNDONE if ending.wrote else Transition.FOUND_NOTHING
                after = next_status(Status.COMPENSATING, way)
                self._end(decided, ending.unit, Status.COMPENSATING, after, ending.cause)
            await self._write(connection, decided)
            reach(FaultPoint.FINISH_CONCLUDED)
        reach(FaultPoint.FINISH_AFTER)
        self._keep_fresh(decided)
        return decided.result()

    def _park(self, decided: _Decided, ending: Ending) -> None:
        unit, problem = ending.unit, ending.problem
        if problem is None:
            raise InvariantViolated(f"unit {unit.id} is to be parked without a reason")
        shown = Problem(
            problem.code,
            f"{problem.message} It was being undone because: {ending.cause.message}",
            problem.path,
            problem.operation,
            problem.entity,
            problem.key,
        )
        after = next_status(Status.COMPENSATING, Transition.PERSON_NEEDED)
        value = self._tell(decided, unit, after, shown)
        decided.changes.append(
            _Change(unit.seq, Status.COMPENSATING, after, ending.cause, shown, value)
        )
        decided.parked[unit.seq] = shown

    # --- both ---------------------------------------------------------------------------------

    def _end(
        self, decided: _Decided, unit: Unit, before: Status, after: Status, problem: Problem
    ) -> None:
        value = self._tell(decided, unit, after, problem)
        decided.changes.append(_Change(unit.seq, before, after, problem, outcome=value))
        decided.ended[unit.seq] = (after, problem)

    def _tell(self, decided: _Decided, unit: Unit, status: Status, problem: Problem) -> bytes:
        """Note the outcome of a unit that did not commit."""
        at = _known(decided.at)
        value = announce.outcome_value(
            announce.Verdict(
                unit.id, unit.digest, status, (problem,), unit.received_at, at, unit.metadata
            )
        )
        decided.messages += self._outcome(unit, status, value, at)
        return value

    def _outcome(self, unit: Unit, status: Status, value: bytes, at: datetime) -> list[Message]:
        kind = "parked" if status is Status.PARKED else "outcome"
        return announce.outcome_messages(
            self._announcer,
            unit_id=unit.id,
            ce_id=f"{unit.id}/{kind}",
            status=status,
            value=value,
            finished_at=at,
            reply_to=unit.reply_to,
            traceparent=unit.traceparent,
            shorten=status is not Status.COMMITTED,
        )

    async def _hold(
        self,
        connection: postgres_pool.Connection,
        units: Mapping[int, Unit],
        expected: Status,
        decided: _Decided,
    ) -> dict[int, Mapping[str, Any]]:
        """Lock the rows; sort out those that are not as we thought; give the rest by seq."""
        with fence_told():
            rows = await connection.fetch(
                "SELECT * FROM coordinator.hold_units($1, $2)", self._worker, sorted(units)
            )
        held: dict[int, Mapping[str, Any]] = {}
        for row in rows:
            seq, status = row["seq"], Status(row["status"])
            decided.at = row["held_at"]
            if status is expected:
                held[seq] = row
            elif status in FINAL_STATUSES:
                decided.ended[seq] = (status, _problem(row["cause"]))
            elif status is Status.COMPENSATING:
                decided.compensating[seq] = _problem(row["cause"]) or _UNTOLD
            elif status is Status.PARKED:
                decided.parked[seq] = _problem(row["problem"]) or _UNTOLD
            else:
                raise InvariantViolated(f"unit {units[seq].id} is {status}, not {expected}")
        if decided.at is not None:
            self._clock.journal_says(decided.at)  # what is foretold next must not end before this
        decided.lost = set(units) - {row["seq"] for row in rows}
        return held

    async def _write(self, connection: postgres_pool.Connection, decided: _Decided) -> None:
        changes = decided.changes
        if not changes:
            return
        packed = pack(decided.messages) if decided.messages else None
        with own_statement(), fence_told():
            row = await connection.fetchrow(
                "SELECT * FROM coordinator.conclude($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                self._worker,
                [each.seq for each in changes],
                [each.before.value for each in changes],
                [each.after.value for each in changes],
                [_as_json(each.cause) for each in changes],
                [_as_json(each.problem) for each in changes],
                [each.outcome for each in changes],
                decided.at,
                packed,
            )
        if row["changed"] != len(changes):
            raise InvariantViolated(
                f"{len(changes)} units were to change their status, {row['changed']} did (rule 2)"
            )
        decided.outbox_row = row["outbox_row"]
        decided.packed_bytes = len(packed or b"")

    def _keep_fresh(self, decided: _Decided) -> None:
        """Keep what is durable now for the relay."""
        if decided.outbox_row is not None:
            self._fresh_rows.keep(decided.outbox_row, decided.messages, decided.packed_bytes)


_UNTOLD = Problem.from_json(
    {"code": "store_refused", "message": "The journal does not tell why the unit was refused."}
)


def _stopped(unit: Unit, row: Mapping[str, Any]) -> Problem | None:
    """Why a unit may not commit although nothing of it was refused, if so."""
    if row["cancel_requested"] is not None:
        return cancelled(row["cancel_requested"])
    if row["late"]:
        return too_late(unit)
    return None


def _known(at: datetime | None) -> datetime:
    if at is None:
        raise InvariantViolated("a unit is decided whose row is not held")
    return at


def _as_json(problem: Problem | None) -> str | None:
    return None if problem is None else orjson.dumps(problem.as_record()).decode()


def _problem(raw: str | None) -> Problem | None:
    return None if raw is None else Problem.from_json(orjson.loads(raw))
