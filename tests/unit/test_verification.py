"""A verification over a world that moves: what passes is forgotten, what stays is told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from coordinator.domain.discrepancies import (
    Discrepancy,
    FenceFacts,
    Kind,
    LockFacts,
    RecordFacts,
    UnitFacts,
    WorkerFacts,
)
from coordinator.domain.errors import StoreUnavailable
from coordinator.domain.lifecycle import FINAL_STATUSES, Status
from coordinator.engine.ports import JOURNAL, Partition
from coordinator.engine.verification import (
    Place,
    StoreInspection,
    Verification,
    VerificationRules,
    Verified,
)

LOOKS = 3


@dataclass
class Journal:
    """A journal of rows in memory; ``between`` is called after every read of units by id."""

    rows: dict[str, UnitFacts] = field(default_factory=dict)
    unlocked: set[str] = field(default_factory=set)
    lock_rows: list[LockFacts] = field(default_factory=list)
    dead: dict[int, str] = field(default_factory=dict)
    stuck: str | None = None
    offsets: dict[Partition, int] = field(default_factory=dict)
    known: dict[int, WorkerFacts] = field(default_factory=dict)
    between: Callable[[], None] = lambda: None
    is_away: bool = False

    async def unswept(
        self, after: Place | None, limit: int
    ) -> tuple[Sequence[UnitFacts], Place | None]:
        if self.is_away:
            raise StoreUnavailable(JOURNAL, "away")
        of = [each for each in self.rows.values() if each.status in FINAL_STATUSES]
        return _page([each for each in of if not each.swept], after, limit)

    async def open_units(
        self, after: Place | None, limit: int
    ) -> tuple[Sequence[tuple[UnitFacts, bool]], Place | None]:
        of = [each for each in self.rows.values() if each.status not in FINAL_STATUSES]
        return _page([(each, each.id not in self.unlocked) for each in of], after, limit)

    async def units(self, ids: Collection[str]) -> Mapping[str, UnitFacts]:
        found = {each: self.rows[each] for each in ids if each in self.rows}
        self.between()
        return found

    async def has_locks(self, ids: Collection[str]) -> frozenset[str]:
        return frozenset(ids) - self.unlocked

    async def locks(
        self, after: Place | None, limit: int
    ) -> tuple[Sequence[LockFacts], Place | None]:
        return _page(self.lock_rows, after, limit)

    async def forsaken(self, seconds: float) -> Mapping[int, str]:
        assert seconds == 3 * 15.0
        return self.dead

    async def outbox_stuck(self, seconds: float) -> str | None:
        return self.stuck

    async def aside(self, seconds: float) -> Mapping[str, str]:
        return {}

    async def workers(self) -> Mapping[int, WorkerFacts]:
        return self.known

    async def positions(self) -> Mapping[Partition, int]:
        return self.offsets


@dataclass
class Store:
    store: str
    held: dict[str, RecordFacts] = field(default_factory=dict)
    fence_rows: list[FenceFacts] = field(default_factory=list)
    is_away: bool = False

    async def records(
        self, after: Place | None, limit: int
    ) -> tuple[Sequence[RecordFacts], Place | None]:
        self._reach()
        return _page(list(self.held.values()), after, limit)

    async def records_of(self, ids: Collection[str]) -> Mapping[str, RecordFacts]:
        self._reach()
        return {each: self.held[each] for each in ids if each in self.held}

    async def fences(self) -> Sequence[FenceFacts]:
        self._reach()
        return self.fence_rows

    def _reach(self) -> None:
        if self.is_away:
            raise StoreUnavailable(self.store, "away")


def _page(rows: Sequence[Any], after: Place | None, limit: int) -> tuple[Sequence[Any], Any]:
    first = after[0] if after else 0
    last = first + limit
    return rows[first:last], (last,) if last < len(rows) else None


@dataclass
class Bench:
    journal: Journal = field(default_factory=Journal)
    catalog: Store = field(default_factory=lambda: Store("catalog"))
    ends: dict[Partition, int] = field(default_factory=dict)
    pauses: list[Callable[[], None]] = field(default_factory=list)
    paused: int = 0

    def add(self, unit_id: str, status: Status, state: str | None) -> None:
        seconds = 1.0 if status in FINAL_STATUSES else None
        self.journal.rows[unit_id] = UnitFacts(
            len(self.journal.rows), unit_id, "d", status, ("catalog",), seconds, False, False
        )
        if state is not None:
            self.catalog.held[unit_id] = RecordFacts(unit_id, "d", state)

    async def run(self, **rules: Any) -> Verified:
        stores: list[StoreInspection] = [self.catalog]
        return await Verification(
            self.journal,
            stores,
            self._ends,
            VerificationRules(600, 15, page_rows=3, looks=LOOKS, **rules),
            self._pause,
        ).run()

    async def _ends(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        return {each: self.ends[each] for each in partitions if each in self.ends}

    async def _pause(self, _seconds: float) -> None:
        self.paused += 1
        if self.pauses:
            self.pauses.pop(0)()


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_healthy_system_is_looked_at_once(bench: Bench) -> None:
    for number in range(10):
        bench.add(f"c{number}", Status.COMMITTED, "applied")
        bench.add(f"a{number}", Status.ACCEPTED, None)
    verified = await bench.run()
    assert (verified.found, verified.units, verified.records) == ({}, 20, 10)
    assert bench.paused == 0


async def test_damage_on_every_page_is_found_and_stays(bench: Bench) -> None:
    for number in range(8):
        bench.add(f"c{number}", Status.COMMITTED, "undone" if number % 2 else "applied")
    bench.catalog.held["stray"] = RecordFacts("stray", "d", "applied")
    verified = await bench.run()
    assert set(verified.found) == {
        *(Discrepancy(Kind.COMMITTED_IN_PART, f"c{n}", "catalog") for n in (1, 3, 5, 7)),
        Discrepancy(Kind.RECORD_WITHOUT_UNIT, "stray", "catalog"),
    }
    assert bench.paused == LOOKS - 1


async def test_a_unit_that_moves_while_it_is_read_is_not_judged(bench: Bench) -> None:
    """Committed when it was read, and its record of the next moment: not of one moment."""
    bench.add("u", Status.COMPENSATING, "tombstone")
    before = bench.journal.rows["u"]
    accepted = before._replace(status=Status.ACCEPTED)
    states = [before, accepted]

    def flip() -> None:
        states.append(states.pop(0))
        bench.journal.rows["u"] = states[0]

    bench.journal.between = flip
    assert (await bench.run()).found == {}


async def test_what_is_right_at_the_second_look_is_no_finding(bench: Bench) -> None:
    bench.add("u", Status.COMMITTED, None)
    bench.journal.stuck = "3 rows"
    bench.journal.dead = {4: "2 open units"}

    def heal() -> None:
        bench.catalog.held["u"] = RecordFacts("u", "d", "applied")
        bench.journal.stuck = None
        bench.journal.dead = {}

    bench.pauses = [heal]
    assert (await bench.run()).found == {}
    assert bench.paused == 1


async def test_locks_fences_positions_and_queues(bench: Bench) -> None:
    bench.add("u", Status.ACCEPTED, None)
    bench.journal.unlocked = {"u"}
    bench.journal.lock_rows = [
        LockFacts("account", str(n), n, Status.COMMITTED if n == 5 else Status.ACCEPTED)
        for n in range(7)
    ]
    bench.journal.offsets = {("units", 0): 9, ("units", 1): 9, ("gone", 0): 9}
    bench.ends = {("units", 0): 9, ("units", 1): 8}
    bench.journal.dead = {4: "2 open units"}
    bench.journal.stuck = "3 rows"
    bench.catalog.fence_rows = [FenceFacts(8, -1, False)]
    assert {each.kind for each in (await bench.run()).found} == {
        Kind.LOCK_MISSING,
        Kind.LOCK_OF_FINAL_UNIT,
        Kind.POSITION_AHEAD,
        Kind.UNITS_WITHOUT_WORKER,
        Kind.OUTBOX_STUCK,
        Kind.FENCE_WITHOUT_WORKER,
    }


async def test_a_store_that_is_away_proves_nothing(bench: Bench) -> None:
    bench.add("u", Status.COMMITTED, "applied")
    bench.catalog.is_away = True

    def back() -> None:
        bench.catalog.is_away = False

    bench.pauses = [back]
    found = (await bench.run()).found
    assert list(found) == [Discrepancy(Kind.NOT_LOOKED_AT, store="catalog")]


async def test_a_store_that_goes_away_takes_no_finding_with_it(bench: Bench) -> None:
    bench.add("u", Status.COMMITTED, "undone")

    def away() -> None:
        bench.catalog.is_away = True

    bench.pauses = [away]
    found = (await bench.run()).found
    assert list(found) == [Discrepancy(Kind.COMMITTED_IN_PART, "u", "catalog")]


async def test_without_the_journal_there_is_no_answer(bench: Bench) -> None:
    bench.journal.is_away = True
    with pytest.raises(StoreUnavailable):
        await bench.run()


async def test_a_store_that_is_not_configured_is_named(bench: Bench) -> None:
    bench.add("u", Status.COMMITTED, None)
    row = bench.journal.rows["u"]
    bench.journal.rows["u"] = row._replace(stores=("elsewhere",))
    assert list((await bench.run()).found) == [Discrepancy(Kind.NOT_LOOKED_AT, store="elsewhere")]


async def test_too_many_are_not_collected(bench: Bench) -> None:
    for number in range(50):
        bench.add(f"c{number}", Status.COMMITTED, "undone")
    verified = await bench.run(found_max=10)
    assert verified.stopped_early
    assert 10 <= len(verified.found) < 20
