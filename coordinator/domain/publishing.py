"""The values that travel from a decision to Kafka: what an operation did, and messages."""

from __future__ import annotations

from typing import NamedTuple

from coordinator.domain.decide import Effect

Header = tuple[str, bytes | None]


class Done(NamedTuple):
    """What one operation did, as it will be announced (a tuple: one is made per operation).

    ``before`` and ``after`` are JSON objects in UTF-8 with all declared fields and the version,
    as of apply (F31); ``version`` is the row's version afterwards, where the entity has one.
    """

    position: int
    effect: Effect
    before: bytes | None
    after: bytes | None
    version: int | None


class Message(NamedTuple):
    """One Kafka message to be published, ready to send (a tuple: the outbox packs it as it is)."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
