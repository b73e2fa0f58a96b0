"""Topics that refuse: their messages wait in order in the journal, and are tried again.

Owns which topics those are and when to try. A topic is *aside* from its first refusal until its
queue in the journal was found empty; meanwhile every newer message for it goes behind the others
(I8: order per key). It is tried over a producer of its own, because a refusal spoils one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from aiokafka.errors import KafkaError

from coordinator.domain.errors import StoreError
from coordinator.domain.publishing import Message
from coordinator.engine.ports import Outbox
from coordinator.kafka.producer import BatchProducer
from coordinator.kafka.sending import Sender
from coordinator.log_events import LogEvent
from coordinator.logs import get_log

_CHUNK_MESSAGES = 500
_FIRST_RETRY_SECONDS = 0.5
_RETRY_SECONDS_MAX = 30.0
_TICK_SECONDS = 0.1

_log = get_log()


@dataclass(slots=True)
class _Backoff:
    due: float
    delay_seconds: float = _FIRST_RETRY_SECONDS
    restored: int = 0


class AsideTopics:
    """The topics aside, and their way back.

    ``connect`` gives a started producer, ``awaited`` tells whether a topic has messages that are
    about to be set aside, ``may_send`` is the lease.
    """

    def __init__(
        self,
        outbox: Outbox,
        *,
        connect: Callable[[], Awaitable[BatchProducer]],
        awaited: Callable[[str], bool],
        may_send: Callable[[], bool],
        ack_timeout_seconds: float,
    ) -> None:
        self._outbox = outbox
        self._connect = connect
        self._awaited = awaited
        self._may_send = may_send
        self._ack_timeout_seconds = ack_timeout_seconds
        self._topics: dict[str, _Backoff] = {}
        # A topic comes back between two of its messages, never while one is being stored.
        self._storing = asyncio.Lock()

    def __contains__(self, topic: str) -> bool:
        return topic in self._topics

    @property
    def topics(self) -> frozenset[str]:
        """The topics aside now."""
        return frozenset(self._topics)

    async def reload(self) -> None:
        """Take over what the journal holds: for a relay that has just taken the lease."""
        now = time.monotonic()
        self._topics = {topic: _Backoff(now) for topic in await self._outbox.topics_aside()}

    def forget(self) -> None:
        """The lease is lost: another relay knows better."""
        self._topics = {}

    def add(self, topic: str, error: KafkaError, messages: int) -> None:
        """A topic refuses: everything for it waits from now on."""
        if topic in self._topics:
            return
        self._topics[topic] = _Backoff(time.monotonic() + _FIRST_RETRY_SECONDS)
        _log.error(
            LogEvent.RELAY_TOPIC_SET_ASIDE,
            f"The topic {topic} refuses messages; they wait in order, others go on.",
            topic=topic,
            messages=messages,
            error=error,
        )

    async def store(self, topic: str, messages: list[Message]) -> None:
        """Put messages behind those that wait; durable on return."""
        async with self._storing:
            await self._outbox.set_aside(topic, messages)

    async def retry(self) -> None:
        """Try the topics when they are due, until cancelled."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = time.monotonic()
            for topic in [name for name, state in self._topics.items() if state.due <= now]:
                if self._may_send() and topic in self._topics:
                    await self._try(topic, self._topics[topic])

    async def _try(self, topic: str, state: _Backoff) -> None:
        with suppress(StoreError, KafkaError):
            if await self._send_all(topic, state):
                return
        state.delay_seconds = min(state.delay_seconds * 2, _RETRY_SECONDS_MAX)
        state.due = time.monotonic() + state.delay_seconds

    async def _send_all(self, topic: str, state: _Backoff) -> bool:
        """Whether the topic is back; else it refuses still, or something is away."""
        producer = await self._connect()
        try:
            sender = Sender(producer, self._ack_timeout_seconds, self._may_send)
            while True:
                async with self._storing:
                    queue = await self._outbox.claim_aside(topic, _CHUNK_MESSAGES)
                    if not queue and not self._awaited(topic):
                        return self._restore(topic, state)
                if not queue:
                    await asyncio.sleep(_TICK_SECONDS)
                    continue
                parcels, refusals = await sender.address([message for _, message in queue])
                if refusals:
                    return False
                await sender.launch(parcels)
                sent = await sender.settle(parcels)
                left = {id(message) for message in sent.left}
                done = [row for row, message in queue if id(message) not in left]
                await self._outbox.delete_aside(done)
                state.restored += len(done)
                if sent.left:
                    return False
        finally:
            await producer.close()

    def _restore(self, topic: str, state: _Backoff) -> bool:
        self._topics.pop(topic, None)
        _log.info(
            LogEvent.RELAY_TOPIC_RESTORED,
            f"The topic {topic} takes messages again; those set aside are published.",
            topic=topic,
            messages=state.restored,
        )
        return True
