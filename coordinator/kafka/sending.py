"""Sends lists of messages, in order per partition, and tells what became of each.

One batch per partition is under way at a time (see `producer` for why); partitions do not wait for
each other. A message is *acknowledged*, *refused* (its topic's fault, with the error) or left over
(nothing is known, or an earlier one of its partition failed).
"""

from __future__ import annotations

import asyncio
import time
from asyncio import Future
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from coordinator.domain.publishing import Message
from coordinator.engine.ports import Partition
from coordinator.fault_points import FaultPoint, reach
from coordinator.kafka.partitioning import partition_of
from coordinator.kafka.producer import OVERSIZE, REFUSALS, BatchProducer

_LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Tally:
    """What was sent since the start, by topic: messages acknowledged, and sends that failed.

    A send is one batch for one partition; of a topic that is not there, one attempt at it.
    """

    published: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Sent:
    """What is left of messages that were sent, in order per partition.

    ``oversize`` are the refused batches of which it was the size that was refused; what they hold
    is in ``left`` too.
    """

    left: list[Message] = field(default_factory=list)
    oversize: list[Parcel] = field(default_factory=list)
    refusals: dict[str, KafkaError] = field(default_factory=dict)
    failure: Exception | None = None

    @property
    def broken(self) -> bool:
        """Whether the producer must not be used again."""
        return bool(self.left)


@dataclass(slots=True)
class Parcel:
    """One batch on its way."""

    partition: Partition
    batch: Any
    messages: list[Message]
    future: Future[Any] | None = None
    acknowledged: bool = False
    failed: bool = False


class Sender:
    """Sends over one producer. ``may_send`` is asked before every batch (the lease)."""

    def __init__(
        self,
        producer: BatchProducer,
        ack_timeout_seconds: float,
        may_send: Callable[[], bool],
        tally: Tally,
    ) -> None:
        self._producer = producer
        self._tally = tally
        self._ack_timeout_seconds = ack_timeout_seconds
        self._may_send = may_send
        self._tails: dict[Partition, Parcel] = {}
        self._left_behind = False
        self._turn = 0

    async def address(
        self, messages: Sequence[Message]
    ) -> tuple[list[Parcel], dict[str, KafkaError]]:
        """Put messages into batches; give those too whose topic is not there, with the error.

        Raises `StoreUnavailable` when the brokers cannot be asked.
        """
        self._turn += 1
        counts: dict[str, int] = {}
        refusals: dict[str, KafkaError] = {}
        for topic in {message.topic for message in messages}:
            try:
                counts[topic] = await self._producer.partitions(topic)
            except REFUSALS as error:
                refusals[topic] = error
        self._tally.failures.update(refusals.keys())
        piles: dict[Partition, list[Message]] = {}
        for message in messages:
            topic, key = message.topic, message.key
            count = counts.get(topic)
            if count is None:
                continue
            number = partition_of(key, count) if key is not None else self._turn % count
            place = (topic, number)
            pile = piles.get(place)
            if pile is None:
                piles[place] = [message]
            else:
                pile.append(message)
        parcels = [
            Parcel(place, batch, inside)
            for place, pile in piles.items()
            for batch, inside in self._producer.pack(place[0], pile)
        ]
        return parcels, refusals

    async def launch(self, parcels: Sequence[Parcel]) -> None:
        """Send each batch once the one before it in its partition is acknowledged.

        Stops at the first that fails, and when the lease is gone: those have no future. After
        that nothing more is sent over this producer: the batch that was given up on may be
        acknowledged yet, and what comes later would overtake those that stayed behind (I8).
        """
        if self._left_behind:
            return
        self._left_behind = True  # whatever happens, but that we come to the end
        for parcel in parcels:
            if not await self._launch(parcel):
                return
        self._left_behind = False

    async def _launch(self, parcel: Parcel) -> bool:
        tail = self._tails.get(parcel.partition)
        if tail is not None and not await self._succeeded(tail):
            return False
        if not self._may_send():
            return False
        topic, number = parcel.partition
        try:
            parcel.future = await self._producer.send(parcel.batch, topic, number)
            reach(FaultPoint.RELAY_SENT)
        except (KafkaError, AssertionError):  # closed; or the partition is gone
            self._count_failure(parcel)
            return False
        self._tails[parcel.partition] = parcel
        return True

    async def settle(self, parcels: Sequence[Parcel]) -> Sent:
        """Wait for the answers, in bounded time, and sort the messages by them."""
        gone = await self._wait(parcels)
        sent = Sent()
        for parcel in parcels:
            error = _answer(parcel.future)
            if error is None:
                self._count_acknowledged(parcel)
                continue
            if parcel.future is not None:
                self._count_failure(parcel)
            if parcel.partition[0] in gone:
                error = UnknownTopicOrPartitionError(parcel.partition[0])
            sent.left.extend(parcel.messages)
            if isinstance(error, REFUSALS):
                sent.refusals[parcel.partition[0]] = error
                if isinstance(error, OVERSIZE):
                    sent.oversize.append(parcel)
            else:
                sent.failure = sent.failure or error
        return sent

    def _count_acknowledged(self, parcel: Parcel) -> None:
        """Once: a parcel may be settled twice. It may have failed first, its answer being late."""
        if not parcel.acknowledged:
            parcel.acknowledged = True
            self._tally.published[parcel.partition[0]] += len(parcel.messages)

    def _count_failure(self, parcel: Parcel) -> None:
        if not parcel.failed:
            parcel.failed = True
            self._tally.failures[parcel.partition[0]] += 1

    def awaited(self, parcels: Sequence[Parcel]) -> list[Future[Any]]:
        """Give the answers that may still come: for a topic that is gone none will."""
        gone = self._gone(parcels)
        return [
            parcel.future
            for parcel in parcels
            if parcel.future is not None
            and not parcel.future.done()
            and parcel.partition[0] not in gone
        ]

    def _gone(self, parcels: Sequence[Parcel]) -> frozenset[str]:
        topics = {p.partition[0] for p in parcels if p.future is not None and not p.future.done()}
        return frozenset(topic for topic in topics if not self._producer.knows(topic))

    async def _wait(self, parcels: Sequence[Parcel]) -> frozenset[str]:
        """Wait for the answers, in bounded time; give the topics that are gone."""
        deadline = time.monotonic() + self._ack_timeout_seconds
        while True:
            futures = self.awaited(parcels)
            left_seconds = deadline - time.monotonic()
            if not futures or left_seconds <= 0:
                return self._gone(parcels)
            await asyncio.wait(futures, timeout=min(left_seconds, _LOOK_SECONDS))

    async def _succeeded(self, tail: Parcel) -> bool:
        await self._wait([tail])
        future = tail.future
        if future is None:
            return False
        return future.done() and not future.cancelled() and future.exception() is None


def _answer(future: Future[Any] | None) -> Exception | None:
    if future is None:
        return _Unsent("not sent: a batch before it failed, or the lease is gone")
    if not future.done() or future.cancelled():
        return TimeoutError("no acknowledgement came in time")
    error = future.exception()
    return error if isinstance(error, Exception) or error is None else RuntimeError(repr(error))


class _Unsent(Exception):
    """Nothing was sent: not a failure of its own."""
