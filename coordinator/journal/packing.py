"""How the messages of one journal transaction are packed into one outbox row.

MessagePack, because a row per message cost a third of the throughput and JSON cannot hold bytes.
The first byte of a row is the format's version.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgpack

from coordinator.domain.errors import InvariantViolated
from coordinator.domain.publishing import Message

_VERSION = b"\x01"


def pack(messages: Sequence[Message]) -> bytes:
    """Pack messages, in their order."""
    packed: bytes = msgpack.packb(messages)
    return _VERSION + packed


def unpack(row: bytes) -> list[Message]:
    """Unpack what `pack` gave; raise `InvariantViolated` for a version that we do not know."""
    if row[:1] != _VERSION:
        raise InvariantViolated(f"an outbox row is of format {row[:1]!r}, which is unknown here")
    return [
        Message(topic, key, value, tuple((name, content) for name, content in headers))
        for topic, key, value, headers in msgpack.unpackb(memoryview(row)[1:])
    ]
