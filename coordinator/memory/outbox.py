"""The outbox and the relay's lease in memory. Mirrors `coordinator.journal.outbox`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from functools import partial

from coordinator.domain.publishing import Message
from coordinator.engine.ports import JOURNAL
from coordinator.memory.link import Link
from coordinator.memory.world import World


class MemoryOutbox:
    """What the relay of one worker reads and deletes."""

    def __init__(self, world: World, worker: int, lease_ttl_seconds: float, link: Link) -> None:
        self._world = world
        self._journal = world.journal
        self._worker = worker
        self._ttl = timedelta(seconds=lease_ttl_seconds)
        self._link = link

    async def hold_lease(self) -> bool:
        """Take or renew the relay's lease; whether it is ours until its TTL has passed."""
        return await self._link.call(JOURNAL, "hold_lease", self._hold_lease)

    def _hold_lease(self) -> bool:
        relay, now = self._journal.relay, self._world.now()
        own = self._journal.workers[self._worker]
        holder = self._journal.workers.get(relay.worker or 0)
        is_free = (
            relay.worker == self._worker
            or relay.expires_at is None
            or relay.expires_at < now
            or holder is None
            or holder.expires_at is None
        )
        if own.fenced or not is_free:
            return False
        relay.worker, relay.expires_at = self._worker, now + self._ttl
        return True

    async def release_lease(self) -> None:
        """Let the relay's lease expire now if it is ours."""
        await self._link.call(JOURNAL, "release_lease", self._release_lease)

    def _release_lease(self) -> None:
        if self._journal.relay.worker == self._worker:
            self._journal.relay.expires_at = None

    async def claim(
        self, rows_max: int, skip: Collection[int] = ()
    ) -> Sequence[tuple[int, Sequence[Message]]]:
        """Read the oldest outbox rows in id order but those in ``skip``; they stay."""
        return await self._link.read(JOURNAL, "claim", partial(self._claim, rows_max, skip))

    def _claim(
        self, rows_max: int, skip: Collection[int]
    ) -> Sequence[tuple[int, Sequence[Message]]]:
        ids = [each for each in sorted(self._journal.outbox) if each not in skip]
        return [(each, self._journal.outbox[each]) for each in ids[:rows_max]]

    async def delete(self, rows: Sequence[int]) -> None:
        """Delete rows whose messages were all acknowledged or set aside."""
        await self._link.call(JOURNAL, "delete", partial(self._delete, rows))

    def _delete(self, rows: Sequence[int]) -> None:
        for row in rows:
            self._journal.outbox.pop(row, None)

    async def set_aside(self, topic: str, messages: Sequence[Message]) -> None:
        """Keep messages of a topic that refuses, in their order."""
        await self._link.call(JOURNAL, "set_aside", partial(self._set_aside, topic, messages))

    def _set_aside(self, topic: str, messages: Sequence[Message]) -> None:
        for message in messages:
            self._journal.aside[self._journal.draw()] = (topic, message)

    async def claim_aside(self, topic: str, limit: int) -> Sequence[tuple[int, Message]]:
        """Read the oldest messages that were set aside for a topic, in order."""
        return await self._link.read(JOURNAL, "claim_aside", partial(self._aside, topic, limit))

    def _aside(self, topic: str, limit: int) -> Sequence[tuple[int, Message]]:
        rows = sorted(self._journal.aside.items())
        return [(number, message) for number, (of, message) in rows if of == topic][:limit]

    async def delete_aside(self, ids: Sequence[int]) -> None:
        """Delete set-aside messages that were acknowledged."""
        await self._link.call(JOURNAL, "delete_aside", partial(self._delete_aside, ids))

    def _delete_aside(self, ids: Sequence[int]) -> None:
        for number in ids:
            self._journal.aside.pop(number, None)

    async def topics_aside(self) -> frozenset[str]:
        """The topics that have messages set aside."""
        return await self._link.read(
            JOURNAL,
            "topics_aside",
            lambda: frozenset(topic for topic, _ in self._journal.aside.values()),
        )
