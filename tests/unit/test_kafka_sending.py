"""The order of what a relay sends, with a producer whose answers the test gives (I8)."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Sequence
from typing import Any, cast

from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from coordinator.domain.publishing import Message
from coordinator.kafka.producer import BatchProducer
from coordinator.kafka.sending import Sender, Tally

TOPIC = "changes"


class SlowBroker:
    """Takes batches; acknowledges when told to."""

    def __init__(self) -> None:
        self.taken: list[bytes | None] = []
        self.answers: list[Future[Any]] = []

    def knows(self, topic: str) -> bool:
        return True

    async def partitions(self, topic: str) -> int:
        return 1

    def pack(self, topic: str, messages: Sequence[Message]) -> list[tuple[Any, list[Message]]]:
        return [(list(messages), list(messages))]

    async def send(self, batch: list[Message], topic: str, partition: int) -> Future[Any]:
        answer: Future[Any] = asyncio.get_running_loop().create_future()
        self.taken += [message.value for message in batch]
        self.answers.append(answer)
        return answer


def _message(text: str) -> Message:
    return Message(TOPIC, b"key", text.encode(), ())


async def test_what_comes_later_does_not_overtake_what_was_left_behind() -> None:
    """A broker answers just after it was given up on: the next must wait for the one between."""
    broker = SlowBroker()
    sender = Sender(cast(BatchProducer, broker), 0.05, lambda: True, Tally())
    flights = [(await sender.address([_message(text)]))[0] for text in ("1", "2", "3")]

    await sender.launch(flights[0])
    await sender.launch(flights[1])  # gives up: the one before it has no answer yet
    broker.answers[0].set_result(None)
    await sender.launch(flights[2])

    assert broker.taken == [b"1"]
    assert not (await sender.settle(flights[0])).broken
    assert (await sender.settle(flights[1])).left == [_message("2")]
    assert (await sender.settle(flights[2])).left == [_message("3")]


async def test_batches_of_one_partition_follow_each_other() -> None:
    broker = SlowBroker()
    sender = Sender(cast(BatchProducer, broker), 5.0, lambda: True, Tally())
    flights = [(await sender.address([_message(text)]))[0] for text in ("1", "2")]
    await sender.launch(flights[0])
    second = asyncio.create_task(sender.launch(flights[1]))
    await asyncio.sleep(0)
    assert broker.taken == [b"1"]
    broker.answers[0].set_result(None)
    await second
    assert broker.taken == [b"1", b"2"]


async def test_an_answer_that_came_late_is_a_failure_and_then_a_success_once() -> None:
    broker, tally = SlowBroker(), Tally()
    sender = Sender(cast(BatchProducer, broker), 0.05, lambda: True, tally)
    parcels, _ = await sender.address([_message("1"), _message("2")])
    await sender.launch(parcels)
    assert (await sender.settle(parcels)).broken
    assert (await sender.settle(parcels)).broken
    assert (tally.published, tally.failures) == ({}, {TOPIC: 1})
    broker.answers[0].set_result(None)
    await sender.settle(parcels)
    await sender.settle(parcels)
    assert (tally.published, tally.failures) == ({TOPIC: 2}, {TOPIC: 1})


async def test_what_was_never_sent_has_not_failed() -> None:
    tally = Tally()
    sender = Sender(cast(BatchProducer, SlowBroker()), 5.0, lambda: False, tally)
    parcels, _ = await sender.address([_message("1")])
    await sender.launch(parcels)
    assert (await sender.settle(parcels)).broken
    assert (tally.published, tally.failures) == ({}, {})


async def test_a_send_that_the_driver_does_not_take_and_a_topic_that_is_not_there_failed() -> None:
    class Closed(SlowBroker):
        async def send(self, batch: list[Message], topic: str, partition: int) -> Future[Any]:
            raise KafkaError("closed")

        async def partitions(self, topic: str) -> int:
            if topic == "gone":
                raise UnknownTopicOrPartitionError(topic)
            return 1

    tally = Tally()
    sender = Sender(cast(BatchProducer, Closed()), 5.0, lambda: True, tally)
    parcels, refusals = await sender.address([_message("1"), Message("gone", b"k", b"2", ())])
    assert refusals.keys() == {"gone"}
    await sender.launch(parcels)
    await sender.settle(parcels)
    assert (tally.published, tally.failures) == ({}, {TOPIC: 1, "gone": 1})
