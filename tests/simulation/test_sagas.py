"""Whole units through the real engine: each call twice, failing at each, undoing twice.

The helpers of omicron's sagas over generated units, the same on adapters in memory and on the
real ones. What must come of a unit is what comes of it in memory when nothing goes wrong.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import pytest
import pytest_asyncio

from coordinator.domain.lifecycle import Status
from coordinator.domain.operation import Unit
from coordinator.engine.sweeping import Sweeping, SweepRules
from tests.conftest import fresh_database, fresh_mongodb
from tests.engine_fakes import SeenObserver
from tests.saga_benches import MemoryBench, a_real_bench, first_rows
from tests.sagas import LANE, Bench, Calls, End, Fault, Lane, rows_of, submission_of
from tests.servers import MONGODB, POSTGRES, Servers
from tests.simulation.shop import SHOP
from tests.simulation.submissions import unit_json
from tests.simulation.swarm import draw_swarm

pytestmark = pytest.mark.asyncio(loop_scope="module")


def generated() -> Iterator[bytes]:
    """Units without end, as the simulation sends them; nothing in them breaks a constraint."""
    source = random.Random(1)
    swarm = replace(draw_swarm(source, 1), tags=0.0, slots=0.0, short_deadlines=0.0)
    while True:
        yield unit_json(source, swarm, "generated")


@dataclass(frozen=True)
class Shop:
    """A bench with a lane, and the units to be tried on it."""

    lane: Lane
    submissions: Sequence[bytes]

    @property
    def bench(self) -> Bench:
        return self.lane.bench

    async def tried(
        self, value: bytes, calls: Calls, expected: End, *, gives_up: bool = False
    ) -> None:
        """Run a unit on fresh rows; it must end as expected, or undone as if it had never been."""
        await self.bench.put(first_rows())
        before = await rows_of(self.bench)
        unit = await self.lane.admit(value)
        await self.lane.run(unit, calls, gives_up=gives_up)
        end = await self.lane.end_of(unit)
        await self.late_applies_are_blocked(unit, calls)
        said = f"{value.decode()} after {calls.made}"
        if end.status is Status.COMMITTED:
            assert expected.status is Status.COMMITTED, said
            assert end.rows == expected.rows, said
        else:
            assert end.rows == before, said
            assert (end.status is Status.COMPENSATED) == calls.wrote, said
            may_fail = gives_up or calls.fault is Fault.REFUSED
            assert may_fail or expected.status is not Status.COMMITTED, said

    async def late_applies_are_blocked(self, unit: Unit, calls: Calls) -> None:
        """Rule 1: where a compensation has been, no apply that was still on its way succeeds."""
        for store, participant in self.bench.participants.items():
            if f"compensate at {store}" in calls.made:
                late = await participant.apply(LANE, [unit])
                assert late.blocked == {unit.seq}, (unit.id, calls.made)

    async def tried_at_each_call(
        self,
        value: bytes,
        fault: Fault,
        *,
        gives_up: bool = False,
        compensations_twice: bool = False,
    ) -> int:
        """Let each call of the unit fail in turn; how many there were."""
        expected = await undisturbed(value)
        at = 0
        while True:
            at += 1
            calls = Calls(fault, at, compensations_twice=compensations_twice)
            await self.tried(value, calls, expected, gives_up=gives_up)
            if len(calls.made) < at:
                return at - 1


async def undisturbed(value: bytes) -> End:
    """How a unit ends in memory when nothing goes wrong."""
    bench = await MemoryBench().open()
    await bench.put(first_rows())
    lane = Lane(bench)
    unit = await lane.admit(value)
    await lane.run(unit, Calls())
    return await lane.end_of(unit)


class Sagas:
    """The same everywhere."""

    async def test_every_call_twice_is_every_call_once(self, shop: Shop) -> None:
        """I3, rule 7."""
        committed = 0
        for value in shop.submissions:
            expected = await undisturbed(value)
            await shop.tried(value, Calls(twice=True), expected)
            committed += expected.status is Status.COMMITTED
        assert committed

    @pytest.mark.parametrize("fault", [Fault.UNAVAILABLE, Fault.LOST])
    async def test_a_call_that_fails_once_changes_nothing(self, shop: Shop, fault: Fault) -> None:
        """I2, I11: whichever call it is, the unit goes on and ends as it would have."""
        for value in shop.submissions:
            assert await shop.tried_at_each_call(value, fault) > 1

    @pytest.mark.parametrize("compensations_twice", [False, True], ids=["once", "undone-twice"])
    @pytest.mark.parametrize("fault", Fault)
    async def test_failing_at_each_call_unwinds(
        self, shop: Shop, fault: Fault, compensations_twice: bool
    ) -> None:
        """I2, I3, F6, rule 1: given up at any call, done or not, it is committed or as before."""
        for value in shop.submissions:
            await shop.tried_at_each_call(
                value, fault, gives_up=True, compensations_twice=compensations_twice
            )


class TestInMemory(Sagas):
    """Sixty units."""

    @pytest.fixture
    async def shop(self) -> Shop:
        return Shop(Lane(await MemoryBench().open()), tuple(islice(generated(), 60)))


async def test_an_end_that_nobody_was_told_of_is_not_made_again() -> None:
    """I11: else a tombstone comes after the sweep of its unit, and nothing takes it away."""
    bench = await MemoryBench().open()
    lane = Lane(bench)
    sweeping = Sweeping(bench.journal, bench.participants, SeenObserver(), SweepRules(-1.0), tuple)
    for value in islice(generated(), 60):
        for at in range(1, 30):
            await bench.put(first_rows())
            unit = await lane.admit(value)
            calls = Calls(Fault.REFUSED, at, ends_lost=1)
            await lane.run(unit, calls, meanwhile=sweeping.run_once)
            await sweeping.run_once()
            assert await bench.records(unit.id) == {}, (value, calls.made)
            if len(calls.made) < at:
                break


async def telling() -> Sequence[bytes]:
    """One unit over all stores that commits, and one that is refused."""
    commits: bytes | None = None
    for value in generated():
        stores = submission_of(value).plan.branches
        if len(stores) < len(SHOP.stores):
            continue
        end = await undisturbed(value)
        if end.status is Status.COMMITTED:
            commits = commits or value
        elif commits is not None:
            return commits, value
    raise AssertionError("the units have come to an end")


@pytest_asyncio.fixture(params=["motor", "pymongo"], scope="module", loop_scope="module")
async def real_shop(servers: Servers, request: pytest.FixtureRequest) -> AsyncIterator[Shop]:
    """A worker on PostgreSQL and MongoDB, by either driver."""
    servers.prefetch((POSTGRES, MONGODB))
    with fresh_mongodb(servers) as mongodb:
        async with (
            fresh_database(servers) as journal_dsn,
            fresh_database(servers) as archive_dsn,
            a_real_bench(journal_dsn, archive_dsn, mongodb, request.param) as bench,
        ):
            yield Shop(Lane(bench), await telling())


@pytest.mark.integration
class TestOnRealServers(Sagas):
    """Two units, because each is run some sixty times."""

    @pytest.fixture
    def shop(self, real_shop: Shop) -> Shop:
        return real_shop
