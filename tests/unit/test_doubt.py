"""After a lost answer nothing runs past a unit that may be ours, and intake finds its way back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import pytest

from coordinator.domain.announce import Announcer
from coordinator.domain.entity import FieldType, StoreKind
from coordinator.domain.errors import ResultUnknown, StoreBusy
from coordinator.domain.mapping_json import make_mapping
from coordinator.engine.admission import Admission, AdmissionRules, IntakeRules
from coordinator.engine.drawing import Drawing
from coordinator.engine.membership import Membership
from coordinator.engine.ports import JOURNAL, Record
from coordinator.engine.schedule import Schedule
from coordinator.memory.journal import MemoryJournal
from coordinator.memory.journal_tables import Epoch
from coordinator.memory.link import DirectLink, Held
from coordinator.memory.store_tables import StoreTables
from coordinator.memory.workers import MemoryWorkers
from coordinator.memory.world import World
from tests.engine_fakes import HighestChance, ManualClock, SeenObserver
from tests.units import entity

ResultT = TypeVar("ResultT")
SHOP = make_mapping([entity("account", {"id": FieldType.INTEGER, "n": FieldType.INTEGER})])


class LosingLink(DirectLink):
    """Does what it is told, and loses the answer of ``loses``."""

    loses: str | None = None

    async def call(
        self,
        store: str,
        what: str,
        effect: Callable[[], ResultT],
        *,
        rows: Held = (),
        shared: Held = (),
    ) -> ResultT:
        result = effect()
        if what == self.loses:
            raise ResultUnknown(store, "the answer did not come")
        return result


class Worker:
    """As much of a worker as admits and takes over."""

    def __init__(
        self,
        world: World,
        *,
        max_bytes: int = 10_000,
        parked_max: int = 1_000,
        records_per_second: int = 0,
    ) -> None:
        bell = asyncio.Event()
        clock = self.clock = ManualClock()
        number = world.register(1, 10)
        self.link, epoch = LosingLink(), Epoch()
        self.workers = MemoryWorkers(world, number, 10, self.link, epoch)
        self.schedule, self.observer = Schedule(), SeenObserver()
        self.membership = Membership(self.workers, self.schedule, clock)
        self.admission = Admission(
            journal=MemoryJournal(world, number, self.link, epoch),
            schedule=self.schedule,
            mapping=SHOP,
            rules=AdmissionRules(
                max_bytes,
                30_000,
                {"units": IntakeRules(), "orders": IntakeRules()},
                "dead",
                100,
                1_000_000,
                parked_max,
                records_per_second,
            ),
            announcer=world.announcer,
            drawing=Drawing(clock, HighestChance()),
            clock=clock,
            observer=self.observer,
            membership=self.membership,
            bell=bell,
            outbox_bell=bell,
        )

    async def admit(self, partition: int, unit_id: str) -> None:
        operation = {"op": "update", "entity": "account", "key": 1, "set": {"n": 1}}
        value = json.dumps({"id": unit_id, "operations": [operation]}).encode()
        await self.admission.positions([("units", partition)])
        await self.admission.admit([Record("units", partition, 0, 0, None, value, ())])

    def takes(self) -> list[str]:
        batch = self.schedule.take(2000.0, 10)
        return [] if batch is None else [each.unit.id for each in batch.entries]


@pytest.fixture
def world() -> World:
    store = StoreTables("ledger", StoreKind.POSTGRESQL)
    return World(
        SHOP,
        [store],
        pivot_store="ledger",
        announcer=Announcer("test", "0", "outcomes", "changes.{entity}"),
        seconds=lambda: 0.0,
    )


async def test_nothing_runs_past_a_unit_whose_takeover_was_lost(world: World) -> None:
    dead, alive = Worker(world), Worker(world)
    await dead.admit(0, "earlier")
    row = world.journal.workers[dead.workers.worker]
    row.expires_at = world.now() - timedelta(seconds=1)
    assert await alive.workers.fence(row.id)
    await alive.admission.positions([("units", 1)])
    alive.link.loses = "take_over"
    with pytest.raises(ResultUnknown):
        async with alive.membership.changing():
            await alive.workers.take_over(row.id, ["ledger"])
    value = json.dumps(
        {
            "id": "later",
            "operations": [{"op": "update", "entity": "account", "key": 1, "set": {"n": 1}}],
        }
    ).encode()
    await alive.admission.admit([Record("units", 1, 0, 0, None, value, ())])
    assert alive.takes() == []
    await alive.membership.find_missing()
    alive.schedule.no_longer_elsewhere(list(alive.schedule.elsewhere))
    assert alive.takes() == ["earlier"]


async def test_an_epoch_that_came_late_does_not_shut_the_intake(world: World) -> None:
    worker = Worker(world)
    await worker.link.call(JOURNAL, "new_epoch", worker.workers._new_epoch)
    with pytest.raises(StoreBusy):
        await worker.admit(0, "first")
    await worker.admit(0, "first")
    assert worker.takes() == ["first"]
