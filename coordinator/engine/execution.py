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

Units of a batch may share keys that they only count up and down. Whatever keeps one of them from
going on, at any step, keeps back those behind it: they are put back, and their locks hold them
until it has ended (`coordinator.domain.sharing.Line`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from coordinator.domain.decide import Image, ImageKey
from coordinator.domain.errors import ErrorCode, Problem, StoreError
from coordinator.domain.operation import Unit
from coordinator.domain.preview import NOTHING_SEEN, Preview
from coordinator.domain.publishing import Done
from coordinator.domain.sharing import Line
from coordinator.engine.forecast import Forecast, joined
from coordinator.engine.halving import Turns
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
    behind: set[int] = field(default_factory=set)


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
        line = Line.of([each.unit for each in entries])
        batch, entries = entries, await settled(self._pivot, self._reporting, entries)
        if line is not None:
            entries = self._without_followers(line, batch, entries)
        previews: dict[str, Preview] = {}
        try:
            forecast = await self._decide(entries, line, previews)
        except StoreError as error:
            self._reporting.interrupted(entries, error)
            return
        refused, again = forecast.refused, forecast.again
        for each in entries:
            if each.unit.seq in again:
                self._reporting.set_aside(each)
        batch, entries = entries, [each for each in entries if each.unit.seq not in again]
        if line is not None:
            entries = self._without_followers(line, batch, entries, forecast)
            entries = await self._refuse_first(line, entries, refused)
        going = [each for each in entries if each.unit.seq not in refused]
        elsewhere = await self._apply_elsewhere(lane, going, line, previews)
        await self._conclude(entries, refused, elsewhere, line, previews)

    async def refuse(self, entries: Sequence[Entry]) -> None:
        """Journal the refusals that were decided outside a batch: deadlines and cancels."""
        by_seq = {each.unit.seq: each for each in entries}
        refusals = {
            seq: Refusal(each.unit, _reason(each), in_doubt=each.in_doubt)
            for seq, each in by_seq.items()
        }
        await self._pivot_in_parts(by_seq, {}, refusals, (), None, NOTHING_SEEN)

    # --- sharers ------------------------------------------------------------------------------

    def _without_followers(
        self,
        line: Line,
        batch: Sequence[Entry],
        going: Sequence[Entry],
        forecast: Forecast | None = None,
    ) -> list[Entry]:
        """Put back who has to wait, and the sharers behind those of the batch that do not go on."""
        refused, waits = (forecast.refused, forecast.waits) if forecast else ((), ())
        seqs = {each.unit.seq for each in going}
        left: list[Entry] = []
        for each in batch:
            seq = each.unit.seq
            if seq not in seqs:
                line.stop(each.unit)
            elif seq in refused or not (line.holds(each.unit) or seq in waits):
                left.append(each)
            else:
                line.stop(each.unit)
                self._reporting.behind(each)
        return left

    async def _refuse_first(
        self, line: Line, entries: Sequence[Entry], refused: Mapping[int, Problem]
    ) -> list[Entry]:
        """End the refused that others stand behind, before anybody goes past them.

        If it were journaled later only, a crash in between would let it run again, behind those
        that were admitted after it.
        """
        followed = line.followed(each.unit for each in entries)
        by_seq = {
            seq: each for each in entries if (seq := each.unit.seq) in refused and seq in followed
        }
        if not by_seq:
            return list(entries)
        refusals = {seq: Refusal(e.unit, refused[seq], e.in_doubt) for seq, e in by_seq.items()}
        still_open = await self._pivot_in_parts(by_seq, {}, refusals, (), None, NOTHING_SEEN)
        going = [each for each in entries if each.unit.seq not in by_seq]
        open_too = [each for each in entries if each.unit.seq not in by_seq.keys() - still_open]
        return self._without_followers(line, open_too, going)

    # --- load and decide ----------------------------------------------------------------------

    async def _decide(
        self, entries: Sequence[Entry], line: Line | None, previews: dict[str, Preview]
    ) -> Forecast:
        """Refuse what the unlocked images already refuse, before anything is written.

        A preview per store is put into ``previews``.
        """
        by_store = _by_store([each.unit for each in entries if not each.in_doubt])
        for store in [each for each in by_store if not self._is_read_before(each, by_store[each])]:
            unread = frozenset(unit.seq for unit in by_store.pop(store))
            previews[store] = NOTHING_SEEN._replace(unread=unread)
        forecast = Forecast(line, self._pivot_store)
        if line is not None:
            forecast.doubt(each.unit for each in entries if each.in_doubt)
        await asyncio.gather(
            *(self._decide_at(name, units, forecast, previews) for name, units in by_store.items())
        )
        return forecast

    def _is_read_before(self, store: str, units: Sequence[Unit]) -> bool:
        if store == self._pivot_store or self._wariness[store].left:
            return True
        # What one store refuses must not have been applied at another one.
        return any(len(unit.plan.branches.keys() - {self._pivot_store}) > 1 for unit in units)

    async def _decide_at(
        self,
        store: str,
        units: Sequence[Unit],
        forecast: Forecast,
        previews: dict[str, Preview],
    ) -> None:
        load = self._pivot.load if store == self._pivot_store else self._participant(store).load
        tried = await self._reporting.run_stage(Stage.LOAD, store, units, load)
        if tried.error is not None:
            raise tried.error
        forecast.again |= tried.busy
        for seq, problem in tried.failing.items():
            forecast.refuse(seq, problem)
        images: dict[ImageKey, Image | None] = {}
        rows: dict[ImageKey, Any] = {}
        for part in tried.results:
            images.update(part.images)
            rows.update(part.rows)
        if tried.failing or tried.busy:
            unread = {*tried.failing, *tried.busy}
            forecast.doubt(each for each in units if each.seq in unread)
            units = [each for each in units if each.seq not in unread]
        preview = Preview(images, rows, forecast.decide(store, units, images))
        previews[store] = preview._replace(chained=forecast.chained)
        if store != self._pivot_store:
            if tried.failing or tried.busy or any(each.seq in forecast.refused for each in units):
                self._wariness[store].refused()
            else:
                self._wariness[store].read(len(units))

    # --- apply --------------------------------------------------------------------------------

    async def _apply_elsewhere(
        self,
        lane: int,
        going: Sequence[Entry],
        line: Line | None,
        previews: Mapping[str, Preview],
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
                    None if line is None else Turns(line.copy(), _all_of),
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
        turns: Turns[Applied] | None,
        result: _Elsewhere,
    ) -> None:
        tried = await self._reporting.run_stage(
            Stage.APPLY,
            participant.store,
            units,
            lambda part: participant.apply(lane, part, preview),
            *(() if turns is None else (turns,)),
        )
        for applied in tried.results:
            self._merge(applied, result)
            if applied.refused:
                self._wariness[participant.store].refused()
        result.failing.update(tried.failing)
        result.again |= tried.busy | tried.interrupted
        result.behind |= tried.behind

    def _merge(self, applied: Applied, result: _Elsewhere) -> None:
        for seq, done in applied.done.items():
            result.done.setdefault(seq, []).extend(done)
        for seq, problem in applied.refused.items():
            result.refused[seq] = joined(result.refused.get(seq), problem)
        result.failing.update(applied.failing)
        for seq in applied.blocked:
            result.refused.setdefault(seq, _BLOCKED)
        result.again |= applied.busy
        result.behind |= applied.behind

    # --- pivot --------------------------------------------------------------------------------

    async def _conclude(
        self,
        entries: Sequence[Entry],
        refused: Mapping[int, Problem],
        elsewhere: _Elsewhere,
        line: Line | None,
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
                    if line is not None:
                        line.stop(entry.unit)
                    continue
                problem = elsewhere.failing[seq]
            if problem is not None:
                refusals[seq] = Refusal(entry.unit, problem, in_doubt=entry.in_doubt)
            elif seq in elsewhere.again:
                unended.append(seq)
                self._reporting.set_aside(entry)
                if line is not None:
                    line.stop(entry.unit)
            elif line is not None and (seq in elsewhere.behind or line.holds(entry.unit)):
                unended.append(seq)
                self._reporting.behind(entry)
                line.stop(entry.unit)
            else:
                done = tuple(elsewhere.done.get(seq, ()))
                candidates[seq] = Candidate(entry.unit, done, in_doubt=entry.in_doubt)
        preview = previews.get(self._pivot_store or "", NOTHING_SEEN)
        await self._pivot_in_parts(by_seq, candidates, refusals, unended, line, preview)

    async def _pivot_in_parts(
        self,
        by_seq: Mapping[int, Entry],
        candidates: Mapping[int, Candidate],
        refusals: Mapping[int, Refusal],
        unended: Sequence[int],
        line: Line | None,
        preview: Preview,
    ) -> set[int]:
        """Run the pivot; give the units of it that are open still."""
        units = [by_seq[seq].unit for seq in by_seq if seq in candidates or seq in refusals]

        async def attempt(part: Sequence[Unit]) -> Concluded:
            return await self._pivot.conclude(
                [candidates[unit.seq] for unit in part if unit.seq in candidates],
                [refusals[unit.seq] for unit in part if unit.seq in refusals],
                preview,
            )

        turns = () if line is None else (Turns(line, _not_ended, refusals),)
        tried = await self._reporting.run_stage(Stage.PIVOT, JOURNAL, units, attempt, *turns)
        still_open = {unit.seq for unit in units}
        failing = dict(tried.failing)
        for concluded in tried.results:
            still_open.difference_update(concluded.ended)
            self._reporting.concluded(by_seq, concluded)
            failing.update(concluded.failing)
            unended = [*unended, *concluded.busy, *concluded.behind]
        for seq in sorted(tried.behind):
            self._reporting.behind(by_seq[seq])
        for seq in sorted(tried.busy):
            self._reporting.set_aside(by_seq[seq], alone=seq in tried.slow)
        open_earlier = sorted({*unended, *tried.busy, *tried.behind, *tried.interrupted})
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
        return still_open

    def _participant(self, store: str) -> Participant:
        return self._participants[store]


_BLOCKED = Problem(
    ErrorCode.STORE_REFUSED, "The unit was being undone while it was tried again; it stays undone."
)


def _reason(entry: Entry) -> Problem:
    return entry.problem or Problem(ErrorCode.STORE_REFUSED, "The unit was refused.")


def _all_of(part: Sequence[Unit], _applied: Applied) -> Sequence[Unit]:
    """No apply ends a unit; another transaction would take their uncommitted sums for facts."""
    return part


def _not_ended(part: Sequence[Unit], concluded: Concluded) -> Sequence[Unit]:
    return [unit for unit in part if unit.seq not in concluded.ended]


def _by_store(units: Sequence[Unit]) -> dict[str, list[Unit]]:
    by_store: dict[str, list[Unit]] = {}
    for unit in units:
        for store in unit.plan.branches:
            by_store.setdefault(store, []).append(unit)
    return by_store
