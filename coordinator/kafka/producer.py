"""One idempotent producer that sends ready-made batches.

Owns what has to be known of aiokafka's producer:

* A batch never expires in it and `stop` waits for all of them: every wait here has a bound, and
  `close` lets go of what is queued instead of waiting for a broker that is away.
* After a batch was refused, its sequence numbers have a hole. A broker that has no state of this
  producer yet takes the *next* batch all the same (seen on Kafka 4.2), and later ones may be
  refused for ever. So the relay has one batch per partition under way, and a producer that failed
  is never used again.
* The names of topics are asked for one by one only once the whole list holds them: brokers may
  make a topic that is asked for.
"""

from __future__ import annotations

import asyncio
import time
from asyncio import Future
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidMessageError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    UnsupportedForMessageFormatError,
)
from aiokafka.producer.message_accumulator import BatchBuilder

from coordinator.domain.errors import StoreUnavailable
from coordinator.domain.publishing import Message
from coordinator.kafka.ending import end_within

DEFAULT_LIMIT_BYTES = 1_048_588
"""Kafka's own default of `max.message.bytes`."""

BATCH_BYTES = 512 * 1024
_SEND_BYTES_MAX = 64 * 1024 * 1024
"""Well under a broker's `socket.request.max.bytes`, past which it cuts the connection."""

_NO_COMPRESSION = 0
_GZIP = 1
_CLOSE_SECONDS = 1.0
_RECORD_OVERHEAD_BYTES = 61 + 21

REFUSALS: tuple[type[KafkaError], ...] = (
    InvalidMessageError,
    InvalidTopicError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    UnsupportedForMessageFormatError,
)
"""The topic or the message is at fault: sending the same again at once is of no use."""

OVERSIZE = (MessageSizeTooLargeError, RecordListTooLargeError)
"""The refusals that speak of one batch and its size: smaller ones may be taken."""


def message_bytes(message: Message) -> int:
    """Give an upper bound of what a message takes alone in a batch: what F26 compares."""
    size = _RECORD_OVERHEAD_BYTES + len(message.key or b"") + len(message.value or b"")
    return size + sum(
        len(name.encode()) + len(content or b"") + 10 for name, content in message.headers
    )


class BatchProducer:
    """Sends batches; see the module for what it guards against.

    ``limits`` are the topics' `max.message.bytes`: Kafka compares them with a whole batch, as it
    is compressed. ``batch_bytes`` bounds the batches of a topic that has refused larger ones.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        limits: Mapping[str, int],
        batch_bytes: Mapping[str, int],
        request_timeout_seconds: float,
        client_options: Mapping[str, Any],
    ) -> None:
        self._limits = limits
        self._batch_bytes = batch_bytes
        self._partitions: dict[str, int] = {}
        self._closed = False
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap_servers,
            enable_idempotence=True,
            request_timeout_ms=int(request_timeout_seconds * 1000),
            metadata_max_age_ms=30_000,
            max_batch_size=BATCH_BYTES,
            **client_options,
        )
        self._timeout_seconds = request_timeout_seconds

    async def start(self) -> None:
        """Connect. Raises `StoreUnavailable`; then close it."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._producer.start()
        except (KafkaError, OSError, TimeoutError, LookupError, ValueError) as error:
            # The last two: a server that does not do its part of SCRAM.
            raise StoreUnavailable("kafka", f"No broker answers: {error!r}.") from error

    async def partitions(self, topic: str) -> int:
        """Give the number of a topic's partitions, read again when metadata changes.

        Raises `UnknownTopicOrPartitionError` or `TopicAuthorizationFailedError` when the brokers
        answer and do not have it for us, `StoreUnavailable` when they do not answer.
        """
        known = self._producer.client.cluster.partitions_for_topic(topic)
        if known:
            return len(known)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                listed = await self._producer.client.fetch_all_metadata()
                if topic in listed.unauthorized_topics:
                    raise TopicAuthorizationFailedError(topic)
                if topic not in listed.topics():
                    raise UnknownTopicOrPartitionError(topic)
                return len(await self._producer.partitions_for(topic))
        except REFUSALS:
            raise
        except (KafkaError, OSError, TimeoutError) as error:
            raise StoreUnavailable("kafka", f"No broker answers: {error!r}.") from error

    def knows(self, topic: str) -> bool:
        """Whether the topic was there when metadata was last read."""
        return bool(self._producer.client.cluster.partitions_for_topic(topic))

    def pack(self, topic: str, messages: Sequence[Message]) -> list[tuple[Any, list[Message]]]:
        """Build batches of at most the topic's limit, in order; give each with its messages.

        A message that is too large alone gets a batch of its own, packed with gzip: whether it
        fits then is the broker's word.
        """
        limit = self._limits.get(topic, DEFAULT_LIMIT_BYTES)
        size = min(BATCH_BYTES, limit, self._batch_bytes.get(topic, BATCH_BYTES))
        now_ms = int(time.time() * 1000)
        batches: list[tuple[Any, list[Message]]] = []
        batch = BatchBuilder(size, _NO_COMPRESSION)
        append = batch.append
        inside: list[Message] = []
        for message in messages:
            key, value, headers = message.key, message.value, list(message.headers)
            if append(timestamp=now_ms, key=key, value=value, headers=headers) is None:
                batches.append((batch, inside))
                batch = BatchBuilder(size, _NO_COMPRESSION)
                append, inside = batch.append, []
                append(timestamp=now_ms, key=key, value=value, headers=headers)
            inside.append(message)
        batches.append((batch, inside))
        for place, (packed, content) in enumerate(batches):
            if len(content) == 1 and packed.size() > limit:
                batches[place] = (_compressed(content[0], now_ms, packed.size()), content)
            else:
                packed.close()
        return batches

    async def send(self, batch: Any, topic: str, partition: int) -> Future[Any]:
        """Queue a batch; the future tells the broker's answer, and nothing if none comes.

        None stands for a batch that no broker would read: it is refused here.
        """
        if not self.knows(topic):  # aiokafka would wait for it to be there, and all topics with it
            raise UnknownTopicOrPartitionError(topic)
        future: Future[Any]
        if batch is None:
            future = asyncio.get_running_loop().create_future()
            future.set_exception(MessageSizeTooLargeError(topic))
        else:
            future = await self._producer.send_batch(batch, topic, partition=partition)
        future.add_done_callback(_retrieve)
        return future

    async def close(self) -> None:
        """Let go at once, without waiting for what is queued; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        # aiokafka has no way to stop without a flush; this leaves it nothing to flush.
        accumulator = self._producer._message_accumulator
        accumulator._batches.clear()
        accumulator._pending_batches = _Forgotten()
        if not await end_within(self._producer.stop(), _CLOSE_SECONDS):
            await end_within(self._producer.client.close(), _CLOSE_SECONDS)


class _Forgotten(set[Any]):
    """Batches that nobody waits for: a late answer takes out what is not in."""

    def remove(self, batch: Any) -> None:
        self.discard(batch)


def _compressed(message: Message, now_ms: int, size_bytes: int) -> Any:
    """Pack one large message with gzip, which every consumer reads; None past all bounds."""
    if size_bytes > _SEND_BYTES_MAX:
        return None
    batch = BatchBuilder(size_bytes, _GZIP)
    headers = list(message.headers)
    batch.append(timestamp=now_ms, key=message.key, value=message.value, headers=headers)
    batch.close()
    return batch


def _retrieve(future: Future[Any]) -> None:
    """Mark an error as seen: a batch that was given up has nobody who waits for it."""
    if not future.cancelled():
        future.exception()
