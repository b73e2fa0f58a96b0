"""A dead letter: a record byte for byte, and why it could not be read as a unit (F1)."""

from __future__ import annotations

from coordinator.domain.publishing import Message
from coordinator.engine.ports import Record

_PREFIX = "coordinator.errors."


def dead_letter(record: Record, topic: str, code: str, message: str) -> Message:
    """Give the message: value, key and headers kept, ours after, numbers in decimal."""
    ours = {
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "timestamp": str(record.timestamp_ms),
        "code": code,
        "message": message,
    }
    headers = (
        *record.headers,
        *((_PREFIX + name, content.encode()) for name, content in ours.items()),
    )
    return Message(topic, record.key, record.value, headers)
