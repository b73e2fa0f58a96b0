"""The proof that journal and stores agree, on a system that works: ``coordinator verify``.

Nothing is written and nothing is locked, so what is read at two places is not of one moment. Two
things make up for that. First, a unit is read in the journal *before and after* its undo records:
a unit's status goes one way (I4), so a unit that is the same in both looks was so in between, and
only such a unit is judged. Second, whatever looks wrong is looked at again, after a pause, several
times: what a healthy system shows in passing is gone then, and a broken promise stays.

All reading is in pages of bounded size, by key, so it holds nothing up and takes no snapshot that
grows old. What comes into being behind a page's place is not seen: it is for the next run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from coordinator.domain.discrepancies import (
    Discrepancy,
    FenceFacts,
    Kind,
    LockFacts,
    RecordFacts,
    UnitFacts,
    WorkerFacts,
    judge_branch,
    judge_fences,
    judge_lock,
)
from coordinator.domain.errors import StoreError
from coordinator.engine.ports import JOURNAL, Partition

KAFKA = "kafka"

Place = tuple[Any, ...]
"""Where a page ends; given back for the next one. Nobody but the adapter reads it."""

Found = dict[Discrepancy, str]
"""Discrepancies, each with its detail as it was last seen."""


@dataclass(frozen=True, slots=True)
class VerificationRules:
    """The bounds of a run. ``looks`` counts the first one."""

    undo_retention_seconds: float
    lease_ttl_seconds: float
    leases: float = 3.0
    outbox_age_seconds: float = 300.0
    page_rows: int = 500
    looks: int = 3
    pause_seconds: float = 2.0
    found_max: int = 1000


class JournalInspection(Protocol):
    """What is read in the journal. All may raise `StoreUnavailable`."""

    async def unswept(
        self, after: Place | None, limit: int
    ) -> tuple[Sequence[UnitFacts], Place | None]:
        """Read a page of final units whose undo records are not swept yet, the oldest first."""

    async def open_units(
        self, after: Place | None, limit: int
    ) -> tuple[Sequence[tuple[UnitFacts, bool]], Place | None]:
        """Read a page of open units, each with whether all locks of its plan are there."""

    async def units(self, ids: Collection[str]) -> Mapping[str, UnitFacts]:
        """Read units by id; unknown ones are missing."""

    async def has_locks(self, ids: Collection[str]) -> frozenset[str]:
        """Which of these units are final, unknown, or hold all locks of their plans."""

    async def locks(
        self, after: Place | None, limit: int
    ) -> tuple[Sequence[LockFacts], Place | None]:
        """Read a page of locks, each with its unit's status at the same moment."""

    async def forsaken(self, seconds: float) -> Mapping[int, str]:
        """Workers with open units whose lease ran out so long ago, each with a sentence."""

    async def outbox_stuck(self, seconds: float) -> str | None:
        """Say how old the oldest message of the outbox is, if it is older than that."""

    async def aside(self, seconds: float) -> Mapping[str, str]:
        """Topics that have messages set aside for longer than that, each with a sentence."""

    async def workers(self) -> Mapping[int, WorkerFacts]:
        """Read all workers."""

    async def positions(self) -> Mapping[Partition, int]:
        """Read all intake positions."""


class StoreInspection(Protocol):
    """What is read in one store's bookkeeping. All may raise `StoreUnavailable`."""

    @property
    def store(self) -> str:
        """The store's name in the configuration."""

    async def records(
        self, after: Place | None, limit: int
    ) -> tuple[Sequence[RecordFacts], Place | None]:
        """Read a page of the journal's undo records and tombstones here."""

    async def records_of(self, ids: Collection[str]) -> Mapping[str, RecordFacts]:
        """Read the records of these units."""

    async def fences(self) -> Sequence[FenceFacts]:
        """Read the fences of the journal's workers here."""


TopicEnds = Callable[[Collection[Partition]], Awaitable[Mapping[Partition, int]]]
"""Gives where partitions end; those that Kafka does not have are missing."""


@dataclass(slots=True)
class Verified:
    """What came of a run: what stays wrong, and how much was looked at."""

    found: Found = field(default_factory=dict)
    units: int = 0
    records: int = 0
    locks: int = 0
    stopped_early: bool = False
    """There are so many discrepancies that the run looked for no more."""


class Verification:
    """One run."""

    def __init__(
        self,
        journal: JournalInspection,
        stores: Sequence[StoreInspection],
        topic_ends: TopicEnds,
        rules: VerificationRules,
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        self._journal = journal
        self._stores = {each.store: each for each in stores}
        self._topic_ends = topic_ends
        self._rules = rules
        self._pause = pause
        self._seen = Verified()

    async def run(self) -> Verified:
        """Look at everything, and again at what looked wrong; raises for an absent journal only."""
        found: Found = {}
        await self._scan_units(found)
        for store in self._stores.values():
            await self._guarded(store.store, found, partial(self._scan_records, store, found))
        self._seen.locks = await self._scan_locks(found)
        found.update(await self._look_around())
        for _ in range(self._rules.looks - 1):
            if not found:
                break
            await self._pause(self._rules.pause_seconds)
            found = await self._look_again(found)
        self._seen.found = found
        return self._seen

    # --- the first look -------------------------------------------------------------------------

    async def _scan_units(self, found: Found) -> None:
        """Units whose undo records must be there; those that are there are seen by the stores."""
        after: Place | None = None
        while not self._is_enough(found):
            page, after = await self._journal.unswept(after, self._rules.page_rows)
            await self._judge_page(page, found)
            if after is None:
                break
        after = None
        while not self._is_enough(found):
            rows, after = await self._journal.open_units(after, self._rules.page_rows)
            for unit, is_locked in rows:
                if not is_locked:
                    found[Discrepancy(Kind.LOCK_MISSING, unit.id)] = unit.status.value
            await self._judge_page([unit for unit, _ in rows], found)
            if after is None:
                break

    async def _judge_page(self, page: Sequence[UnitFacts], found: Found) -> None:
        self._seen.units += len(page)
        by_store: dict[str, list[str]] = {}
        for unit in page:
            for name in unit.stores:
                by_store.setdefault(name, []).append(unit.id)
        for name, ids in by_store.items():
            store = self._stores.get(name)
            if store is None:
                found[Discrepancy(Kind.NOT_LOOKED_AT, store=name)] = "it is not configured"
                continue
            units = {each.id: each for each in page}
            await self._guarded(name, found, partial(self._judge, store, ids, found, units))

    async def _scan_records(self, store: StoreInspection, found: Found) -> None:
        after: Place | None = None
        while not self._is_enough(found):
            page, after = await store.records(after, self._rules.page_rows)
            self._seen.records += len(page)
            await self._judge(store, [each.unit for each in page], found)
            if after is None:
                break

    async def _judge(
        self,
        store: StoreInspection,
        ids: Sequence[str],
        found: Found,
        before: Mapping[str, UnitFacts] | None = None,
    ) -> None:
        """Judge branches at a store, but those whose unit moved meanwhile: it is well, then."""
        if not ids:
            return
        if before is None:
            before = await self._journal.units(ids)
        records = await store.records_of(ids)
        after = await self._journal.units(ids)
        for unit_id in ids:
            unit, now = before.get(unit_id), after.get(unit_id)
            if (unit is None) != (now is None) or not (unit is None or unit.is_as_before(now)):
                continue
            # By the later look: a record that must still be there then was not to go before.
            judged = judge_branch(
                store.store,
                unit_id,
                now,
                records.get(unit_id),
                self._rules.undo_retention_seconds,
            )
            if judged is not None:
                found[judged[0]] = judged[1]

    async def _scan_locks(self, found: Found) -> int:
        after: Place | None = None
        read = 0
        while not self._is_enough(found):
            page, after = await self._journal.locks(after, self._rules.page_rows)
            read += len(page)
            found.update(filter(None, map(judge_lock, page)))
            if after is None:
                break
        return read

    async def _look_around(self) -> Found:
        """Everything that is few: workers, queues, fences, positions."""
        found: Found = {}
        rules, journal = self._rules, self._journal
        overdue_seconds = rules.leases * rules.lease_ttl_seconds
        for worker, detail in (await journal.forsaken(overdue_seconds)).items():
            found[Discrepancy(Kind.UNITS_WITHOUT_WORKER, subject=f"worker {worker}")] = detail
        if (stuck := await journal.outbox_stuck(rules.outbox_age_seconds)) is not None:
            found[Discrepancy(Kind.OUTBOX_STUCK, subject="outbox")] = stuck
        for topic, detail in (await journal.aside(rules.outbox_age_seconds)).items():
            found[Discrepancy(Kind.TOPIC_ASIDE, subject=topic)] = detail
        for store in self._stores.values():
            await self._guarded(store.store, found, partial(self._compare_fences, store, found))
        await self._guarded(KAFKA, found, partial(self._compare_positions, found))
        return found

    async def _compare_fences(self, store: StoreInspection, found: Found) -> None:
        before = await self._journal.workers()
        fences = await store.fences()
        found.update(judge_fences(store.store, before, fences, await self._journal.workers()))

    async def _compare_positions(self, found: Found) -> None:
        # Positions first: a topic's end only grows, if all is well.
        positions = await self._journal.positions()
        ends = await self._topic_ends(list(positions)) if positions else {}
        for (topic, number), end in ends.items():
            position = positions[topic, number]
            if position > end:
                subject = f"{topic}/{number}"
                detail = f"the position is {position}, the partition ends at {end}"
                found[Discrepancy(Kind.POSITION_AHEAD, store=KAFKA, subject=subject)] = detail

    # --- the later looks ------------------------------------------------------------------------

    async def _look_again(self, suspects: Found) -> Found:
        again: Found = await self._look_around()
        by_store: dict[str, list[str]] = {}
        for each in suspects:
            if each.unit is not None and each.store is not None:
                by_store.setdefault(each.store, []).append(each.unit)
        for name, ids in by_store.items():
            await self._guarded(name, again, partial(self._judge, self._stores[name], ids, again))
        await self._look_again_at_locks(suspects, again)
        # What could not be looked at is not proved, whatever came later.
        blind = {each.store for each in again if each.kind is Kind.NOT_LOOKED_AT}
        return {
            each: again.get(each, detail)
            for each, detail in suspects.items()
            if each in again or each.kind is Kind.NOT_LOOKED_AT or each.store in blind
        }

    async def _look_again_at_locks(self, suspects: Found, again: Found) -> None:
        stray = {Kind.LOCK_WITHOUT_UNIT, Kind.LOCK_OF_FINAL_UNIT}
        if any(each.kind in stray for each in suspects):
            await self._scan_locks(again)
        unlocked = {each.unit for each in suspects if each.kind is Kind.LOCK_MISSING}
        ids = [unit for unit in unlocked if unit is not None]
        if ids:
            fine = await self._journal.has_locks(ids)
            for unit in set(ids) - fine:
                each = Discrepancy(Kind.LOCK_MISSING, unit)
                again[each] = suspects[each]

    # --- what both need -------------------------------------------------------------------------

    def _is_enough(self, found: Found) -> bool:
        if len(found) >= self._rules.found_max:
            self._seen.stopped_early = True
        return self._seen.stopped_early

    async def _guarded(self, name: str, found: Found, look: Callable[[], Awaitable[None]]) -> None:
        """Look at a store or at Kafka; one that is away is a discrepancy of its own."""
        try:
            await look()
        except StoreError as error:
            if error.store == JOURNAL:
                raise
            found[Discrepancy(Kind.NOT_LOOKED_AT, store=name)] = error.message
