"""Finds what the driver cannot unpack, by reading one partition at a time.

The driver's error does not say which partition it stumbled over. A membership that follows such a
failure begins isolated, and goes over to reading as usual once every partition is past what the
failed one may have stumbled over.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Collection, Mapping

from aiokafka import TopicPartition

from coordinator.engine.ports import Record
from coordinator.kafka.consumer import GroupConsumer
from coordinator.kafka.failures import POLL_MS, ConsumerBroken, is_unpacking


class Isolation:
    """``unreadable`` outlives memberships: partition → the offset where the driver fails."""

    def __init__(
        self,
        consumer: GroupConsumer,
        unreadable: dict[TopicPartition, int],
        *,
        max_records: int,
        is_on: bool,
    ) -> None:
        self.is_on = is_on
        self.has_found = False
        self._consumer = consumer
        self._unreadable = unreadable
        self._max_records = max_records
        self._suspects: dict[TopicPartition, int] = {}
        self._read_alone: dict[TopicPartition, int] = {}
        self._last_alone: TopicPartition | None = None

    def suspect(self, ends: Mapping[TopicPartition, int]) -> None:
        """Search these, up to where their logs end."""
        if self.is_on:
            self._suspects.update(ends)

    def clear(self) -> None:
        """Forget all: the partitions are shared out anew."""
        self._suspects.clear()
        self._read_alone.clear()

    def drop(self, partition: TopicPartition) -> None:
        """Search this one no more."""
        self._suspects.pop(partition, None)

    async def fetch(
        self, readable: Collection[TopicPartition], *, awaits_more: bool
    ) -> list[Record]:
        """Read one partition after the other; raises `ConsumerBroken` at what is sought.

        ``awaits_more``: other partitions are about to be searched as well.
        """
        ready = sorted(readable)
        if not ready:
            await asyncio.sleep(POLL_MS / 1000)
            return []
        turn = bisect_right(ready, self._last_alone) if self._last_alone else 0
        records: list[Record] = []
        for partition in (*ready[turn:], *ready[:turn]):
            self._last_alone = partition
            records = await self._fetch_alone(partition)
            if records:
                break
        self.is_on = bool(self._suspects) or awaits_more
        return records

    async def _fetch_alone(self, partition: TopicPartition) -> list[Record]:
        timeout_ms = POLL_MS if partition in self._suspects else 0
        try:
            records = await self._consumer.fetch(timeout_ms, self._max_records, partition)
        except Exception as error:
            position = await self._consumer.position(partition)
            if position is not None and is_unpacking(error):
                self._unreadable[partition] = position
                self.has_found = True
            raise ConsumerBroken(error, unpacking=is_unpacking(error)) from error
        read = self._read_alone[partition] = self._read_alone.get(partition, 0) + len(records)
        position = await self._consumer.position(partition)
        # No fetch looks at more records than it may give: what failed was among the first ones.
        if (
            position is None
            or read >= self._max_records
            or position >= self._suspects.get(partition, 0)
        ):
            self._suspects.pop(partition, None)
        return records
