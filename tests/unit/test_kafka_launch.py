"""The sender's order: what was left behind is not overtaken (I8)."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaTimeoutError

from coordinator.domain.errors import StoreUnavailable
from coordinator.kafka.sending import Parcel, Sender, Tally


class Producer:
    """Takes batches but for one partition, where it fails for a while."""

    def __init__(self, failure: Exception) -> None:
        self.sent: list[Any] = []
        self._failure: Exception | None = failure

    async def send(self, batch: Any, topic: str, number: int) -> asyncio.Future[None]:
        if topic == "bad" and self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        self.sent.append(batch)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    def knows(self, topic: str) -> bool:
        return True


def parcel(topic: str, batch: str) -> Parcel:
    return Parcel((topic, 0), batch, [])


async def test_nothing_is_sent_past_what_could_not_be_sent() -> None:
    """The second flight has newer messages of a partition that the first never came to."""
    producer = Producer(KafkaTimeoutError())
    sender = Sender(cast(Any, producer), 1.0, lambda: True, Tally())
    first = [parcel("good", "1"), parcel("bad", "2"), parcel("other", "3")]
    await sender.launch(first)
    await sender.launch([parcel("other", "4"), parcel("bad", "5")])
    assert producer.sent == ["1"]
    assert [each.future is not None for each in first] == [True, False, False]


async def test_nor_past_what_broke_off() -> None:
    producer = Producer(StoreUnavailable("kafka", "it broke off"))
    sender = Sender(cast(Any, producer), 1.0, lambda: True, Tally())
    with pytest.raises(StoreUnavailable):
        await sender.launch([parcel("bad", "1"), parcel("other", "2")])
    await sender.launch([parcel("other", "3")])
    assert producer.sent == []


async def test_flights_that_are_complete_follow_each_other() -> None:
    producer = Producer(KafkaTimeoutError())
    sender = Sender(cast(Any, producer), 1.0, lambda: True, Tally())
    for number in ("1", "2"):
        await sender.launch([parcel("other", number)])
    assert producer.sent == ["1", "2"]
