"""Reading what relays have sent."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.domain.publishing import Message


def ce_id(message: Message) -> str:
    """The name by which consumers drop repeats; empty for a dead letter."""
    for name, content in message.headers:
        if name == "ce_id":
            return (content or b"").decode()
    return ""


def dead_letters(messages: Iterable[Message], topic: str) -> set[tuple[int, int]]:
    """The partitions and offsets that dead letters tell of."""
    return {
        (
            int(content["coordinator.errors.partition"] or b"-1"),
            int(content["coordinator.errors.offset"] or b"-1"),
        )
        for content in (dict(each.headers) for each in messages if each.topic == topic)
    }
