"""The backlog is bounded in units and in bytes, wherever its units came from (I12)."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

from coordinator.domain.operation import OPERATION_BYTES
from coordinator.engine.bounds import Bound
from coordinator.engine.ports import Record
from coordinator.memory.world import World
from tests.unit.test_doubt import Worker, world

__all__ = ["world"]

BOUND = 1_000_000


def _record(offset: int, filler: int) -> Record:
    operation = {"op": "update", "entity": "account", "key": 1, "increment": {"n": 1}}
    body = {"id": f"u{offset}", "operations": [operation], "metadata": "x" * filler}
    return Record("units", 0, offset, 0, None, json.dumps(body).encode(), ())


async def test_large_units_fill_the_backlog_by_their_bytes(world: World) -> None:
    worker = Worker(world, max_bytes=BOUND)
    await worker.admission.positions([("units", 0)])
    records = [_record(offset, 400_000) for offset in range(3)]
    await worker.admission.admit(records[:2])
    assert worker.admission.bound() is None
    await worker.admission.admit(records[2:])
    assert worker.admission.bound() is Bound.BYTES
    units, weight_bytes, _ = worker.admission.backlog()
    assert units == 3
    assert weight_bytes == sum(len(each.value or b"") + OPERATION_BYTES for each in records)
    (batch_of_one,) = worker.schedule.take(2000.0, 1).entries  # type: ignore[union-attr]
    worker.schedule.end(batch_of_one.unit.seq)
    assert worker.admission.bound() is None


async def test_what_is_taken_over_weighs_as_well(world: World) -> None:
    dead, alive = Worker(world, max_bytes=BOUND), Worker(world, max_bytes=BOUND)
    await dead.admission.positions([("units", 0)])
    await dead.admission.admit([_record(offset, 400_000) for offset in range(3)])
    row = world.journal.workers[dead.workers.worker]
    row.expires_at = world.now() - timedelta(seconds=1)
    assert await alive.workers.fence(row.id)
    assert alive.admission.bound() is None
    alive.membership.adopt(await alive.workers.take_over(row.id, ["ledger"]))
    assert alive.admission.bound() is Bound.BYTES


async def test_what_was_received_is_what_was_journaled(world: World) -> None:
    """Whatever became of a record; not one whose position another daemon has moved."""
    worker, other = Worker(world), Worker(world)
    for each in (worker, other):
        await each.admission.positions([("units", 0), ("units", 1)])
    garbage = Record("units", 1, 0, 0, None, b"no unit", ())
    await other.admission.admit([garbage])
    assert await worker.admission.admit([_record(0, 10), _record(1, 10), garbage])
    seen = worker.observer.seen
    assert [each for each in seen if each[0] == "received"] == [("received", 2)]
    assert [each[:4] for each in seen if each[0] == "stage_done"] == [
        ("stage_done", "admission", "journal", 2)
    ]
    assert ("received", 1) in other.observer.seen
    assert all(each[0] != "stage_done" for each in other.observer.seen), "it held no unit"


async def test_i12_others_have_their_turn_while_large_records_are_read(world: World) -> None:
    """The slowest of them take a third of a second each: a heartbeat must not wait for a batch."""
    worker = Worker(world, max_bytes=BOUND)
    await worker.admission.positions([("units", 0)])
    turns: list[int] = []

    async def heartbeat() -> None:
        while True:
            turns.append(len(worker.schedule))
            await asyncio.sleep(0)

    beating = asyncio.create_task(heartbeat())
    await worker.admission.admit([_record(offset, 100_000) for offset in range(9)])
    beating.cancel()
    assert len(worker.schedule) == 9
    assert turns.count(0) >= 4, "before the batch was journaled"
