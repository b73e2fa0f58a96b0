"""Intake against a real broker: the journal alone says where reading begins."""

import asyncio
import time
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from coordinator.devstack.kafka import Kafka
from coordinator.domain.errors import Fenced
from coordinator.engine.ports import Partition, Record, Suspicion
from coordinator.kafka import membership, watch
from coordinator.kafka.consumer import GroupConsumer
from coordinator.kafka.intake import UnitIntake
from coordinator.kafka.topics import ensure_topics
from tests.integration.test_kafka_ports import (
    MemoryIntake,
    admin_of,
    delete_topic,
    producer_of,
    running,
    until,
)
from tests.log_capture import captured_log

pytestmark = pytest.mark.integration


async def _topic(bootstrap: str, prefix: str, partitions: int = 1) -> str:
    topic = f"{prefix}units"
    await ensure_topics(bootstrap, [topic], create=True, partitions=partitions)
    return topic


async def _send(bootstrap: str, topic: str, values: list[bytes], partition: int = 0) -> None:
    async with producer_of(bootstrap) as producer:
        for value in values:
            await producer.send(topic, value, partition=partition)
        await producer.flush()


def _numbers(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


async def test_records_come_in_order_whole_and_in_batches(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    topic = await _topic(kafka_bootstrap, kafka_prefix, 2)
    headers = [("twice", b"1"), ("twice", b"2"), ("none", None)]
    async with producer_of(kafka_bootstrap) as producer:
        await producer.send_and_wait(topic, b"first", key=b"k", partition=0, headers=headers)
        await producer.send_and_wait(topic, None, key=b"gone", partition=1)
    await _send(kafka_bootstrap, topic, _numbers(300), partition=1)
    port = MemoryIntake()
    intake = UnitIntake(kafka_bootstrap, kafka_prefix, [topic], port, max_records=50)
    async with running(intake):
        await until(lambda: len(port.admitted) == 302, "all records are admitted")
        assert intake.state().ready
        assert intake.state().assigned == {(topic, 0), (topic, 1)}
    first = next(record for record in port.admitted if record.partition == 0)
    assert (first.key, first.value, first.headers) == (b"k", b"first", tuple(headers))
    assert port.values(1) == [None, *_numbers(300)]
    assert max(port.batches) <= 50
    assert not intake.state().ready


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
async def test_units_of_every_codec_are_read(
    kafka_bootstrap: str, kafka_prefix: str, codec: str
) -> None:
    topic = await _topic(kafka_bootstrap, kafka_prefix)
    values = [b"%d" % number * 100 for number in range(50)]
    async with AIOKafkaProducer(
        bootstrap_servers=kafka_bootstrap, compression_type=codec, linger_ms=50
    ) as producer:
        await asyncio.gather(*[producer.send_and_wait(topic, v, partition=0) for v in values])
    port = MemoryIntake()
    async with running(UnitIntake(kafka_bootstrap, kafka_prefix, [topic], port)):
        await until(lambda: len(port.admitted) == 50, "all records are admitted")
    assert sorted(port.values(0), key=repr) == sorted(values, key=repr)


async def test_a_codec_that_is_not_there_stops_its_partition_only(
    kafka_bootstrap: str, kafka_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken broker would be asked again for ever, and nothing be read meanwhile."""
    topic = await _topic(kafka_bootstrap, kafka_prefix, 2)
    await _send(kafka_bootstrap, topic, _numbers(3), partition=0)
    await _send(kafka_bootstrap, topic, _numbers(3), partition=1)
    async with AIOKafkaProducer(
        bootstrap_servers=kafka_bootstrap, compression_type="lz4"
    ) as producer:
        await producer.send_and_wait(topic, b"x" * 1000, partition=0)
    monkeypatch.setattr("aiokafka.codec.has_lz4", lambda: False)
    port = MemoryIntake()
    intake = UnitIntake(kafka_bootstrap, kafka_prefix, [topic], port)
    async with running(intake):
        await until(lambda: intake.state().parked == {(topic, 0)}, "the partition is parked")
        await _send(kafka_bootstrap, topic, _numbers(3, start=3), partition=1)
        await until(lambda: port.values(1) == _numbers(6), "the other partition is read")
        assert port.values(0) == _numbers(3)


async def test_the_journals_position_counts_and_not_kafkas(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    topic = await _topic(kafka_bootstrap, kafka_prefix)
    await _send(kafka_bootstrap, topic, _numbers(10))
    other = AIOKafkaConsumer(
        bootstrap_servers=kafka_bootstrap, group_id=kafka_prefix, enable_auto_commit=False
    )
    await other.start()
    other.assign([TopicPartition(topic, 0)])
    await other.commit({TopicPartition(topic, 0): 9})
    await other.stop()
    port = MemoryIntake()
    port.at[topic, 0] = 4
    async with running(UnitIntake(kafka_bootstrap, kafka_prefix, [topic], port)):
        await until(lambda: port.at[topic, 0] == 10, "the rest is read")
    assert port.values(0) == _numbers(6, start=4)


async def test_reading_pauses_while_there_is_no_room(
    kafka_bootstrap: str, kafka_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "_ROOM_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(watch, "_LOOK_SECONDS", 0.05)
    topic = await _topic(kafka_bootstrap, kafka_prefix)
    await _send(kafka_bootstrap, topic, _numbers(5))
    port = MemoryIntake()
    port.room = False
    intake = UnitIntake(kafka_bootstrap, kafka_prefix, [topic], port)
    async with running(intake):
        await until(lambda: intake.state().paused and intake.state().joined, "it pauses")
        await until(lambda: intake.state().lag == {(topic, 0): 5}, "the records are seen to wait")
        assert port.admitted == []
        port.room = True
        await until(lambda: port.values(0) == _numbers(5), "it resumes")
        assert not intake.state().paused


async def test_a_topic_that_has_to_wait_is_not_taken_for_one_that_fell_silent(
    kafka_bootstrap: str, kafka_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I12: it is read no faster than the port allows, every partition in its turn."""
    monkeypatch.setattr(watch, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(watch, "_SILENT_SECONDS_MAX", 0.2)
    topic = await _topic(kafka_bootstrap, kafka_prefix, 2)
    for partition in range(2):
        await _send(kafka_bootstrap, topic, _numbers(50), partition=partition)
    port = MemoryIntake()
    port.allow = lambda: 0
    intake = UnitIntake(kafka_bootstrap, kafka_prefix, [topic], port)
    with captured_log() as logs:
        async with running(intake):
            await until(lambda: intake.state().lag == {(topic, 0): 50, (topic, 1): 50}, "all wait")
            await asyncio.sleep(1)
            assert port.admitted == []
            port.allow = lambda: 4
            await until(lambda: len(port.admitted) >= 40, "some are read")
            assert min(len(port.values(partition)) for partition in range(2)) > 10
            await until(lambda: len(port.admitted) == 100, "all are read")
    assert max(port.batches) <= 4
    assert [port.values(partition) for partition in range(2)] == [_numbers(50)] * 2
    assert _rebuilt(logs) == []


async def test_no_lag_is_told_before_the_journal_has_placed_a_partition(
    kafka_bootstrap: str, kafka_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's position is a stand-in until then: all of the log would seem to wait."""
    monkeypatch.setattr(watch, "_LOOK_SECONDS", 0.05)
    topic = await _topic(kafka_bootstrap, kafka_prefix)
    await _send(kafka_bootstrap, topic, _numbers(10))
    port = MemoryIntake()
    port.at[topic, 0], port.away, port.room = 7, 10**9, False
    seen: list[int | None] = []
    bounds = GroupConsumer.bounds

    async def noted(self: GroupConsumer, partitions: Any) -> Any:
        seen.append(intake.state().lag.get((topic, 0)))
        return await bounds(self, partitions)

    monkeypatch.setattr(GroupConsumer, "bounds", noted)
    intake = UnitIntake(kafka_bootstrap, kafka_prefix, [topic], port)
    async with running(intake):
        await until(lambda: len(seen) > 3, "the ends of the logs were looked at")
        assert set(seen) == {None}
        port.away = 0
        await until(lambda: intake.state().lag == {(topic, 0): 3}, "the lag is known")
        port.room = True
        await until(lambda: intake.state().lag == {(topic, 0): 0}, "all is read")
        assert intake.state().rebalances == 1
    assert intake.state().rebalances == 1


async def test_a_lost_position_is_sought_again(kafka_bootstrap: str, kafka_prefix: str) -> None:
    topic = await _topic(kafka_bootstrap, kafka_prefix)
    await _send(kafka_bootstrap, topic, _numbers(10))
    port = MemoryIntake()
    port.steal[topic, 0] = 6  # another daemon has read so far
    with captured_log() as logs:
        async with running(UnitIntake(kafka_bootstrap, kafka_prefix, [topic], port)):
            await until(lambda: port.at.get((topic, 0)) == 10, "the rest is read")
    assert port.values(0) == _numbers(4, start=6)
    assert [log["log_level"] for log in logs if log["event"] == "intake.position_lost"] == [
        "warning"
    ]


async def test_a_journal_that_is_away_costs_nothing(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    topic = await _topic(kafka_bootstrap, kafka_prefix)
    port = MemoryIntake()
    async with running(UnitIntake(kafka_bootstrap, kafka_prefix, [topic], port)):
        await _send(kafka_bootstrap, topic, _numbers(3))
        await until(lambda: len(port.admitted) == 3, "the first are read")
        port.away = 3
        await _send(kafka_bootstrap, topic, _numbers(3, start=3))
        await until(lambda: len(port.admitted) == 6, "the others are read when it is back")
    assert port.values(0) == _numbers(6)


async def test_records_that_retention_ate_are_an_error_and_reading_goes_on(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    topic = await _topic(kafka_bootstrap, kafka_prefix)
    await _send(kafka_bootstrap, topic, _numbers(10))
    async with admin_of(kafka_bootstrap) as admin:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(7)})
    port = MemoryIntake()
    port.at[topic, 0] = 2
    with captured_log() as logs:
        async with running(UnitIntake(kafka_bootstrap, kafka_prefix, [topic], port)):
            await until(lambda: port.at[topic, 0] == 10, "the rest is read")
    assert port.values(0) == _numbers(3, start=7)
    event = next(log for log in logs if log["event"] == "intake.records_lost")
    assert (event["log_level"], event["records"], event["offset"]) == ("error", 5, 7)


async def test_a_log_that_ends_before_the_position_is_parked_until_a_person_says(
    kafka_bootstrap: str, kafka_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "_BEYOND_END_SECONDS", 0.05)
    monkeypatch.setattr(membership, "_PARKED_LOOK_SECONDS", 0.1)
    topic = await _topic(kafka_bootstrap, kafka_prefix, 2)
    await _send(kafka_bootstrap, topic, _numbers(3), partition=0)
    await _send(kafka_bootstrap, topic, _numbers(3), partition=1)
    port = MemoryIntake()
    port.at[topic, 0] = 100
    intake = UnitIntake(kafka_bootstrap, kafka_prefix, [topic], port)
    with captured_log() as logs:
        async with running(intake):
            await until(lambda: intake.state().parked, "it is parked")
            await until(lambda: port.values(1) == _numbers(3), "the other partition is read")
            assert intake.state().parked == {(topic, 0)}
            assert not intake.state().ready
            assert port.values(0) == []
            port.at[topic, 0] = 1
            await until(lambda: port.at[topic, 0] == 3, "it is read on from the position set")
            assert intake.state().ready
    assert port.values(0) == _numbers(2, start=1)
    assert any(
        log["event"] == "intake.partition_parked" and log["log_level"] == "error" for log in logs
    )


async def test_a_topic_made_again_is_not_read_from_its_beginning(
    kafka_bootstrap: str, kafka_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "_BEYOND_END_SECONDS", 0.05)
    topic = await _topic(kafka_bootstrap, kafka_prefix)
    await _send(kafka_bootstrap, topic, _numbers(5))
    port = MemoryIntake()
    async with running(UnitIntake(kafka_bootstrap, kafka_prefix, [topic], port)):
        await until(lambda: port.at.get((topic, 0)) == 5, "the old ones are read")
    await delete_topic(kafka_bootstrap, topic)
    await _topic(kafka_bootstrap, kafka_prefix)
    await _send(kafka_bootstrap, topic, [b"new"])
    intake = UnitIntake(kafka_bootstrap, kafka_prefix, [topic], port)
    async with running(intake):
        await until(lambda: intake.state().parked == {(topic, 0)}, "it is parked")
    assert port.values(0) == _numbers(5)


class _NotUtf8(str):
    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return b"\xff\xfe"


@pytest.mark.parametrize("max_records", [500, 2])
async def test_a_header_whose_name_is_not_utf8_stops_nothing(
    kafka_bootstrap: str, kafka_prefix: str, max_records: int
) -> None:
    """Kafka takes it, and aiokafka does not: neither the record nor those behind it are lost."""
    topic = await _topic(kafka_bootstrap, kafka_prefix, 2)
    batch = BatchBuilder(100_000, 0)
    batch._builder = _DefaultRecordBatchBuilderPy(2, 1, 0, -1, -1, 0, 100_000)
    batch.append(timestamp=None, key=None, value=b"good", headers=[("a", None)])
    bad = [(_NotUtf8("b"), b"\xfe"), ("\u00e9", b"")]
    batch.append(timestamp=1234, key=b"\xff", value=b"bad", headers=bad)
    batch.append(timestamp=None, key=None, value=b"behind", headers=[])
    async with producer_of(kafka_bootstrap) as producer:
        await producer.partitions_for(topic)
        await (await producer.send_batch(batch, topic, partition=0))
    await _send(kafka_bootstrap, topic, _numbers(3))
    await _send(kafka_bootstrap, topic, _numbers(3), partition=1)
    port = MemoryIntake()
    intake = UnitIntake(kafka_bootstrap, kafka_prefix, [topic], port, max_records=max_records)
    async with running(intake):
        await until(lambda: len(port.admitted) == 9, "all records are admitted")
        assert intake.state().ready
    assert port.values(0) == [b"good", b"bad", b"behind", *_numbers(3)]
    record = next(record for record in port.admitted if record.value == b"bad")
    headers = (("\\xff\\xfe", b"\xfe"), ("\u00e9", b""))
    assert record == Record(topic, 0, 1, 1234, b"\xff", b"bad", headers)


async def test_records_of_a_transaction_that_was_given_up_stay_unread(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    """Whoever unpacks by hand must not forget what the driver does beside."""
    topic = await _topic(kafka_bootstrap, kafka_prefix)
    async with AIOKafkaProducer(
        bootstrap_servers=kafka_bootstrap, transactional_id=kafka_prefix
    ) as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"given up", partition=0)
        await producer.abort_transaction()
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"kept", partition=0)
        await producer.commit_transaction()
    batch = BatchBuilder(100_000, 0)
    batch._builder = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, 0, 100_000)
    batch.append(timestamp=None, key=None, value=b"bad", headers=[(_NotUtf8("b"), b"")])
    async with producer_of(kafka_bootstrap) as plain:
        await plain.partitions_for(topic)
        await (await plain.send_batch(batch, topic, partition=0))
    port = MemoryIntake()
    async with running(UnitIntake(kafka_bootstrap, kafka_prefix, [topic], port)):
        await until(lambda: len(port.admitted) == 2, "the records are admitted")
    assert port.values(0) == [b"kept", b"bad"]


async def test_isolated_reading_takes_turns_and_ends(
    kafka_bootstrap: str, kafka_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = await _topic(kafka_bootstrap, kafka_prefix, 3)
    for partition in range(3):
        await _send(kafka_bootstrap, topic, _numbers(60), partition=partition)
    asked: list[tuple[TopicPartition, ...]] = []
    fetch = GroupConsumer.fetch

    async def failing_once(
        self: GroupConsumer, timeout_ms: int, max_records: int, *only: TopicPartition
    ) -> list[Record]:
        records = await fetch(self, timeout_ms, max_records, *only)
        if not records:
            return records
        asked.append(only)
        if len(asked) == 1:
            raise RuntimeError("the driver stumbles, and not again")
        return records

    monkeypatch.setattr(GroupConsumer, "fetch", failing_once)
    port = MemoryIntake()
    intake = UnitIntake(kafka_bootstrap, kafka_prefix, [topic], port, max_records=20)
    async with running(intake):
        await until(lambda: len(port.admitted) == 180, "all records are admitted")
    alone = [only for only in asked if only]
    assert {only[0].partition for only in alone[:3]} == {0, 1, 2}
    assert len(alone) < 9, "it never ended"
    assert asked[len(alone) + 1 :] == [()] * (len(asked) - len(alone) - 1)
    assert [port.values(number) for number in range(3)] == [_numbers(60)] * 3


class _FencedIntake(MemoryIntake):
    async def admit(self, records: Sequence[Record]) -> frozenset[Partition]:
        raise Fenced("taken over")


async def test_fenced_ends_it(kafka_bootstrap: str, kafka_prefix: str) -> None:
    topic = await _topic(kafka_bootstrap, kafka_prefix)
    await _send(kafka_bootstrap, topic, _numbers(1))
    intake = UnitIntake(kafka_bootstrap, kafka_prefix, [topic], _FencedIntake())
    with pytest.raises(Fenced):
        await asyncio.wait_for(intake.run(asyncio.Event()), 20)


async def test_two_daemons_share_the_partitions(kafka_bootstrap: str, kafka_prefix: str) -> None:
    topic = await _topic(kafka_bootstrap, kafka_prefix, 4)
    port = MemoryIntake()
    first = UnitIntake(kafka_bootstrap, kafka_prefix, [topic], port)
    second = UnitIntake(kafka_bootstrap, kafka_prefix, [topic], port)
    async with running(first):
        await until(lambda: len(first.state().assigned) == 4, "the first has all")
        async with running(second):
            await until(
                lambda: len(first.state().assigned) == len(second.state().assigned) == 2,
                "each has two",
            )
            for number in range(4):
                await _send(kafka_bootstrap, topic, _numbers(5), partition=number)
            await until(lambda: len(port.admitted) == 20, "all are read")
        await until(lambda: len(first.state().assigned) == 4, "the first has all again")
    assert [port.values(number) for number in range(4)] == [_numbers(5)] * 4


async def test_kafkas_offsets_follow_for_its_lag_tools(
    kafka_bootstrap: str, kafka_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(watch, "_COMMIT_SECONDS", 0.1)
    topic = await _topic(kafka_bootstrap, kafka_prefix)
    await _send(kafka_bootstrap, topic, _numbers(5))
    port = MemoryIntake()
    intake = UnitIntake(kafka_bootstrap, kafka_prefix, [topic], port)
    async with running(intake), admin_of(kafka_bootstrap) as admin:
        async with asyncio.timeout(15):
            committed = -1
            while committed != 5:
                offsets = await admin.list_consumer_group_offsets(kafka_prefix)
                committed = next((meta.offset for meta in offsets.values()), -1)
                await asyncio.sleep(0.05)
        assert intake.state().lag == {(topic, 0): 0}


async def test_it_stops_fast_with_the_brokers_away() -> None:
    intake = UnitIntake("127.0.0.1:1", "group", ["units"], MemoryIntake())
    stop = asyncio.Event()
    with captured_log() as logs:
        task = asyncio.create_task(intake.run(stop))
        await until(lambda: len(_rebuilt(logs)) >= 2, "it tries more than once")
        assert not intake.state().ready
        started = time.monotonic()
        stop.set()
        await asyncio.wait_for(task, 10)
    assert time.monotonic() - started < 5
    assert {log["log_level"] for log in _rebuilt(logs)} == {"warning"}


def _rebuilt(logs: Sequence[MutableMapping[str, Any]]) -> list[MutableMapping[str, Any]]:
    return [log for log in logs if log["event"] == "intake.rebuilt"]


class _SlowIntake(MemoryIntake):
    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def admit(self, records: Sequence[Record]) -> frozenset[Partition]:
        self.begun.set()
        await self.go.wait()
        return await super().admit(records)


async def test_an_admission_under_way_is_finished_before_it_stops(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    topic = await _topic(kafka_bootstrap, kafka_prefix)
    await _send(kafka_bootstrap, topic, _numbers(2))
    port, stop = _SlowIntake(), asyncio.Event()
    task = asyncio.create_task(UnitIntake(kafka_bootstrap, "g", [topic], port).run(stop))
    await port.begun.wait()
    stop.set()
    asyncio.get_running_loop().call_later(0.5, port.go.set)
    await asyncio.wait_for(task, 10)
    assert port.admitted != []


async def test_a_broker_killed_in_between_loses_and_repeats_nothing(tmp_path: Path) -> None:
    broker = Kafka(tmp_path / "kafka", tmp_path / "kafka.log")
    (tmp_path / "kafka").mkdir()
    await asyncio.to_thread(broker.start)
    try:
        topic = await _topic(broker.address, "own.")
        await _send(broker.address, topic, _numbers(5))
        port = MemoryIntake()
        intake = UnitIntake(broker.address, "own", [topic], port)
        async with running(intake):
            await until(lambda: len(port.admitted) == 5, "the first are read")
            await asyncio.to_thread(broker.kill)
            await until(lambda: not intake.state().connected, "it is seen to be away")
            await asyncio.to_thread(broker.start)
            await _send(broker.address, topic, _numbers(5, start=5))
            await until(lambda: len(port.admitted) == 10, "the others are read", 60)
            await until(lambda: intake.state().ready, "it is ready again")
            await asyncio.to_thread(broker.kill)
            await until(lambda: not intake.state().connected, "it is seen to be away")
            started = time.monotonic()
        assert time.monotonic() - started < 5
        assert port.values(0) == _numbers(10)
    finally:
        await asyncio.to_thread(broker.kill)


async def test_what_is_suspicious_is_marked_before_it_is_touched_and_read_alone(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    """H19: as many records as a batch may have, then as usual; nothing lost, doubled or turned."""
    topic = await _topic(kafka_bootstrap, kafka_prefix, 2)
    for partition in range(2):
        await _send(kafka_bootstrap, topic, _numbers(30), partition=partition)
    port = MemoryIntake()
    port.suspicions[topic, 0] = Suspicion(stood=1)
    intake = UnitIntake(kafka_bootstrap, kafka_prefix, [topic], port, max_records=10)
    with captured_log() as logs:
        async with running(intake):
            await until(lambda: len(port.admitted) == 60, "all records are admitted")
    assert port.marks == [((topic, 0), offset, False) for offset in range(10)]
    assert [port.values(number) for number in range(2)] == [_numbers(30)] * 2
    assert port.released == {(topic, 0), (topic, 1)}
    assert [log["offset"] for log in logs if log["event"] == "intake.suspicious"] == [0]


@pytest.mark.parametrize("codec", [None, "gzip"])
async def test_what_is_condemned_is_kept_unread_or_passed_over(
    kafka_bootstrap: str, kafka_prefix: str, codec: str | None
) -> None:
    topic = await _topic(kafka_bootstrap, kafka_prefix, 2)
    for partition in range(2):
        batch = BatchBuilder(100_000, 1 if codec else 0)
        for value in (*_numbers(2), b"deadly", b"with it"):
            batch.append(timestamp=7, key=b"k", value=value, headers=[("h", b"\xff")])
        async with producer_of(kafka_bootstrap) as producer:
            await producer.partitions_for(topic)
            await (await producer.send_batch(batch, topic, partition=partition))
        await _send(kafka_bootstrap, topic, [b"behind"], partition=partition)
    port = MemoryIntake()
    port.at = {(topic, 0): 2, (topic, 1): 2}
    port.suspicions[topic, 0] = Suspicion(stood=3, marked=2)
    port.suspicions[topic, 1] = Suspicion(stood=5, marked=4, setting_aside=2)
    async with running(UnitIntake(kafka_bootstrap, kafka_prefix, [topic], port)):
        await until(lambda: port.at == {(topic, 0): 5, (topic, 1): 5}, "all is passed")
    kept = {record.partition: record for record, _, _ in port.kept}
    assert kept[0] == Record(topic, 0, 2, 7, b"k", b"deadly", (("h", b"\xff"),))
    assert kept[1] == Record(topic, 1, 2, 0, None, None, ())
    assert port.values(0) == [b"with it", b"behind"]
    # A compressed batch cannot be left in part; one that is not loses the one record alone.
    assert port.values(1) == ([b"behind"] if codec else [b"with it", b"behind"])
    assert ((topic, 0), 2, True) in port.marks


async def test_nobody_is_condemned_by_those_who_may_be_alive(
    kafka_bootstrap: str, kafka_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "_VERDICT_LOOK_SECONDS", 0.05)
    topic = await _topic(kafka_bootstrap, kafka_prefix, 2)
    await _send(kafka_bootstrap, topic, _numbers(3), partition=0)
    await _send(kafka_bootstrap, topic, _numbers(3), partition=1)
    port = MemoryIntake()
    port.undecided[topic, 0] = Suspicion(stood=3, marked=2, undecided=1)
    async with running(UnitIntake(kafka_bootstrap, kafka_prefix, [topic], port)):
        await until(lambda: port.values(1) == _numbers(3), "the other partition is read")
        assert port.values(0) == []
        port.undecided.clear()  # it was alive, and has let go
        await until(lambda: port.values(0) == _numbers(3), "it is read")
    assert port.kept == []


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
async def test_a_batch_that_unpacks_to_too_much_is_passed_over_and_nothing_else(
    kafka_bootstrap: str, kafka_prefix: str, codec: str
) -> None:
    """I12: nothing in it is read, one dead letter tells where it was."""
    topic = await _topic(kafka_bootstrap, kafka_prefix, 2)
    await _send(kafka_bootstrap, topic, _numbers(2))
    number = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}[codec]
    batch = BatchBuilder(20_000_000, number)
    for _ in range(3):
        batch.append(timestamp=7, key=b"k", value=bytes(1_000_000), headers=[])
    async with producer_of(kafka_bootstrap) as producer:
        await producer.partitions_for(topic)
        await (await producer.send_batch(batch, topic, partition=0))
    for partition in range(2):
        await _send(kafka_bootstrap, topic, [b"behind"], partition=partition)
    port = MemoryIntake()
    intake = UnitIntake(
        kafka_bootstrap, kafka_prefix, [topic], port, unpacked_bytes_max=2 * 1024 * 1024
    )
    async with running(intake):
        await until(lambda: port.at == {(topic, 0): 6, (topic, 1): 1}, "all is passed")
        assert intake.state().parked == frozenset()
    assert port.values(0) == [*_numbers(2), b"behind"]
    assert port.values(1) == [b"behind"]
    ((record, message, code),) = port.kept
    assert (record.offset, record.value, code.value) == (2, None, "too_large")
    assert "offsets 2 to 4" in message


async def test_batches_that_are_too_much_together_are_read_one_after_the_other(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    """I12: a fetch of a megabyte may hold many batches, each as large as it may be."""
    topic = await _topic(kafka_bootstrap, kafka_prefix)
    async with producer_of(kafka_bootstrap) as producer:
        await producer.partitions_for(topic)
        for number in range(8):
            batch = BatchBuilder(20_000_000, 4)
            batch.append(timestamp=7, key=None, value=bytes([number]) * 1_500_000, headers=[])
            await (await producer.send_batch(batch, topic, partition=0))
    port = MemoryIntake()
    intake = UnitIntake(
        kafka_bootstrap, kafka_prefix, [topic], port, unpacked_bytes_max=2 * 1024 * 1024
    )
    with captured_log() as logs:
        async with running(intake):
            await until(lambda: len(port.admitted) == 8, "all are admitted")
    assert [value and value[0] for value in port.values(0)] == list(range(8))
    assert any("FetchTooLarge" in str(log) for log in _rebuilt(logs))
    assert port.kept == []


async def test_what_is_read_ahead_is_bounded_for_all_partitions_together(
    kafka_bootstrap: str, kafka_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I12: the driver bounds each partition, so that the share of each gets smaller."""
    monkeypatch.setattr("coordinator.kafka.consumer._BUFFER_BYTES", 800_000)
    topic = await _topic(kafka_bootstrap, kafka_prefix, 4)
    port = MemoryIntake()
    intake = UnitIntake(kafka_bootstrap, kafka_prefix, [topic], port)
    async with running(intake):
        await until(lambda: len(intake.state().assigned) == 4, "all are assigned")
        assert intake._member is not None
        fetcher = intake._member.consumer._consumer._fetcher
        assert fetcher._max_partition_fetch_bytes == 200_000
        # A batch that is larger than the share is read all the same.
        await _send(kafka_bootstrap, topic, [bytes(600_000), b"behind"])
        await until(lambda: len(port.admitted) == 2, "both are read")


@pytest.mark.parametrize("is_static", [True, False])
async def test_a_quick_restart_of_a_static_member_is_not_noticed_by_the_others(
    kafka_bootstrap: str, kafka_prefix: str, is_static: bool
) -> None:
    topic = await _topic(kafka_bootstrap, kafka_prefix, 4)
    port = MemoryIntake()

    def member(name: str) -> UnitIntake:
        return UnitIntake(
            kafka_bootstrap,
            kafka_prefix,
            [topic],
            port,
            instance_id=name if is_static else None,
            session_timeout_seconds=20,
        )

    first, second, again = member("first"), member("second"), member("first")
    async with running(second):
        async with running(first):
            await until(
                lambda: len(first.state().assigned) == len(second.state().assigned) == 2,
                "each has two",
            )
            its_own = first.state().assigned
            assert second._member is not None
            generation = second._member._generation
        for number in range(4):
            await _send(kafka_bootstrap, topic, _numbers(5), partition=number)
        async with running(again):
            await until(lambda: len(port.admitted) == 20, "all are read", 60)
            assert (again.state().assigned == its_own) or not is_static
        assert (second._member._generation == generation) is is_static
    assert [port.values(number) for number in range(4)] == [_numbers(5)] * 4
