"""I5: units that touch the same key never overlap, and run in the order of their admission.

`InTurn` judges each effect; `check` replays all units one after the other, in their order, on
plain rows: every decision and every row must come out the same. The replay needs a world without
strangers, since it knows the units alone.
"""

from __future__ import annotations

from coordinator.domain.decide import Effect, decide_branch
from coordinator.domain.errors import ErrorCode, Problem
from coordinator.domain.lifecycle import FINAL_STATUSES, Status
from coordinator.memory.journal_tables import UnitRow
from coordinator.memory.store_tables import Rows
from coordinator.memory.witness import RowWrite, Way
from tests.simulation.history import EachStep, History, Rest

_DECIDED_ON_ROWS = frozenset(
    {
        ErrorCode.ALREADY_EXISTS,
        ErrorCode.NOT_FOUND,
        ErrorCode.EXPECTATION_FAILED,
        ErrorCode.OUT_OF_BOUNDS,
        ErrorCode.TYPE_MISMATCH,
    }
)


class InTurn(EachStep):
    def wrote(self, history: History, write: RowWrite) -> None:
        if write.way is not Way.FORWARD:
            return
        for other in reversed(history.by_key.get(write.at, ())):
            if other.way is Way.STRANGER or other.seq == write.seq:
                continue
            if other.seq > write.seq:
                history.fail(f"I5: #{write.seq} wrote {write.at} after the later #{other.seq}")
            elif history.status(other.seq) not in FINAL_STATUSES:
                if all(history.only_counts(each, write.at) for each in (write.seq, other.seq)):
                    continue
                history.fail(f"I5: #{write.seq} wrote {write.at}, which #{other.seq} still holds")
            break


def check(rest: Rest) -> None:
    if rest.history.stranger_writes:
        return
    rows = Rows(rest.first_rows)
    for row in sorted(rest.world.journal.units.values(), key=lambda each: each.seq):
        _replay(rest, rows, row)
    for store in rest.world.stores.values():
        for at in sorted({*store.rows, *rows}):
            if rest.world.mapping.entities[at[0]].store != store.name:
                continue
            if store.rows[at] != rows[at]:
                rest.history.fail(
                    f"I5: at rest {at} is {store.rows[at]}, one after the other gives {rows[at]}"
                )


def _replay(rest: Rest, rows: Rows, row: UnitRow) -> None:
    history, unit = rest.history, rest.world.unit_of(row)
    is_refused = False
    for store in unit.plan.branches:
        decided = decide_branch(unit, store, rows)
        if isinstance(decided, Problem):
            is_refused = True
            if row.status is Status.COMMITTED:
                history.fail(f"I5: {row.id}#{row.seq} committed; in its turn: {decided.message}")
            continue
        if row.status is Status.COMMITTED or history.stands_applied(row.seq, store):
            for write in decided:
                if write.effect is Effect.NOTHING:
                    continue
                rows[write.operation.entity, write.operation.key_text] = write.after
                history.in_turn[row.seq, write.position] = write.after
    cause = row.cause
    if row.status is Status.COMMITTED or cause is None or is_refused:
        return
    if cause.code in _DECIDED_ON_ROWS:
        history.fail(f"I5: {row.id}#{row.seq} was refused; in its turn it passes: {cause}")
