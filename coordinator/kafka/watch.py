"""What is looked after beside the reading: lag, reachability, lag tools, a consumer fallen silent.

aiokafka hides a broker that is away behind retries of its own, and after a restart of the whole
cluster it may deliver nothing for ever while the log grows; asking for the ends of the logs shows
both.
"""

from __future__ import annotations

import asyncio
import time

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from coordinator.engine.ports import Partition
from coordinator.kafka.membership import Membership
from coordinator.log_events import LogEvent
from coordinator.logs import get_log

_LOOK_SECONDS = 2.0
_COMMIT_SECONDS = 5.0
_SILENT_SECONDS_MAX = 30.0

_log = get_log()


class Watch:
    """Looks after one membership until `run` is cancelled."""

    def __init__(self, member: Membership) -> None:
        self._member = member
        self.reachable = True
        self.lag: dict[Partition, int] = {}
        self._attempt = 0
        self._moved: dict[TopicPartition, tuple[int, float]] = {}
        self._committed: dict[TopicPartition, int] = {}

    async def run(self) -> None:
        """Look every two seconds, commit every five."""
        commit_at = time.monotonic() + _COMMIT_SECONDS
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self._look()
            if self.reachable and time.monotonic() >= commit_at:
                await self._commit()
                commit_at = time.monotonic() + _COMMIT_SECONDS

    async def _look(self) -> None:
        assigned = self._member.consumer.assignment()
        if not assigned:
            self.lag = {}
            return
        try:
            _, ends = await self._member.consumer.bounds(assigned)
        except (KafkaError, TimeoutError) as error:
            self.reachable = False
            self._attempt += 1
            _log.warning(
                LogEvent.INTAKE_UNAVAILABLE,
                "The brokers do not answer; the units wait in their topics.",
                attempt=self._attempt,
                error=error,
            )
            return
        self.reachable, self._attempt = True, 0
        lag: dict[Partition, int] = {}
        for partition, end in ends.items():
            position = await self._member.stands_at(partition)
            if position is not None:
                lag[partition.topic, partition.partition] = max(0, end - position)
                self._watch_progress(partition, position, end)
        self.lag = lag

    def _watch_progress(self, partition: TopicPartition, position: int, end: int) -> None:
        """Fell silent: there is something to read, we may read, and the position stands still."""
        now, member = time.monotonic(), self._member
        held = partition in member.waiting or partition.topic in member.slowed
        reading = not (member.paused or member.admitting or held)
        before, since = self._moved.get(partition, (-1, now))
        if position != before or position >= end or not reading:
            self._moved[partition] = (position, now)
        elif now - since > _SILENT_SECONDS_MAX:
            member.silent = True

    async def _commit(self) -> None:
        offsets = dict(self._member.next_offsets)
        if offsets == self._committed:
            return
        try:
            await self._member.consumer.commit(offsets)
            self._committed = offsets
        except (KafkaError, TimeoutError) as error:
            _log.debug(
                LogEvent.INTAKE_COMMIT_FAILED,
                "Kafka did not take our offsets; only its lag tools use them.",
                error=error,
            )
