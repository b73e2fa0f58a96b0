"""Reading what relays have sent."""

from __future__ import annotations

from coordinator.domain.publishing import Message


def ce_id(message: Message) -> str:
    """The name by which consumers drop repeats; empty for a dead letter."""
    for name, content in message.headers:
        if name == "ce_id":
            return (content or b"").decode()
    return ""
