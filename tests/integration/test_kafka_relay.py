"""The relay against a real broker: at least once, in order per key; a refuser stops no other."""

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.partitioner import DefaultPartitioner

from coordinator.devstack.kafka import Kafka
from coordinator.domain.errors import Fenced, StoreUnavailable
from coordinator.domain.publishing import Message
from coordinator.kafka import aside, producer
from coordinator.kafka.producer import BatchProducer
from coordinator.kafka.relay import Relay
from coordinator.kafka.topics import ensure_topics
from tests.integration.test_kafka_ports import (
    MemoryOutbox,
    admin_of,
    content,
    delete_topic,
    running,
    until,
)
from tests.log_capture import captured_log

pytestmark = pytest.mark.integration

PARTITIONS = 3


async def _topics(bootstrap: str, prefix: str, *names: str) -> list[str]:
    topics = [f"{prefix}{name}" for name in names]
    await ensure_topics(bootstrap, topics, create=True, partitions=PARTITIONS)
    return topics


def _messages(topic: str, keys: int, count: int, start: int = 0) -> list[Message]:
    return [
        Message(topic, b"k%d" % (number % keys), b"%d" % number, (("ce_id", b"%d" % number),))
        for number in range(start, start + count)
    ]


def _by_key(messages: Sequence[Message]) -> dict[bytes | None, list[int]]:
    """Each key's values in the order of their first appearance."""
    found: dict[bytes | None, dict[int, None]] = {}
    for message in messages:
        assert message.value is not None
        found.setdefault(message.key, {})[int(message.value)] = None
    return {key: list(values) for key, values in found.items()}


def _expected(keys: int, count: int) -> dict[bytes | None, list[int]]:
    return {b"k%d" % key: list(range(key, count, keys)) for key in range(keys)}


async def test_everything_is_published_once_in_order_where_kafka_would_put_it(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    (topic,) = await _topics(kafka_bootstrap, kafka_prefix, "changes")
    outbox, wake = MemoryOutbox(), asyncio.Event()
    relay = Relay(kafka_bootstrap, outbox, wake, rows_max=4)
    async with running(relay):
        for start in range(0, 600, 20):
            outbox.put(wake, *_messages(topic, 7, 20, start))
        await until(lambda: not outbox.rows, "the outbox is empty")
    published = await content(kafka_bootstrap, topic, PARTITIONS)
    assert len(published) == 600
    assert _by_key(published) == _expected(7, 600)
    assert relay.tally.published == {topic: 600}
    assert outbox.released == 1
    numbers = list(range(PARTITIONS))
    by_number = [
        _by_key(await content(kafka_bootstrap, topic, number + 1, number)) for number in numbers
    ]
    for key in _expected(7, 600):
        assert key in by_number[DefaultPartitioner()(key, numbers, numbers)]


async def test_tombstones_headers_and_messages_without_a_key(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    (topic,) = await _topics(kafka_bootstrap, kafka_prefix, "changes")
    sent = [
        Message(topic, b"k", None, ()),
        Message(topic, None, b"v", (("twice", b"1"), ("twice", b"2"), ("none", None))),
        Message(topic, None, None, ()),
    ]
    outbox, wake = MemoryOutbox(), asyncio.Event()
    outbox.put(wake, *sent)
    async with running(Relay(kafka_bootstrap, outbox, wake)):
        await until(lambda: not outbox.rows, "the outbox is empty")
    published = await content(kafka_bootstrap, topic, PARTITIONS)
    assert sorted(published, key=repr) == sorted(sent, key=repr)


async def test_messages_as_large_as_the_topic_takes_and_batches_no_larger(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    small, large = await _topics(kafka_bootstrap, kafka_prefix, "small", "large")
    async with admin_of(kafka_bootstrap) as admin:
        await _limit(admin, small, 2000)
        await _limit(admin, large, 3_000_000)
    limits = await ensure_topics(kafka_bootstrap, [small, large], create=False)
    outbox, wake = MemoryOutbox(), asyncio.Event()
    outbox.put(
        wake,
        *(Message(small, b"k", b"x" * 700, ()) for _ in range(50)),
        Message(large, b"k", b"y" * 2_900_000, ()),
    )
    relay = Relay(kafka_bootstrap, outbox, wake, limits=limits)
    async with running(relay):
        await until(lambda: not outbox.rows, "the outbox is empty")
        assert relay.topics_aside == frozenset()
    assert len(await content(kafka_bootstrap, small, PARTITIONS)) == 50
    assert len(await content(kafka_bootstrap, large, PARTITIONS)) == 1


async def _limit(admin: AIOKafkaAdminClient, topic: str, limit_bytes: int) -> None:
    settings = {"max.message.bytes": str(limit_bytes)}
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, settings)
    await admin.alter_configs([resource])
    async with asyncio.timeout(10):
        told = -1
        while told != limit_bytes:  # the controller answers before the broker has heard of it
            (answer,) = await admin.describe_configs([resource])
            told = int(answer.resources[0][4][0][1])


async def test_a_topic_that_is_not_there_waits_and_comes_back_in_order(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    (good,) = await _topics(kafka_bootstrap, kafka_prefix, "good")
    bad = f"{kafka_prefix}bad"
    outbox, wake = MemoryOutbox(), asyncio.Event()
    relay = Relay(kafka_bootstrap, outbox, wake, rows_max=2)
    with captured_log() as logs:
        async with running(relay):
            for start in range(0, 100, 10):
                both = zip(_messages(bad, 3, 10, start), _messages(good, 3, 10, start), strict=True)
                outbox.put(wake, *(message for pair in both for message in pair))
            await until(lambda: not outbox.rows, "the outbox is empty")
            assert relay.topics_aside == {bad}
            assert len(outbox.aside) == 100
            assert relay.tally.failures[bad] >= 1
            assert relay.tally.published == {good: 100}
            assert _by_key(await content(kafka_bootstrap, good, PARTITIONS)) == _expected(3, 100)
            await _topics(kafka_bootstrap, kafka_prefix, "bad")
            outbox.put(wake, *_messages(bad, 3, 20, 100))
            await until(lambda: not relay.topics_aside, "the topic is back")
            outbox.put(wake, *_messages(bad, 3, 10, 120))
            await until(lambda: not outbox.rows and not outbox.aside, "all is published")
    assert relay.tally.published == {good: 100, bad: 130}
    assert _by_key(await content(kafka_bootstrap, bad, PARTITIONS)) == _expected(3, 130)
    events = [(log["event"], log["log_level"]) for log in logs if log.get("topic") == bad]
    assert events.count(("relay.topic_set_aside", "error")) == 1
    assert events.count(("relay.topic_restored", "info")) == 1


async def test_a_message_that_is_too_large_steps_out_and_what_is_behind_it_goes_on(
    kafka_bootstrap: str, kafka_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside, "_LOOK_SECONDS", 0.2)
    bad, good = await _topics(kafka_bootstrap, kafka_prefix, "bad", "good")
    async with admin_of(kafka_bootstrap) as admin:
        await _limit(admin, bad, 1000)
    outbox, wake = MemoryOutbox(), asyncio.Event()
    # Two claims at once: a broker would take the second batch after it refused the first.
    relay = Relay(kafka_bootstrap, outbox, wake, rows_max=1)
    large = Message(bad, b"k0", b"0" * 2000, ())
    outbox.put(wake, large, *_messages(good, 3, 30))
    outbox.put(wake, Message(bad, b"k0", b"1", ()), *_messages(good, 3, 30, 30))
    outbox.put(wake, Message(bad, b"k0", b"2", ()))
    with captured_log() as logs:
        async with running(relay):
            await until(lambda: not outbox.rows, "the outbox is empty")
            await until(lambda: not relay.topics_aside, "the topic is back")
            values = [message.value for message in await content(kafka_bootstrap, bad, PARTITIONS)]
            assert values == [b"1", b"2"]
            assert _by_key(await content(kafka_bootstrap, good, PARTITIONS)) == _expected(3, 60)
            assert list(outbox.aside.values()) == [large]
            assert list(outbox.queues.values()) == [f"{bad}#too-large"]
            async with admin_of(kafka_bootstrap) as admin:
                await _limit(admin, bad, 5000)
            outbox.queues = dict.fromkeys(outbox.queues, bad)  # what a person does
            await until(lambda: not outbox.aside, "it is published after all")
    assert len(await content(kafka_bootstrap, bad, PARTITIONS)) == 3
    too_large = [log for log in logs if log["event"] == "relay.message_too_large"]
    assert [(log["log_level"], log["topic"]) for log in too_large] == [("error", bad)]


async def test_batches_shrink_when_a_topic_takes_less_than_it_did(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    """Only what is too large alone steps out."""
    (topic,) = await _topics(kafka_bootstrap, kafka_prefix, "changes")
    limits = await ensure_topics(kafka_bootstrap, [topic], create=False)
    async with admin_of(kafka_bootstrap) as admin:
        await _limit(admin, topic, 1500)
    outbox, wake = MemoryOutbox(), asyncio.Event()
    large = Message(topic, b"k1", os.urandom(3000), ())
    outbox.put(wake, *_messages(topic, 1, 150), large, *_messages(topic, 1, 150, 150))
    async with running(Relay(kafka_bootstrap, outbox, wake, limits=limits)):
        await until(lambda: not outbox.rows and len(outbox.aside) == 1, "the others are published")
    assert list(outbox.aside.values()) == [large]
    assert _by_key(await content(kafka_bootstrap, topic, PARTITIONS)) == _expected(1, 300)


async def test_a_message_that_fits_only_when_compressed_is_compressed(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    """A dead letter is as large as the record was before its batch was compressed."""
    (letters,) = await _topics(kafka_bootstrap, kafka_prefix, "letters")
    limits = await ensure_topics(kafka_bootstrap, [letters], create=False)
    outbox, wake = MemoryOutbox(), asyncio.Event()
    sent = [
        Message(letters, b"k", b"before", ()),
        Message(letters, b"k", b"y" * 3_000_000, (("name", b"content"),)),
        Message(letters, b"k", b"behind", ()),
    ]
    outbox.put(wake, *sent)
    relay = Relay(kafka_bootstrap, outbox, wake, limits=limits)
    async with running(relay):
        await until(lambda: not outbox.rows, "the outbox is empty")
        assert relay.topics_aside == frozenset()
    assert await content(kafka_bootstrap, letters, PARTITIONS) == sent


async def test_what_no_broker_would_even_read_is_not_sent(
    kafka_bootstrap: str, kafka_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker cuts the connection for a request past its bound, and says nothing."""
    monkeypatch.setattr(producer, "_SEND_BYTES_MAX", 2_000_000)
    (letters,) = await _topics(kafka_bootstrap, kafka_prefix, "letters")
    outbox, wake = MemoryOutbox(), asyncio.Event()
    huge = Message(letters, b"k", b"y" * 3_000_000, ())
    outbox.put(wake, huge, Message(letters, b"k", b"1", ()))
    async with running(Relay(kafka_bootstrap, outbox, wake)):
        await until(lambda: not outbox.rows and len(outbox.aside) == 1, "the other is published")
    assert list(outbox.aside.values()) == [huge]
    assert len(await content(kafka_bootstrap, letters, PARTITIONS)) == 1


async def test_a_topic_deleted_while_running_is_set_aside(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    bad, good = await _topics(kafka_bootstrap, kafka_prefix, "bad", "good")
    outbox, wake = MemoryOutbox(), asyncio.Event()
    relay = Relay(kafka_bootstrap, outbox, wake, ack_timeout_seconds=5)
    async with running(relay):
        outbox.put(wake, *_messages(bad, 3, 9), *_messages(good, 3, 9))
        await until(lambda: not outbox.rows, "the first are published")
        await delete_topic(kafka_bootstrap, bad)
        outbox.put(wake, *_messages(bad, 3, 9, 9), *_messages(good, 3, 9, 9))
        await until(lambda: not outbox.rows, "the outbox is empty")
        assert relay.topics_aside == {bad}
        assert _by_key(await content(kafka_bootstrap, good, PARTITIONS)) == _expected(3, 18)


async def test_what_the_journal_holds_aside_stays_in_front_after_a_restart(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    (topic,) = await _topics(kafka_bootstrap, kafka_prefix, "changes")
    outbox, wake = MemoryOutbox(), asyncio.Event()
    older = _messages(topic, 2, 20)
    outbox.put(wake, *older)
    await outbox.set_aside(topic, older)
    await outbox.delete(list(outbox.rows))
    outbox.put(wake, *_messages(topic, 2, 20, 20))
    async with running(Relay(kafka_bootstrap, outbox, wake)):
        await until(lambda: not outbox.rows and not outbox.aside, "all is published")
    assert _by_key(await content(kafka_bootstrap, topic, PARTITIONS)) == _expected(2, 40)


async def test_without_the_lease_nothing_is_sent(kafka_bootstrap: str, kafka_prefix: str) -> None:
    (topic,) = await _topics(kafka_bootstrap, kafka_prefix, "changes")
    outbox, wake = MemoryOutbox(), asyncio.Event()
    outbox.ours = False
    outbox.put(wake, *_messages(topic, 2, 4))
    relay = Relay(kafka_bootstrap, outbox, wake, lease_ttl_seconds=0.6)
    async with running(relay):
        for _ in range(3):
            wake.clear()
            outbox.put(wake, *_messages(topic, 2, 4))
            assert not relay.leading
        assert await content(kafka_bootstrap, topic, PARTITIONS) == []
        outbox.ours = True
        await until(lambda: not outbox.rows, "it publishes once the lease is its own")
        outbox.ours = False
        await until(lambda: not relay.leading, "the lease is lost")
        outbox.put(wake, *_messages(topic, 2, 4))
        assert len(await content(kafka_bootstrap, topic, PARTITIONS)) == 16
    assert len(outbox.rows) == 1


async def test_a_journal_that_is_away_is_asked_again(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    (topic,) = await _topics(kafka_bootstrap, kafka_prefix, "changes")
    outbox, wake = MemoryOutbox(), asyncio.Event()
    async with running(Relay(kafka_bootstrap, outbox, wake)):
        for start in range(0, 40, 4):
            outbox.away = 2
            outbox.put(wake, *_messages(topic, 2, 4, start))
            await until(lambda: not outbox.rows, "the outbox is empty")
    published = await content(kafka_bootstrap, topic, PARTITIONS)
    assert len(published) == 40
    assert _by_key(published) == _expected(2, 40)


class _StuckOutbox(MemoryOutbox):
    """Its journal takes no message that is set aside until ``there``."""

    def __init__(self) -> None:
        super().__init__()
        self.there = False
        self.asked = 0

    async def set_aside(self, topic: str, messages: Sequence[Message]) -> None:
        self.asked += 1
        if not self.there:
            raise StoreUnavailable("journal", "away")
        await super().set_aside(topic, messages)


async def test_who_has_lost_the_lease_sets_nothing_aside(
    kafka_bootstrap: str, kafka_prefix: str
) -> None:
    """I8: the next relay may have published newer messages of that topic."""
    bad = f"{kafka_prefix}bad"
    outbox, wake = _StuckOutbox(), asyncio.Event()
    outbox.put(wake, *_messages(bad, 2, 4))
    relay = Relay(kafka_bootstrap, outbox, wake, lease_ttl_seconds=2)
    async with running(relay):
        await until(lambda: outbox.asked, "it wants to set messages aside")
        outbox.ours = False
        await until(lambda: not relay.leading, "the lease is lost")
        outbox.there = True
        await until(lambda: not relay.connected, "it has stepped down")
        assert outbox.aside == {}
        assert len(outbox.rows) == 1
        outbox.ours = True
        await until(lambda: not outbox.rows, "it goes on once the lease is its own")
        assert len(outbox.aside) == 4


class _FencedOutbox(MemoryOutbox):
    async def delete(self, rows: Sequence[int]) -> None:
        raise Fenced("taken over")


async def test_fenced_ends_it(kafka_bootstrap: str, kafka_prefix: str) -> None:
    (topic,) = await _topics(kafka_bootstrap, kafka_prefix, "changes")
    outbox, wake = _FencedOutbox(), asyncio.Event()
    outbox.put(wake, *_messages(topic, 2, 4))
    with pytest.raises(Fenced):
        await asyncio.wait_for(Relay(kafka_bootstrap, outbox, wake).run(asyncio.Event()), 20)


async def test_stop_publishes_what_is_left(kafka_bootstrap: str, kafka_prefix: str) -> None:
    (topic,) = await _topics(kafka_bootstrap, kafka_prefix, "changes")
    outbox, wake = MemoryOutbox(), asyncio.Event()
    relay = Relay(kafka_bootstrap, outbox, wake, rows_max=1)
    async with running(relay) as stop:
        await until(lambda: relay.connected, "it is connected")
        for start in range(0, 200, 10):
            outbox.put(wake, *_messages(topic, 2, 10, start))
        stop.set()
    assert outbox.rows == {}
    assert len(await content(kafka_bootstrap, topic, PARTITIONS)) == 200


async def test_it_stops_in_time_with_the_brokers_away() -> None:
    outbox, wake = MemoryOutbox(), asyncio.Event()
    outbox.put(wake, *_messages("t", 2, 4))
    relay = Relay("127.0.0.1:1", outbox, wake)
    with captured_log() as logs:
        stop = asyncio.Event()
        task = asyncio.create_task(relay.run(stop))
        await until(lambda: len([x for x in logs if x["event"] == "relay.retried"]) > 1, "it tries")
        started = time.monotonic()
        stop.set()
        await asyncio.wait_for(task, 10)
    assert time.monotonic() - started < 6
    assert len(outbox.rows) == 1
    assert relay.topics_aside == frozenset()


async def test_a_broker_killed_twice_loses_nothing_and_keeps_the_order(
    tmp_path: Path,
) -> None:
    broker = Kafka(tmp_path / "kafka", tmp_path / "kafka.log")
    (tmp_path / "kafka").mkdir()
    await asyncio.to_thread(broker.start)
    try:
        (topic,) = await _topics(broker.address, "own.", "changes")
        unseen = ["own.first", "own.second"]
        outbox, wake = MemoryOutbox(), asyncio.Event()
        relay = Relay(broker.address, outbox, wake, rows_max=2, ack_timeout_seconds=3)
        async with running(relay):
            total = 5
            outbox.put(wake, *_messages(topic, 5, 5))
            await until(lambda: not outbox.rows, "it is connected")
            await asyncio.to_thread(broker.kill)
            # Nobody can be asked for their partitions: what was not sent must not count as sent.
            for name in unseen:
                outbox.put(wake, *_messages(name, 2, 4))
            await until(lambda: outbox.claims >= 6, "it has tried some times")
            assert len(outbox.rows) == 2
            await asyncio.to_thread(broker.start)
            await _topics(broker.address, "own.", "first", "second")
            outbox.put(wake, *_messages(topic, 5, 50, total))
            await until(lambda: not outbox.rows and not outbox.aside, "all is published", 60)
            total += 50
            outbox.put(wake, *_messages(topic, 5, 50, total))
            killing = asyncio.create_task(asyncio.to_thread(broker.kill))
            for start in range(total + 50, total + 500, 50):
                outbox.put(wake, *_messages(topic, 5, 50, start))
                await asyncio.sleep(0)
            total += 500
            await killing
            await until(lambda: not relay.connected, "the relay has seen it")
            await asyncio.to_thread(broker.start)
            await until(lambda: not outbox.rows, "the outbox is empty", 60)
            assert relay.topics_aside == frozenset()
        assert _by_key(await content(broker.address, topic, PARTITIONS)) == _expected(5, total)
        for name in unseen:
            assert _by_key(await content(broker.address, name, PARTITIONS)) == _expected(2, 4)
    finally:
        await asyncio.to_thread(broker.kill)


async def test_an_outage_of_the_brokers_is_no_refusal_by_the_topics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come back at the very moment at which they are asked whether they are there."""
    kafka = Kafka(tmp_path / "kafka", tmp_path / "kafka.log")
    await asyncio.to_thread(kafka.start)
    try:
        (topic,) = await _topics(kafka.address, "outage.", "changes")
        outbox, wake = MemoryOutbox(), asyncio.Event()
        relay = Relay(kafka.address, outbox, wake, ack_timeout_seconds=3.0, stall_seconds=8.0)
        connect = relay._connect

        async def back_when_asked() -> BatchProducer:
            kafka.resume()
            return await connect()

        with captured_log() as logs:
            async with running(relay):
                outbox.put(wake, *_messages(topic, 2, 10))
                await until(lambda: not outbox.rows, "the first are published")
                await asyncio.to_thread(kafka.pause)
                monkeypatch.setattr(relay, "_connect", back_when_asked)
                outbox.put(wake, *_messages(topic, 2, 10, 10))
                await until(lambda: not outbox.rows, "the others are published", 60)
        assert [x for x in logs if x["event"] == "relay.topic_set_aside"] == []
        assert _by_key(await content(kafka.address, topic, PARTITIONS)) == _expected(2, 20)
    finally:
        kafka.resume()
        await asyncio.to_thread(kafka.stop)
