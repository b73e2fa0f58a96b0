"""Each step twice, failing at each, failing at each and undoing twice; undoing before applying.

The helpers of omicron's sagas, over generated units: the same functions on participants in memory
and on the real ones of PostgreSQL and MongoDB. Every branch is one step of its unit.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from coordinator.domain.announce import Announcer
from coordinator.domain.decide import Effect, Image, ImageKey
from coordinator.domain.entity import Entity
from coordinator.domain.operation import Origin, Unit
from coordinator.domain.submission import Submission, read
from coordinator.engine.drawing import Drawing
from coordinator.engine.ports import Participant
from coordinator.memory.clock import MemoryClock, SeededChance
from coordinator.memory.link import DirectLink
from coordinator.memory.participant import MemoryParticipant
from coordinator.memory.world import World
from coordinator.participants.mongodb.driver import open_driver
from coordinator.participants.mongodb.participant import MongodbParticipant
from coordinator.participants.postgresql.participant import PostgresParticipant
from coordinator.postgres_pool import open_pool
from tests.simulation.shop import (
    ARCHIVE,
    CATALOG,
    LEDGER,
    PASSING_KEYS,
    SHOP,
    STANDING_KEYS,
    open_stores,
)
from tests.simulation.submissions import unit_json
from tests.simulation.swarm import draw_swarm

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
WORKER, LANE = 1, 0
Rows = Mapping[ImageKey, Image | None]


@dataclass(frozen=True)
class Bench:
    """Two stores and how many units to try on them."""

    stores: Mapping[str, Participant]
    examples: int

    def units(self) -> Iterator[Unit]:
        """Generated units that act at one of the two stores or at both."""
        source = random.Random(self.examples)
        swarm = replace(draw_swarm(source, 1), tags=0.0, slots=0.0, short_deadlines=0.0)
        found = 0
        while found < self.examples:
            unit = unit_of(unit_json(source, swarm, f"u{found}"), found + 1)
            if LEDGER not in unit.plan.branches:
                found += 1
                yield unit

    async def rows(self) -> Rows:
        """All rows of both stores as they are."""
        keys = (*STANDING_KEYS, *PASSING_KEYS)
        rows: dict[ImageKey, Image | None] = {}
        for store, participant in self.stores.items():
            checks = [
                {"op": "check", "entity": entity.name, "key": key, "absent": True}
                for entity in SHOP.entities.values()
                for key in keys
                if entity.store == store
            ]
            everything = unit_of(json.dumps({"id": "all", "operations": checks}).encode(), 0)
            rows.update((await participant.load([everything])).images)
        return rows

    async def seed(self) -> None:
        """Make the rows that stand from the start."""
        inserts = [
            {"op": "insert", "entity": entity.name, "key": key, "values": {"n": 10}}
            for entity in SHOP.entities.values()
            for key in STANDING_KEYS
            if entity.store in self.stores
        ]
        unit = unit_of(json.dumps({"id": "seed", "operations": inserts}).encode(), 0)
        for participant in self.stores.values():
            applied = await participant.apply(LANE, [unit])
            assert unit.seq in applied.done

    async def applies(self, unit: Unit, stores: Sequence[str]) -> dict[str, bool]:
        """Apply the branches at these stores; whether each wrote something, if it went through."""
        wrote = {}
        for store in stores:
            applied = await self.stores[store].apply(LANE, [unit])
            if unit.seq in applied.done:
                effects = {each.effect for each in applied.done[unit.seq]}
                wrote[store] = effects != {Effect.NOTHING}
        return wrote


def unit_of(value: bytes, seq: int) -> Unit:
    drawing = Drawing(MemoryClock(lambda: 0.0), SeededChance(random.Random(0)))
    submission = read(value, (), SHOP, 100_000, 30_000, frozenset(), drawing)
    assert isinstance(submission, Submission), submission
    return Unit(
        seq=seq,
        id=submission.id,
        digest=submission.digest,
        plan=submission.plan,
        mapping=SHOP,
        received_at=AT,
        deadline_at=AT + timedelta(seconds=30),
        metadata=None,
        reply_to=None,
        traceparent=None,
        origin=Origin("units", 0, seq),
    )


def variant(unit: Unit, name: str) -> Unit:
    """The same unit under another id."""
    digest = hashlib.sha256(f"{unit.digest}{name}".encode()).hexdigest()
    return unit._replace(id=f"{unit.id}-{name}", digest=digest)


def attempts(unit: Unit) -> Iterator[tuple[Unit, list[str]]]:
    """The unit failing at each of its steps in turn: the steps that went before."""
    stores = list(unit.plan.branches)
    for failing in range(len(stores) + 1):
        yield variant(unit, f"fails-at-{failing}"), stores[:failing]


class Steps:
    """The same for every pair of participants."""

    async def test_each_step_twice_is_each_step_once(self, bench: Bench) -> None:
        """I3, rule 7: the second answer is the first, and the rows stay."""
        for unit in bench.units():
            for store in unit.plan.branches:
                participant = bench.stores[store]
                first = await participant.apply(LANE, [unit])
                once = await bench.rows()
                second = await participant.apply(LANE, [unit])
                assert second.done == first.done
                assert second.refused.keys() == first.refused.keys()
                assert not second.blocked
                assert await bench.rows() == once, unit.id

    async def test_failing_at_each_step_leaves_nothing(self, bench: Bench) -> None:
        """I2, F6: what went before is undone exactly, and each undo tells if it had written."""
        for unit in bench.units():
            for attempt, done in attempts(unit):
                before = await bench.rows()
                wrote = await bench.applies(attempt, done)
                for store in unit.plan.branches:
                    undone = await bench.stores[store].compensate(LANE, [attempt])
                    assert undone[attempt.seq].problem is None
                    assert undone[attempt.seq].wrote == wrote.get(store, False)
                assert await bench.rows() == before, attempt.id

    async def test_undoing_twice_is_undoing_once(self, bench: Bench) -> None:
        """I3: the second undo changes nothing more, and tells the same as the first."""
        for unit in bench.units():
            for attempt, done in attempts(unit):
                before = await bench.rows()
                await bench.applies(attempt, done)
                for store in unit.plan.branches:
                    first = await bench.stores[store].compensate(LANE, [attempt])
                    second = await bench.stores[store].compensate(LANE, [attempt])
                    assert first == second
                assert await bench.rows() == before, attempt.id

    async def test_what_is_undone_before_it_is_applied_is_never_applied(self, bench: Bench) -> None:
        """Rule 1: the tombstone blocks the apply that comes late."""
        for unit in bench.units():
            before = await bench.rows()
            for store in unit.plan.branches:
                participant = bench.stores[store]
                undone = await participant.compensate(LANE, [unit])
                assert not undone[unit.seq].wrote
                late = await participant.apply(LANE, [unit])
                assert late.blocked == {unit.seq}
                assert not late.done
            assert await bench.rows() == before, unit.id

    async def test_a_late_apply_after_its_undo_is_blocked(self, bench: Bench) -> None:
        """I3: an undone branch never comes back."""
        for unit in bench.units():
            before = await bench.rows()
            wrote = await bench.applies(unit, list(unit.plan.branches))
            for store in unit.plan.branches:
                participant = bench.stores[store]
                await participant.compensate(LANE, [unit])
                late = await participant.apply(LANE, [unit])
                assert late.blocked == {unit.seq}
            assert await bench.rows() == before, (unit.id, wrote)


class TestInMemory(Steps):
    """A hundred and fifty units."""

    @pytest.fixture
    async def bench(self) -> Bench:
        tables = open_stores(random.Random(0), with_old_tags=False)
        for each in tables:
            each.rows.clear()
        announcer = Announcer("test", "0", "outcomes", "changes.{entity}")
        world = World(SHOP, tables, pivot_store=LEDGER, announcer=announcer, seconds=lambda: 0.0)
        stores: dict[str, Participant] = {
            name: MemoryParticipant(world, name, DirectLink()) for name in (CATALOG, ARCHIVE)
        }
        for participant in stores.values():
            await participant.enrol(WORKER, 1)
        made = Bench(stores, examples=150)
        await made.seed()
        return made


@pytest.mark.integration
class TestOnRealServers(Steps):
    """A few units, because each takes dozens of transactions."""

    @pytest.fixture
    async def bench(
        self, postgres_dsn: str, mongodb_database: tuple[str, str]
    ) -> AsyncIterator[Bench]:
        await make_tables(postgres_dsn)
        pool = await open_pool(postgres_dsn, "steps", lock_timeout_seconds=0.3, max_size=3)
        tables = PostgresParticipant(ARCHIVE, pool, "journal-1")
        driver = open_driver(*mongodb_database, "motor")
        documents = MongodbParticipant(CATALOG, driver, "journal-1")
        await tables.prepare()
        await documents.prepare([each.table for each in entities_of(CATALOG)])
        stores: dict[str, Participant] = {CATALOG: documents, ARCHIVE: tables}
        try:
            for each in stores.values():
                await each.enrol(WORKER, 1)
            made = Bench(stores, examples=6)
            await made.seed()
            yield made
        finally:
            for each in stores.values():
                await each.close()


def entities_of(store: str) -> list[Entity]:
    return [each for each in SHOP.entities.values() if each.store == store]


async def make_tables(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for entity in entities_of(ARCHIVE):
            columns = ", ".join(f"{each.name} {each.type}" for each in entity.columns)
            await connection.execute(
                f"CREATE TABLE {entity.table} ({columns}, PRIMARY KEY ({entity.key}))"
            )
    finally:
        await connection.close()
