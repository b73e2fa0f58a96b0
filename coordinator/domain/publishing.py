"""The values that travel from a decision to Kafka: what an operation did, and messages."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.domain.decide import Effect

Header = tuple[str, bytes | None]


@dataclass(frozen=True, slots=True)
class Done:
    """What one operation did, as it will be announced.

    ``before`` and ``after`` are JSON objects in UTF-8 with all declared fields and the version,
    as of apply (F31); ``version`` is the row's version afterwards, where the entity has one.
    """

    position: int
    effect: Effect
    before: bytes | None
    after: bytes | None
    version: int | None


@dataclass(frozen=True, slots=True)
class Message:
    """One Kafka message to be published, ready to send."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
