"""What was published, read from the topics as any consumer reads them, repeats dropped.

Owns the form in which the demonstration keeps messages. The coordinator publishes at least once;
whoever drops repeated ``ce_id`` headers sees each message once (F5, F34), and so does this reader.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from coordinator.demo.daemon import DemoFailed

_READ_SECONDS_MAX: Final = 20.0
_POLL_MS: Final = 200


@dataclass(frozen=True, slots=True)
class Message:
    """One record as it was published."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    def header(self, name: str) -> str:
        """The last header of a name, as text; "" without one."""
        return next((v.decode() for k, v in reversed(self.headers) if k == name and v), "")

    @property
    def ce_id(self) -> str:
        """What a consumer drops repeats by."""
        return self.header("ce_id")

    @property
    def body(self) -> dict[str, Any]:
        """The value as JSON."""
        found = json.loads(self.value or b"null")
        return found if isinstance(found, dict) else {}


async def read_all(bootstrap_servers: str, topics: Sequence[str]) -> dict[str, list[Message]]:
    """Read topics from their beginning to where they end now: messages by topic, as they lie.

    Raises `DemoFailed` when a topic is not there or cannot be read in time.
    """
    consumer = AIOKafkaConsumer(
        *topics,
        bootstrap_servers=bootstrap_servers,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    found: dict[str, list[Message]] = {topic: [] for topic in topics}
    await consumer.start()
    try:
        ends = await _ends(consumer, topics)
        ends_at = time.monotonic() + _READ_SECONDS_MAX
        while left := [
            place for place, end in ends.items() if await consumer.position(place) < end
        ]:
            if time.monotonic() > ends_at:
                raise DemoFailed(f"These partitions could not be read to their end: {left}")
            for records in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
                for record in records:
                    found[record.topic].append(_message(record))
    finally:
        await consumer.stop()
    return found


def without_repeats(messages: Sequence[Message]) -> list[Message]:
    """Drop messages whose ``ce_id`` came before."""
    return list({message.ce_id: message for message in reversed(messages)}.values())[::-1]


async def _ends(consumer: AIOKafkaConsumer, topics: Sequence[str]) -> dict[TopicPartition, int]:
    places = consumer.assignment()  # without a group: every partition of the topics
    missing = set(topics) - {place.topic for place in places}
    if missing:
        raise DemoFailed(f"These topics are not there: {', '.join(sorted(missing))}")
    return dict(await consumer.end_offsets(places))


def _message(record: Any) -> Message:
    return Message(
        record.topic,
        record.partition,
        record.offset,
        record.key,
        record.value,
        tuple(record.headers),
    )
