"""Compensation of a batch: undo at every participant, then the journal's end of it.

The unit is `compensating` in the journal before anything is undone (rule 2), and at every
participant a write concludes: an undo record is undone and marked, or a tombstone is planted
where there was none (rule 1). A crash anywhere repeats it: what is marked stays marked and tells
what it found, so `rejected` or `compensated` is the same whoever computes it (F6).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from coordinator.domain.errors import ErrorCode, Problem
from coordinator.domain.operation import Unit
from coordinator.engine.observer import Stage
from coordinator.engine.ports import JOURNAL, Ending, Participant, Pivot, Undone
from coordinator.engine.reporting import Reporting
from coordinator.engine.schedule import Entry
from coordinator.engine.settling import settled

_NO_CAUSE = Problem(ErrorCode.STORE_REFUSED, "The unit was refused.")


class Compensation:
    """Runs batches of units backward."""

    def __init__(
        self,
        pivot: Pivot,
        pivot_store: str | None,
        participants: Mapping[str, Participant],
        reporting: Reporting,
    ) -> None:
        self._pivot = pivot
        self._pivot_store = pivot_store
        self._participants = participants
        self._reporting = reporting

    async def compensate(self, lane: int, entries: Sequence[Entry]) -> None:
        """Undo a batch as far as it goes; each entry is reported back to the schedule."""
        entries = await settled(self._pivot, self._reporting, entries)
        by_seq = {each.unit.seq: each for each in entries}
        found: dict[int, list[Undone]] = {seq: [] for seq in by_seq}
        unfinished: set[int] = set()
        by_store: dict[str, list[Unit]] = {}
        for entry in entries:
            for store in entry.unit.plan.branches:
                if store != self._pivot_store:
                    by_store.setdefault(store, []).append(entry.unit)
        await asyncio.gather(
            *(
                self._compensate_at(lane, self._participants[store], units, found, unfinished)
                for store, units in by_store.items()
            )
        )
        for seq in sorted(unfinished):
            self._reporting.set_aside(by_seq[seq])
        ready = [by_seq[seq] for seq in by_seq if seq not in unfinished]
        if ready:
            await self._finish(ready, found)

    async def _compensate_at(
        self,
        lane: int,
        participant: Participant,
        units: Sequence[Unit],
        found: dict[int, list[Undone]],
        unfinished: set[int],
    ) -> None:
        tried = await self._reporting.run_stage(
            Stage.COMPENSATION,
            participant.store,
            units,
            lambda part: participant.compensate(lane, part),
        )
        reported: set[int] = set(tried.failing)
        for undone in tried.results:
            for seq, each in undone.items():
                found[seq].append(each)
                reported.add(seq)
        for seq, problem in tried.failing.items():
            found[seq].append(Undone(wrote=True, problem=undo_failed(problem)))
        unfinished.update(unit.seq for unit in units if unit.seq not in reported)

    async def _finish(
        self, entries: Sequence[Entry], found: Mapping[int, Sequence[Undone]]
    ) -> None:
        endings = []
        for entry in entries:
            undone = found[entry.unit.seq]
            problems = [each.problem for each in undone if each.problem is not None]
            endings.append(
                Ending(
                    entry.unit,
                    entry.problem or _NO_CAUSE,
                    wrote=any(each.wrote for each in undone),
                    problem=problems[0] if problems else None,
                )
            )
        by_seq = {each.unit.seq: each for each in entries}
        of_unit = {each.unit.seq: each for each in endings}
        tried = await self._reporting.run_stage(
            Stage.COMPENSATION,
            JOURNAL,
            [each.unit for each in entries],
            lambda part: self._pivot.finish([of_unit[unit.seq] for unit in part]),
        )
        for concluded in tried.results:
            self._reporting.concluded(by_seq, concluded)
            over = (*concluded.ended, *concluded.parked)
            self._reporting.compensated(each for seq in over for each in found[seq])
        for seq in sorted({*tried.busy, *tried.failing}):
            self._reporting.set_aside(by_seq[seq])
        if tried.error is not None:
            self._reporting.interrupted([by_seq[seq] for seq in tried.interrupted], tried.error)


def undo_failed(problem: Problem) -> Problem:
    """Say that a store refused the undo (F10, F11)."""
    return Problem(
        ErrorCode.UNDO_FAILED,
        f"The undo was refused: {problem.message}",
        problem.path,
        problem.operation,
        problem.entity,
        problem.key,
    )
