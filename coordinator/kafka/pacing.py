"""Reading no faster than a topic's pace allows.

The driver gives what it has of one partition before it looks at the next. So each partition is
read by itself, a share of what is allowed at a time: none waits until another has nothing left.
Refuses to pause a partition in the driver: that would drop what was read ahead, again and again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from aiokafka import TopicPartition

from coordinator.engine.ports import Record
from coordinator.kafka.consumer import GroupConsumer


class PacedReading:
    """Reads partitions in turns."""

    def __init__(self, consumer: GroupConsumer) -> None:
        self._consumer = consumer
        self._turn = 0

    async def fetch(
        self,
        allowances: Mapping[str, int],
        readable: Collection[TopicPartition],
        *,
        timeout_ms: int,
        max_records: int,
    ) -> list[Record]:
        """Give at most what the topics' allowances let through; of other topics as usual."""
        left = {topic: min(records, max_records) for topic, records in allowances.items()}
        ready = sorted(each for each in readable if left.get(each.topic, max_records) > 0)
        if not ready:
            await asyncio.sleep(timeout_ms / 1000)
            return []
        self._turn = (self._turn + 1) % len(ready)
        ready = [*ready[self._turn :], *ready[: self._turn]]
        share = max(1, max_records // len(ready))
        records: list[Record] = []
        for partition in ready:
            most = min(share, left.get(partition.topic, share))
            if most > 0:
                found = await self._consumer.fetch(0, most, partition)
                left[partition.topic] = left.get(partition.topic, max_records) - len(found)
                records += found
        if not records:
            most = min(left.get(each.topic, max_records) for each in ready)
            records = await self._consumer.fetch(timeout_ms, most, *ready)
        return records
