"""The dead-letter topic read from its beginning, and records put back where they came from.

Reading joins no group and commits nothing. It ends where the topic ended when it began, so it is
bounded whatever is written meanwhile. What the driver cannot unpack ends it with an error: dead
letters are written by the relay, which writes nothing of that sort.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from coordinator.domain.errors import CoordinatorError, StoreUnavailable
from coordinator.domain.letters import Letter, Place, letter_of
from coordinator.domain.publishing import Message
from coordinator.kafka.codecs import bound_decompression, bounded_fetch
from coordinator.kafka.ending import end_within
from coordinator.kafka.partitioning import partition_of
from coordinator.kafka.producer import REFUSALS, BatchProducer

_ASK_SECONDS = 30.0
_POLL_MS = 500
_RECORDS_MAX = 500
_CLOSE_SECONDS = 5.0


class LetterTopic:
    """One dead-letter topic, open for reading.

    Reading raises `TimeoutError` when nothing has come forward for long: the driver would wait for
    its brokers for ever.
    """

    def __init__(self, consumer: AIOKafkaConsumer, topic: str, partitions: int) -> None:
        self._consumer = consumer
        self._stood: list[int] = []
        self._moved_at = time.monotonic()
        self._places = [TopicPartition(topic, number) for number in range(partitions)]

    async def read(self, since_ms: int | None) -> AsyncIterator[Letter]:
        """Give the letters in order per partition, those since then only."""
        begins = await self._consumer.beginning_offsets(self._places)
        ends = await self._consumer.end_offsets(self._places)
        if since_ms is not None:
            found = await self._consumer.offsets_for_times(dict.fromkeys(self._places, since_ms))
            begins = {
                place: ends[place] if at is None else at.offset for place, at in found.items()
            }
        left = {place for place in self._places if begins[place] < ends[place]}
        if not left:
            return
        self._consumer.assign(sorted(left))
        for place in left:
            self._consumer.seek(place, begins[place])
        while left:
            for place, letter in await self._fetch(sorted(left)):
                if letter.offset < ends[place]:
                    yield letter
            for place in list(left):
                # By position: the last offsets of a partition may hold no records.
                if await self._consumer.position(place) >= ends[place]:
                    left.discard(place)
                    self._consumer.pause(place)

    async def find(self, partition: int, offset: int) -> Letter | None:
        """Give one letter, None when it is not there (any more)."""
        place = TopicPartition(self._places[0].topic, partition)
        if place not in self._places:
            return None
        begins = await self._consumer.beginning_offsets([place])
        ends = await self._consumer.end_offsets([place])
        if not begins[place] <= offset < ends[place]:
            return None
        self._consumer.assign([place])
        self._consumer.seek(place, offset)
        while await self._consumer.position(place) <= offset:
            for _, letter in await self._fetch([place]):
                return letter if letter.offset == offset else None
        return None

    async def _fetch(self, places: Sequence[TopicPartition]) -> list[tuple[TopicPartition, Letter]]:
        with bounded_fetch():
            fetched = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_RECORDS_MAX)
        stand = [await self._consumer.position(place) for place in places]
        if stand != self._stood:
            self._stood, self._moved_at = stand, time.monotonic()
        elif time.monotonic() - self._moved_at > _ASK_SECONDS:
            raise TimeoutError
        return [
            (place, letter_of(r.partition, r.offset, r.timestamp, r.key, r.value, tuple(r.headers)))
            for place, records in fetched.items()
            for r in records
        ]


@asynccontextmanager
async def letter_topic(
    bootstrap_servers: str,
    topic: str,
    partitions: int,
    *,
    unpacked_bytes_max: int,
    client_options: Mapping[str, Any],
) -> AsyncIterator[LetterTopic]:
    """Open a topic that is there; raises `StoreUnavailable`."""
    bound_decompression(unpacked_bytes_max)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        **client_options,
    )
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            await consumer.start()
        yield LetterTopic(consumer, topic, partitions)
    except BrokenPipeError:
        raise  # whoever read our output has left
    except (KafkaError, OSError, TimeoutError) as error:
        raise StoreUnavailable("kafka", f"The brokers do not answer: {error!r}.") from error
    finally:
        await end_within(consumer.stop(), _CLOSE_SECONDS)


class NotTaken(CoordinatorError):
    """A topic has refused a record: it is not there."""


class Replay:
    """Puts records back, each acknowledged by all replicas in sync."""

    def __init__(self, producer: BatchProducer, ack_timeout_seconds: float) -> None:
        self._producer = producer
        self._ack_timeout_seconds = ack_timeout_seconds

    async def put_back(self, letter: Letter, origin: Place) -> None:
        """Append the original record to its topic; durable in Kafka on return.

        To the partition that it came from, or, where that is no more, to its key's. Raises
        `NotTaken` when the topic has refused it, so that nothing was done, and `StoreUnavailable`
        when that is not known.
        """
        try:
            await self._put_back(letter, origin)
        except REFUSALS as error:
            raise NotTaken(f"{origin.topic} refuses the record: {type(error).__name__}") from error
        except (KafkaError, OSError, TimeoutError) as error:
            raise StoreUnavailable("kafka", f"No answer to a record: {error!r}.") from error

    async def _put_back(self, letter: Letter, origin: Place) -> None:
        partitions = await self._producer.partitions(origin.topic)
        partition = origin.partition
        if partition >= partitions:
            partition = partition_of(letter.key or b"", partitions)
        message = Message(origin.topic, letter.key, letter.value, letter.headers)
        ((batch, _),) = self._producer.pack(origin.topic, [message])
        future = await self._producer.send(batch, origin.topic, partition)
        async with asyncio.timeout(self._ack_timeout_seconds):
            await future


@asynccontextmanager
async def replaying(
    bootstrap_servers: str,
    *,
    limits: Mapping[str, int],
    client_options: Mapping[str, Any],
    request_timeout_seconds: float = 30.0,
) -> AsyncIterator[Replay]:
    """Open a producer for putting records back; raises `StoreUnavailable`."""
    producer = BatchProducer(
        bootstrap_servers,
        limits=limits,
        batch_bytes={},
        request_timeout_seconds=request_timeout_seconds,
        client_options=client_options,
    )
    try:
        await producer.start()
        yield Replay(producer, request_timeout_seconds)
    finally:
        await producer.close()
