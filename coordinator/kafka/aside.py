"""Topics that refuse: their messages wait in order in the journal, and are tried again.

Owns which topics those are and when to try. A topic is *aside* from its first refusal until its
queue in the journal was found empty; meanwhile every newer message for it goes behind the others
(I8: order per key). It is tried over a producer of its own, because a refusal spoils one.

A topic may refuse one message for its size alone, compressed as well, and take all others. Such a
message would hold up its topic for ever, so it leaves the queue for one of its own,
`<topic>#too-large` (no topic may be called so), where a person finds it: nothing tries it again.
Whoever puts it back under the topic's name has it published.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto

from aiokafka.errors import KafkaError

from coordinator.domain.errors import StoreError
from coordinator.domain.publishing import Message
from coordinator.engine.ports import Outbox
from coordinator.kafka.producer import BatchProducer, message_bytes
from coordinator.kafka.sending import Parcel, Sender, Tally
from coordinator.log_events import LogEvent
from coordinator.logs import get_log

_CHUNK_MESSAGES = 500
_FIRST_RETRY_SECONDS = 0.5
_RETRY_SECONDS_MAX = 30.0
_TICK_SECONDS = 0.1
_LOOK_SECONDS = 30.0

TOO_LARGE = "#too-large"
"""What a topic's name ends with in the journal, for messages that the topic can never take."""

_log = get_log()


class _Try(Enum):
    RESTORED = auto()
    REFUSED = auto()
    AGAIN = auto()


@dataclass(slots=True)
class _Backoff:
    due: float
    delay_seconds: float = _FIRST_RETRY_SECONDS
    restored: int = 0


class AsideTopics:
    """The topics aside, and their way back.

    ``connect`` gives a started producer, ``awaited`` tells whether a topic has messages that are
    about to be set aside, ``may_send`` is the lease. ``batch_bytes`` is written here: how large a
    topic's batches may be, where the topic has refused larger ones; ``tally`` counts.
    """

    def __init__(
        self,
        outbox: Outbox,
        *,
        connect: Callable[[], Awaitable[BatchProducer]],
        awaited: Callable[[str], bool],
        may_send: Callable[[], bool],
        batch_bytes: dict[str, int],
        ack_timeout_seconds: float,
        tally: Tally,
    ) -> None:
        self._outbox = outbox
        self._connect = connect
        self._awaited = awaited
        self._may_send = may_send
        self._batch_bytes = batch_bytes
        self._ack_timeout_seconds = ack_timeout_seconds
        self._tally = tally
        self._topics: dict[str, _Backoff] = {}
        self._look_at = 0.0
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
        self._topics = {topic: _Backoff(now) for topic in await self._waiting()}
        self._look_at = now + _LOOK_SECONDS

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
            if now >= self._look_at and self._may_send():
                await self._look(now)
            for topic in [name for name, state in self._topics.items() if state.due <= now]:
                if self._may_send() and topic in self._topics:
                    await self._try(topic, self._topics[topic])

    async def _waiting(self) -> frozenset[str]:
        found = await self._outbox.topics_aside()
        return frozenset(topic for topic in found if not topic.endswith(TOO_LARGE))

    async def _look(self, now: float) -> None:
        """Find what a person has put back."""
        self._look_at = now + _LOOK_SECONDS
        with suppress(StoreError):
            found = await self._waiting()
            if self._may_send():
                for topic in found:
                    self._topics.setdefault(topic, _Backoff(now))

    async def _try(self, topic: str, state: _Backoff) -> None:
        with suppress(StoreError, KafkaError):
            while self._may_send():
                outcome = await self._send_all(topic, state)
                if outcome is _Try.RESTORED:
                    return
                if outcome is _Try.REFUSED:
                    break
        state.delay_seconds = min(state.delay_seconds * 2, _RETRY_SECONDS_MAX)
        state.due = time.monotonic() + state.delay_seconds

    async def _send_all(self, topic: str, state: _Backoff) -> _Try:
        """Send the queue until it is empty, or something in it is refused.

        `_Try.AGAIN`: what was in the way is out of it, and the producer is spoilt.
        """
        producer = await self._connect()
        try:
            sender = Sender(producer, self._ack_timeout_seconds, self._may_send, self._tally)
            while True:
                async with self._storing:
                    queue = await self._outbox.claim_aside(topic, _CHUNK_MESSAGES)
                    if not queue and not self._awaited(topic):
                        self._restore(topic, state)
                        return _Try.RESTORED
                if not queue:
                    await asyncio.sleep(_TICK_SECONDS)
                    continue
                parcels, refusals = await sender.address([message for _, message in queue])
                if refusals:
                    return _Try.REFUSED
                await sender.launch(parcels)
                sent = await sender.settle(parcels)
                left = {id(message) for message in sent.left}
                done = [row for row, message in queue if id(message) not in left]
                await self._outbox.delete_aside(done)
                state.restored += len(done)
                for parcel in sent.oversize:
                    await self._make_way(topic, parcel, queue)
                if sent.left:
                    return _Try.AGAIN if sent.oversize else _Try.REFUSED
        finally:
            await producer.close()

    async def _make_way(
        self, topic: str, parcel: Parcel, queue: Sequence[tuple[int, Message]]
    ) -> None:
        """Let smaller batches follow one of several messages; take a message alone out."""
        if len(parcel.messages) > 1:
            self._batch_bytes[topic] = parcel.batch.size() // 2
            return
        (large,) = parcel.messages
        await self._outbox.set_aside(topic + TOO_LARGE, [large])
        await self._outbox.delete_aside([row for row, message in queue if message is large])
        _log.error(
            LogEvent.RELAY_MESSAGE_TOO_LARGE,
            f"The topic {topic} can never take a message of this size; it is kept under "
            f"{topic + TOO_LARGE!r} in the journal, and those behind it are published.",
            topic=topic,
            bytes=message_bytes(large),
        )

    def _restore(self, topic: str, state: _Backoff) -> None:
        self._topics.pop(topic, None)
        _log.info(
            LogEvent.RELAY_TOPIC_RESTORED,
            f"The topic {topic} takes messages again; those set aside are published.",
            topic=topic,
            messages=state.restored,
        )
