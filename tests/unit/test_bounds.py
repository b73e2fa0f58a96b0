"""What holds intake back: open units, their bytes, parked units, and a topic's pace (I12)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from aiokafka import TopicPartition

from coordinator.engine.bounds import Backlog, Bound, Pace
from coordinator.engine.ports import Record
from coordinator.kafka.pacing import PacedReading
from coordinator.memory.world import World
from tests.unit.test_doubt import Worker, world

__all__ = ["world"]


def test_a_pace_gives_what_a_second_brings_and_no_more() -> None:
    pace = Pace(10, now=100.0)
    assert pace.allowance(100.0) == 10
    pace.take(10)
    assert pace.allowance(100.0) == 0
    assert pace.allowance(100.35) == 3
    pace.take(3)
    assert pace.allowance(100.35) == 0
    assert pace.allowance(500.0) == 10, "a quiet time is not saved up"


def test_a_pace_is_slow_from_empty_until_full_again() -> None:
    pace = Pace(10, now=0.0)
    pace.take(9)
    assert (pace.allowance(0.0), pace.is_slow) == (1, False)
    pace.take(1)
    assert (pace.allowance(0.0), pace.is_slow) == (0, True)
    assert (pace.allowance(0.9), pace.is_slow) == (9, True)
    assert (pace.allowance(1.0), pace.is_slow) == (10, False)


def test_what_could_not_be_held_back_is_waited_for() -> None:
    pace = Pace(10, now=0.0)
    pace.take(60)
    assert pace.allowance(4.9) == 0
    assert pace.allowance(5.55) == 5


def test_over_a_long_time_the_pace_is_kept() -> None:
    pace, taken, now = Pace(7, now=0.0), 0, 0.0
    while now < 100.0:
        allowed = min(3, pace.allowance(now))
        pace.take(allowed)
        taken += allowed
        now += 0.013
    assert 7 * 100 <= taken <= 7 * 101


def _record(offset: int, topic: str = "units") -> Record:
    body = {"id": f"u{topic}{offset}", "operations": [_INCREMENT]}
    return Record(topic, 0, offset, 0, None, json.dumps(body).encode(), ())


_INCREMENT = {"op": "update", "entity": "account", "key": 1, "increment": {"n": 1}}


async def test_each_topic_has_a_pace_of_its_own_and_both_turns_are_told_once(world: World) -> None:
    worker = Worker(world, records_per_second=5)
    admission, topics = worker.admission, ["orders", "units"]
    await admission.positions([("units", 0), ("orders", 0)])
    assert admission.allowances(topics) == {"units": 5, "orders": 5}
    await admission.admit([*(_record(at) for at in range(5)), _record(0, "orders")])
    for _ in range(3):
        assert admission.allowances(topics) == {"units": 0, "orders": 4}
    assert admission.bounds_reached() == {Bound.RATE}
    worker.clock.seconds += 0.5
    assert admission.allowances(topics) == {"units": 2, "orders": 5}
    worker.clock.seconds += 0.5
    for _ in range(3):
        assert admission.allowances(topics) == {"units": 5, "orders": 5}
    told = [each for each in worker.observer.seen if each[0] == "pace_changed"]
    assert told == [("pace_changed", "units", 5, True), ("pace_changed", "units", 5, False)]
    assert admission.bounds_reached() == frozenset()


async def test_without_a_pace_nothing_is_counted(world: World) -> None:
    worker = Worker(world)
    await worker.admission.positions([("units", 0)])
    await worker.admission.admit([_record(at) for at in range(5)])
    assert worker.admission.allowances(["units"]) == {}


async def test_parked_units_hold_intake_back_until_a_person_has_seen_to_one(world: World) -> None:
    """They are ended through the journal, and so whatever intake does (no verb waits for it)."""
    worker = Worker(world, parked_max=2)
    await worker.admission.positions([("units", 0)])
    await worker.admission.admit([_record(at) for at in range(3)])
    entries = [worker.schedule.get(seq) for seq in sorted(worker.schedule._entries)]
    for entry in entries[:2]:
        assert worker.admission.bound() is None
        assert entry is not None
        worker.schedule.park(entry)
    assert worker.admission.bound() is Bound.PARKED
    assert worker.admission.bounds_reached() == {Bound.PARKED}
    assert worker.admission.backlog() == Backlog(3, worker.schedule.weight_bytes, 2)
    assert entries[0] is not None
    worker.schedule.end(entries[0].unit.seq)
    assert worker.admission.bound() is None


class _Consumer:
    """Gives what it has of one partition before it looks at the next, as the driver does."""

    def __init__(self, *counts: int) -> None:
        self.left = {TopicPartition("units", number): count for number, count in enumerate(counts)}
        self.asked: list[int] = []

    async def fetch(
        self, timeout_ms: int, max_records: int, *only: TopicPartition
    ) -> Sequence[Record]:
        self.asked.append(max_records)
        records: list[Record] = []
        for place in only or sorted(self.left):
            count = min(self.left[place], max_records - len(records))
            self.left[place] -= count
            records += [Record("units", place.partition, 0, 0, None, b"", ())] * count
        return records


async def _read(consumer: _Consumer, allowed: int, most: int = 100) -> list[int]:
    paced = PacedReading(consumer)  # type: ignore[arg-type]
    found = await paced.fetch(
        {"units": allowed}, list(consumer.left), timeout_ms=1, max_records=most
    )
    return sorted(record.partition for record in found)


async def test_no_partition_waits_until_another_is_empty() -> None:
    consumer = _Consumer(1000, 1000, 2)
    assert len(await _read(consumer, 30, most=30)) == 22
    assert consumer.left == {
        TopicPartition("units", 0): 990,
        TopicPartition("units", 1): 990,
        TopicPartition("units", 2): 0,
    }
    paced = PacedReading(consumer)  # type: ignore[arg-type]
    for _ in range(6):
        found = await paced.fetch({"units": 1}, list(consumer.left), timeout_ms=1, max_records=9)
        assert len(found) == 1
    assert sum(consumer.left.values()) == 2 * 990 - 6
    assert max(consumer.left.values()) <= 988, "both were read"


async def test_nothing_is_read_of_a_topic_that_must_wait_and_others_are() -> None:
    consumer = _Consumer(5)
    consumer.left[TopicPartition("orders", 0)] = 5
    assert await _read(consumer, 0) == [0] * 5
    assert consumer.left == {TopicPartition("units", 0): 5, TopicPartition("orders", 0): 0}
    del consumer.left[TopicPartition("orders", 0)]
    began = asyncio.get_running_loop().time()
    assert await _read(consumer, 0) == []
    assert asyncio.get_running_loop().time() > began, "it waits, instead of asking all the time"
