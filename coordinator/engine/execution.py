"""Execution of a batch: load and decide, apply elsewhere, pivot.

Overview. A lane takes a batch of units that conflict with nothing before them. Reads without
locks refuse most of what must be refused before anything is written. Then every participant but
the pivot applies its branches, one transaction each for the whole batch, all at the same time;
last the journal's transaction commits or refuses each unit. A store that is the only one beside
the pivot's reads and decides once more inside its transaction, before it writes: where it has had
nothing to refuse for a while, it is not read without locks before (`_Wariness`).

::

    load + decide ─► apply (all other stores) ─► pivot ─► committed
         │ refused        │ refused                │ refused
         └── rejected     └── compensating         └── compensating

What can fail, and what is true then: before an apply was sent, a refusal touches nothing
(`rejected`). Once it was sent, whatever came back, the unit is *in doubt*: only a write
concludes, so every refusal goes through compensation (rule 1). A store that goes away leaves its
units in doubt and they run again when it is back: their undo records tell what happened (rule
7). A process that dies anywhere here leaves units that are `accepted` in the journal and run
again in whole at another worker. I1, I3, I5, I11.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from coordinator.domain.decide import Image, ImageKey, Write, decide_branch
from coordinator.domain.errors import ErrorCode, Problem, StoreError, together
from coordinator.domain.operation import Unit
from coordinator.domain.preview import NOTHING_SEEN, Preview
from coordinator.domain.publishing import Done
from coordinator.engine.observer import Stage
from coordinator.engine.ports import (
    JOURNAL,
    Applied,
    Candidate,
    Concluded,
    Participant,
    Pivot,
    Refusal,
)
from coordinator.engine.reporting import Reporting
from coordinator.engine.schedule import Entry
from coordinator.engine.settling import settled

WARY_UNITS: Final = 100
"""After so many units without a refusal a store is trusted to refuse none."""


@dataclass(slots=True)
class _Elsewhere:
    """What became of a batch at the stores other than the pivot's, by ``seq``."""

    done: dict[int, list[Done]] = field(default_factory=dict)
    refused: dict[int, Problem] = field(default_factory=dict)
    failing: dict[int, Problem] = field(default_factory=dict)
    again: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Wariness:
    """How many more units of a store are to be read before they are applied.

    A unit that is refused by such a read is untouched; one that is refused by its apply is in
    doubt, and must be compensated to be sure that it is (rule 1). So the read is spared only
    while refusals are rare.
    """

    most: int
    left: int

    def read(self, units: int) -> None:
        """Note units that were read before, without a refusal."""
        self.left = max(0, self.left - units)

    def refused(self) -> None:
        """Note a refusal."""
        self.left = self.most


class Execution:
    """Runs batches of units forward."""

    def __init__(
        self,
        pivot: Pivot,
        pivot_store: str | None,
        participants: Mapping[str, Participant],
        reporting: Reporting,
        wary_units: int = WARY_UNITS,
    ) -> None:
        self._pivot = pivot
        self._pivot_store = pivot_store
        self._participants = participants
        self._reporting = reporting
        self._wariness = {store: _Wariness(wary_units, wary_units) for store in participants}

    async def execute(self, lane: int, entries: Sequence[Entry]) -> None:
        """Run a batch as far as it goes; each entry is reported back to the schedule."""
        entries = await settled(self._pivot, self._reporting, entries)
        previews: dict[str, Preview] = {}
        try:
            refused, again = await self._decide(
                [each for each in entries if not each.in_doubt], previews
            )
        except StoreError as error:
            self._reporting.interrupted(entries, error)
            return
        for each in entries:
            if each.unit.seq in again:
                self._reporting.set_aside(each)
        entries = [each for each in entries if each.unit.seq not in again]
        going = [each for each in entries if each.unit.seq not in refused]
        elsewhere = await self._apply_elsewhere(lane, going, previews)
        await self._conclude(entries, refused, elsewhere, previews)

    async def refuse(self, entries: Sequence[Entry]) -> None:
        """Journal the refusals that were decided outside a batch: deadlines and cancels."""
        by_seq = {each.unit.seq: each for each in entries}
        refusals = {
            seq: Refusal(each.unit, _reason(each), in_doubt=each.in_doubt)
            for seq, each in by_seq.items()
        }
        await self._pivot_in_parts(by_seq, {}, refusals, (), NOTHING_SEEN)

    # --- load and decide ----------------------------------------------------------------------

    async def _decide(
        self, fresh: Sequence[Entry], previews: dict[str, Preview]
    ) -> tuple[dict[int, Problem], set[int]]:
        """Refuse what the unlocked images already refuse, before anything is written.

        Gives the refused, and those that an outsider is in the way of; and a preview per store.
        """
        by_store = _by_store([each.unit for each in fresh])
        for store in [each for each in by_store if not self._is_read_before(each, by_store[each])]:
            unread = frozenset(unit.seq for unit in by_store.pop(store))
            previews[store] = NOTHING_SEEN._replace(unread=unread)
        refused: dict[int, Problem] = {}
        again: set[int] = set()
        await asyncio.gather(
            *(
                self._decide_at(name, units, refused, again, previews)
                for name, units in by_store.items()
            )
        )
        return refused, again

    def _is_read_before(self, store: str, units: Sequence[Unit]) -> bool:
        if store == self._pivot_store or self._wariness[store].left:
            return True
        # What one store refuses must not have been applied at another one.
        return any(len(unit.plan.branches.keys() - {self._pivot_store}) > 1 for unit in units)

    async def _decide_at(
        self,
        store: str,
        units: Sequence[Unit],
        refused: dict[int, Problem],
        again: set[int],
        previews: dict[str, Preview],
    ) -> None:
        load = self._pivot.load if store == self._pivot_store else self._participant(store).load
        tried = await self._reporting.run_stage(Stage.LOAD, store, units, load)
        if tried.error is not None:
            raise tried.error
        again |= tried.busy
        for seq, problem in tried.failing.items():
            refused[seq] = _joined(refused.get(seq), problem)
        images: dict[ImageKey, Image | None] = {}
        rows: dict[ImageKey, Any] = {}
        for part in tried.results:
            images.update(part.images)
            rows.update(part.rows)
        writes: dict[int, tuple[Write, ...]] = {}
        for unit in units:
            if unit.seq in tried.failing or unit.seq in tried.busy:
                continue
            decided = decide_branch(unit, store, images)
            if isinstance(decided, Problem):
                refused[unit.seq] = _joined(refused.get(unit.seq), decided)
            else:
                writes[unit.seq] = decided
        previews[store] = Preview(images, rows, writes)
        if store != self._pivot_store:
            if len(writes) == len(units):
                self._wariness[store].read(len(units))
            else:
                self._wariness[store].refused()

    # --- apply --------------------------------------------------------------------------------

    async def _apply_elsewhere(
        self, lane: int, going: Sequence[Entry], previews: Mapping[str, Preview]
    ) -> _Elsewhere:
        by_store = _by_store([each.unit for each in going])
        by_store.pop(self._pivot_store or "", None)
        for entry in going:
            if any(store != self._pivot_store for store in entry.stores):
                entry.in_doubt = True
        result = _Elsewhere()
        await asyncio.gather(
            *(
                self._apply_at(
                    lane,
                    self._participant(store),
                    units,
                    previews.get(store, NOTHING_SEEN),
                    result,
                )
                for store, units in by_store.items()
            )
        )
        return result

    async def _apply_at(
        self,
        lane: int,
        participant: Participant,
        units: Sequence[Unit],
        preview: Preview,
        result: _Elsewhere,
    ) -> None:
        tried = await self._reporting.run_stage(
            Stage.APPLY,
            participant.store,
            units,
            lambda part: participant.apply(lane, part, preview),
        )
        for applied in tried.results:
            self._merge(applied, result)
            if applied.refused:
                self._wariness[participant.store].refused()
        result.failing.update(tried.failing)
        result.again |= tried.busy | tried.interrupted

    def _merge(self, applied: Applied, result: _Elsewhere) -> None:
        for seq, done in applied.done.items():
            result.done.setdefault(seq, []).extend(done)
        for seq, problem in applied.refused.items():
            result.refused[seq] = _joined(result.refused.get(seq), problem)
        result.failing.update(applied.failing)
        for seq in applied.blocked:
            result.refused.setdefault(seq, _BLOCKED)
        result.again |= applied.busy

    # --- pivot --------------------------------------------------------------------------------

    async def _conclude(
        self,
        entries: Sequence[Entry],
        refused: Mapping[int, Problem],
        elsewhere: _Elsewhere,
        previews: Mapping[str, Preview],
    ) -> None:
        by_seq = {each.unit.seq: each for each in entries}
        candidates: dict[int, Candidate] = {}
        refusals: dict[int, Refusal] = {}
        unended: list[int] = []
        for seq, entry in by_seq.items():
            problem = refused.get(seq) or elsewhere.refused.get(seq)
            if problem is None and seq in elsewhere.failing:
                doubtful = [other for other, each in refusals.items() if each.in_doubt]
                if unended or candidates or doubtful:
                    # It failed, but beside earlier units of its batch that have not ended yet.
                    self._reporting.alone_after(entry, [*unended, *candidates, *doubtful])
                    unended.append(seq)
                    continue
                problem = elsewhere.failing[seq]
            if problem is not None:
                refusals[seq] = Refusal(entry.unit, problem, in_doubt=entry.in_doubt)
            elif seq in elsewhere.again:
                unended.append(seq)
                self._reporting.set_aside(entry)
            else:
                done = tuple(elsewhere.done.get(seq, ()))
                candidates[seq] = Candidate(entry.unit, done, in_doubt=entry.in_doubt)
        preview = previews.get(self._pivot_store or "", NOTHING_SEEN)
        await self._pivot_in_parts(by_seq, candidates, refusals, unended, preview)

    async def _pivot_in_parts(
        self,
        by_seq: Mapping[int, Entry],
        candidates: Mapping[int, Candidate],
        refusals: Mapping[int, Refusal],
        unended: Sequence[int],
        preview: Preview,
    ) -> None:
        units = [by_seq[seq].unit for seq in by_seq if seq in candidates or seq in refusals]

        async def attempt(part: Sequence[Unit]) -> Concluded:
            return await self._pivot.conclude(
                [candidates[unit.seq] for unit in part if unit.seq in candidates],
                [refusals[unit.seq] for unit in part if unit.seq in refusals],
                preview,
            )

        tried = await self._reporting.run_stage(Stage.PIVOT, JOURNAL, units, attempt)
        failing = dict(tried.failing)
        for concluded in tried.results:
            self._reporting.concluded(by_seq, concluded)
            failing.update(concluded.failing)
            unended = [*unended, *concluded.busy]
        for seq in sorted(tried.busy):
            self._reporting.set_aside(by_seq[seq], alone=seq in tried.slow)
        open_earlier = sorted({*unended, *tried.busy, *tried.interrupted})
        for seq, problem in sorted(failing.items()):
            earlier = [other for other in open_earlier if other < seq]
            if earlier:
                self._reporting.alone_after(by_seq[seq], earlier)
            else:
                self._reporting.refuse(by_seq[seq], problem)
        if tried.error is not None:
            self._reporting.interrupted(
                [by_seq[seq] for seq in sorted(tried.interrupted)], tried.error
            )

    def _participant(self, store: str) -> Participant:
        return self._participants[store]


_BLOCKED = Problem(
    ErrorCode.STORE_REFUSED, "The unit was being undone while it was tried again; it stays undone."
)


def _reason(entry: Entry) -> Problem:
    return entry.problem or Problem(ErrorCode.STORE_REFUSED, "The unit was refused.")


def _joined(one: Problem | None, other: Problem) -> Problem:
    """What several stores refuse is told together, in the written order (F10)."""
    return other if one is None else together((one, other))


def _by_store(units: Sequence[Unit]) -> dict[str, list[Unit]]:
    by_store: dict[str, list[Unit]] = {}
    for unit in units:
        for store in unit.plan.branches:
            by_store.setdefault(store, []).append(unit)
    return by_store
