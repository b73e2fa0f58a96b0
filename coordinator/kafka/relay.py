"""The relay: publishes the outbox, in order, at least once.

Overview. Rows of the outbox are *claimed* (read, oldest first), their messages put into batches
and sent; a row is deleted when all its messages were acknowledged or set aside. While one *flight*
(what one claim gave) waits for its acknowledgements, the next is claimed and packed::

    claim ─► pack ─► send ─────► acknowledged ─► delete
                      claim ─► pack ─► (waits per partition) send ─► …

What can fail, and what holds then:

* A broker is away, or an answer does not come: the flights stay in memory, the producer is made
  anew and what was not acknowledged is sent again, older flights first. A message may so appear
  twice, with the same `ce_id`; its first appearance is in order (I8).
* A topic refuses: see `aside`. The others go on.
* The journal is away: what was acknowledged is deleted when it is back.
* The lease is lost: nothing more is sent, the flights are forgotten, their rows are still there.

Refuses to build messages, and to follow the outbox by a serial id: late commits would be lost.
"""

from __future__ import annotations

import asyncio
import math
import time
from asyncio import Task
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiokafka.errors import KafkaError, KafkaTimeoutError

from coordinator.domain.errors import InvariantViolated, StoreError, StoreUnavailable
from coordinator.domain.publishing import Message
from coordinator.engine.ports import Outbox
from coordinator.fault_points import FaultPoint, reach
from coordinator.kafka.aside import AsideTopics
from coordinator.kafka.lease import RelayLease
from coordinator.kafka.producer import BatchProducer
from coordinator.kafka.sending import Parcel, Sender, Tally
from coordinator.log_events import LogEvent
from coordinator.logs import get_log

_POLL_SECONDS = 0.2
_DRAIN_SECONDS = 5.0
_FLIGHTS_MAX = 2
_FIRST_RETRY_SECONDS = 0.1
_RETRY_SECONDS_MAX = 2.0

_log = get_log()


@dataclass(slots=True)
class _Flight:
    """One claim on its way."""

    rows: list[int]
    parcels: list[Parcel] = field(default_factory=list)
    left: list[Message] = field(default_factory=list)
    aside: dict[str, list[Message]] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)


class Relay:
    """Publishes one outbox. ``wake`` is set by whoever committed a row; a poll backs it up.

    ``limits`` are the topics' `max.message.bytes`. A topic that has taken nothing for
    ``stall_seconds`` while the brokers answer is set aside like one that refuses.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        outbox: Outbox,
        wake: asyncio.Event,
        *,
        rows_max: int = 32,
        lease_ttl_seconds: float = 15.0,
        limits: Mapping[str, int] | None = None,
        ack_timeout_seconds: float = 10.0,
        stall_seconds: float = 30.0,
        client_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._outbox = outbox
        self._wake = wake
        self._rows_max = rows_max
        self._limits = limits or {}
        self._batch_bytes: dict[str, int] = {}
        self._ack_timeout_seconds = ack_timeout_seconds
        self._stall_seconds = stall_seconds
        self._client_options = client_options or {}
        self.tally = Tally()
        self._lease = RelayLease(outbox, lease_ttl_seconds)
        self._aside = AsideTopics(
            outbox,
            connect=self._connect,
            awaited=self._is_awaited,
            may_send=self._lease.held,
            batch_bytes=self._batch_bytes,
            ack_timeout_seconds=ack_timeout_seconds,
            tally=self.tally,
        )
        self._producer: BatchProducer | None = None
        self._sender: Sender | None = None
        self._flights: list[_Flight] = []
        self._stop = asyncio.Event()
        self._waker: Task[None] | None = None
        self._more = True
        self._loaded = False

    @property
    def connected(self) -> bool:
        """Whether the last thing heard of the brokers was good."""
        return self._producer is not None

    @property
    def leading(self) -> bool:
        """Whether this relay is the one that publishes."""
        return self._lease.held()

    @property
    def topics_aside(self) -> frozenset[str]:
        """The topics that refuse, for alarms."""
        return self._aside.topics

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until ``stop``, then what is left, for 5 s at most; `Fenced` ends it at once."""
        self._stop = stop
        tasks = [
            asyncio.create_task(self._lease.keep(), name="relay-lease"),
            asyncio.create_task(self._aside.retry(), name="relay-aside"),
            asyncio.create_task(self._publish(), name="relay-publish"),
        ]
        stopping = asyncio.create_task(stop.wait(), name="relay-stop")
        try:
            done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
            if stopping in done:
                done, _ = await asyncio.wait(
                    tasks, timeout=_DRAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
            for task in done:
                if task.cancelled():
                    raise InvariantViolated(f"{task.get_name()} was cancelled by nobody")
                task.result()
        finally:
            await _end([*tasks, stopping, *([self._waker] if self._waker else [])])
            await self._drop_producer()
            with suppress(StoreError, TimeoutError):
                async with asyncio.timeout(1):
                    await self._lease.give_back()

    async def _publish(self) -> None:
        """Go on while there is a reason; ends by itself only when stopped and drained."""
        while True:
            if not self._lease.held():
                await self._step_down()
                if self._stop.is_set():
                    return
                continue
            try:
                if not await self._turn() and self._stop.is_set():
                    return
            except StoreError as error:
                self._warn(error.store, error, 1)
                if self._stop.is_set():
                    return
                await asyncio.sleep(_FIRST_RETRY_SECONDS)

    async def _turn(self) -> bool:
        """Claim and send once, or finish what is due; whether there is reason to go on."""
        sender = await self._ready()
        idle = not self._flights and not self._more
        if idle and not self._stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _POLL_SECONDS)
        if idle or self._more or self._wake.is_set():
            await self._take_off(sender)
        if not self._flights:
            return False
        if len(self._flights) >= _FLIGHTS_MAX or (
            not self._more and await self._landed_first(sender)
        ):
            await self._land(sender)
        return True

    async def _take_off(self, sender: Sender) -> None:
        """Claim what is there, and send it."""
        rows: list[int] = []
        messages: list[Message] = []
        self._wake.clear()
        skip = [row for flight in self._flights for row in flight.rows]
        for row, content in await self._outbox.claim(self._rows_max, skip):
            rows.append(row)
            messages += content
        self._more = len(rows) >= self._rows_max
        if not rows:
            return
        reach(FaultPoint.RELAY_CLAIMED)
        flight = _Flight(rows)
        self._flights.append(flight)
        try:
            await self._pack(sender, flight, messages)
        except BaseException:
            # Nothing of it was sent, and a flight without parcels would look like one that landed.
            self._flights.remove(flight)
            self._more = True
            raise
        await sender.launch(flight.parcels)

    async def _landed_first(self, sender: Sender) -> bool:
        """Wait for the oldest flight; False when there is something new to claim before that."""
        deadline = self._flights[0].since + self._ack_timeout_seconds
        while not self._wake.is_set():
            flying = sender.awaited(self._flights[0].parcels)
            left_seconds = deadline - time.monotonic()
            if not flying or left_seconds <= 0:
                return True
            if self._waker is None or self._waker.done():
                self._waker = asyncio.create_task(self._woken(), name="relay-waker")
            await asyncio.wait(
                [*flying, self._waker],
                timeout=min(left_seconds, _POLL_SECONDS),
                return_when=asyncio.FIRST_COMPLETED,
            )
        return False

    async def _woken(self) -> None:
        await self._wake.wait()

    async def _pack(self, sender: Sender, flight: _Flight, messages: list[Message]) -> None:
        if self._aside.topics:
            for message in messages:
                if message.topic in self._aside:
                    flight.aside.setdefault(message.topic, []).append(message)
            messages = [message for message in messages if message.topic not in self._aside]
        flight.left = messages
        flight.parcels, refusals = await sender.address(messages)
        flight.left = []
        for topic, error in refusals.items():
            refused = [message for message in messages if message.topic == topic]
            self._aside.add(topic, error, len(refused))
            flight.aside.setdefault(topic, []).extend(refused)

    async def _land(self, sender: Sender) -> None:
        """Finish the oldest flight; if it failed, send everything again before anything new."""
        flight = self._flights[0]
        sent = await sender.settle(flight.parcels)
        if sent.broken:
            await self._recover(sender)
            return
        count = sum(len(parcel.messages) for parcel in flight.parcels)
        await self._finish(flight)
        _log.debug(
            LogEvent.RELAY_PUBLISHED,
            f"{count} messages are published.",
            messages=count,
            rows=len(flight.rows),
            duration_ms=round((time.monotonic() - flight.since) * 1000, 1),
        )

    async def _recover(self, sender: Sender) -> None:
        """Send the flights again over a new producer, one after the other, oldest first."""
        for flight in self._flights:
            await self._sort(sender, flight)
        await self._drop_producer()
        # Only what was tried since the brokers answered last speaks against a topic: until now
        # they may have been away.
        since = time.monotonic()
        attempt = 0
        while self._flights and self._lease.held():
            flight = self._flights[0]
            try:
                if not flight.left:
                    await self._finish(flight)
                    since = time.monotonic()
                    continue
                sender = await self._ready()
                await self._pack(sender, flight, flight.left)
                await sender.launch(flight.parcels)
            except StoreError as error:
                since = time.monotonic()
                attempt = await self._wait_again(error, attempt)
                continue
            if await self._sort(sender, flight, since=since):
                attempt = await self._wait_again(None, attempt)
                await self._drop_producer()

    async def _sort(self, sender: Sender, flight: _Flight, *, since: float = math.inf) -> bool:
        """Take in what became of a flight; whether something failed that is no refusal.

        ``since``: from when on the brokers have answered and it was tried again and again.
        """
        sent = await sender.settle(flight.parcels)
        stalled = time.monotonic() - since > self._stall_seconds
        if stalled and sent.left and await self._brokers_answer():
            for message in sent.left:
                sent.refusals.setdefault(
                    message.topic, KafkaTimeoutError("the topic takes nothing for too long")
                )
        for topic, error in sent.refusals.items():
            self._aside.add(topic, error, sum(m.topic == topic for m in sent.left))
        flight.parcels = []
        flight.left += [m for m in sent.left if m.topic not in self._aside]
        for message in sent.left:
            if message.topic in self._aside:
                flight.aside.setdefault(message.topic, []).append(message)
        if sent.failure is not None and flight.left:
            _log.warning(
                LogEvent.RELAY_REBUILT,
                "The producer failed and is made anew; messages may be sent twice.",
                error=sent.failure,
            )
        return bool(flight.left)

    async def _brokers_answer(self) -> bool:
        try:
            producer = await self._connect()
        except StoreUnavailable:
            return False
        await producer.close()
        return True

    async def _finish(self, flight: _Flight) -> None:
        """Store what is set aside, then delete the rows; again until the journal is there.

        Raises the journal's `StoreError` when the lease is lost meanwhile: nothing may be stored
        then, because the next relay may have published newer messages of a topic (I8).
        """
        for topic in list(flight.aside):
            reach(FaultPoint.ASIDE_BEFORE)
            await self._insist(partial(self._aside.store, topic, flight.aside[topic]))
            reach(FaultPoint.ASIDE_AFTER)
            del flight.aside[topic]
        reach(FaultPoint.RELAY_ACKNOWLEDGED)
        await self._insist(partial(self._outbox.delete, flight.rows))
        reach(FaultPoint.RELAY_DELETED)
        if flight in self._flights:
            self._flights.remove(flight)

    async def _insist(self, act: Callable[[], Awaitable[None]]) -> None:
        attempt = 0
        while True:
            try:
                return await act()
            except StoreError as error:
                attempt = await self._wait_again(error, attempt)
                if not self._lease.held():
                    raise  # whoever holds it claims these rows anew

    async def _ready(self) -> Sender:
        if not self._loaded:
            await self._aside.reload()
            self._loaded = True
        if self._sender is None:
            self._producer = await self._connect()
            self._sender = Sender(
                self._producer, self._ack_timeout_seconds, self._lease.held, self.tally
            )
        return self._sender

    async def _connect(self) -> BatchProducer:
        producer = BatchProducer(
            self._bootstrap_servers,
            limits=self._limits,
            batch_bytes=self._batch_bytes,
            request_timeout_seconds=self._ack_timeout_seconds,
            client_options=self._client_options,
        )
        try:
            await producer.start()
        except BaseException:
            await producer.close()
            raise
        return producer

    async def _drop_producer(self) -> None:
        producer, self._producer, self._sender = self._producer, None, None
        if producer is not None:
            await producer.close()

    async def _step_down(self) -> None:
        """Without the lease: forget what was under way; its rows are still there."""
        self._flights.clear()
        self._aside.forget()
        self._loaded, self._more = False, True
        await self._drop_producer()
        if not self._stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._lease.taken.wait(), _POLL_SECONDS)

    async def _wait_again(self, error: StoreError | None, attempt: int) -> int:
        if error is not None:
            self._warn(error.store, error, attempt + 1)
        await asyncio.sleep(min(_FIRST_RETRY_SECONDS * 2**attempt, _RETRY_SECONDS_MAX))
        return min(attempt + 1, 10)

    def _warn(self, store: str, error: Exception, attempt: int) -> None:
        _log.warning(
            LogEvent.RELAY_RETRIED,
            "Publishing failed and is tried again; the messages wait in the outbox.",
            store=store,
            attempt=attempt,
            error=error,
        )

    def _is_awaited(self, topic: str) -> bool:
        return any(topic in flight.aside for flight in self._flights)


async def _end(tasks: list[Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError, KafkaError, Exception):
            await task
