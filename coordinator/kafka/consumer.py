"""One consumer of the group, with the guards that aiokafka's needs.

* On assignment every partition is paused and given a position at once, before aiokafka asks Kafka
  for a committed offset; nothing is read until `UnitIntake` has placed it by the journal.
* `getmany` is never cancelled but to end the consumer, and a consumer that raised is ended: its
  idle clock stops after an exception, and records of other partitions may have been dropped with
  their positions moved on (both seen on 0.14).
* No deserializers: what they raise has the same effect.
* `stop` may hang: it has a bound, after which the connections are cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.errors import IllegalStateError, KafkaError, LeaderNotAvailableError, for_code
from aiokafka.protocol.fetch import FetchRequest

from coordinator.engine.ports import Record
from coordinator.kafka.codecs import bound_decompression, bounded_fetch
from coordinator.kafka.ending import end_within
from coordinator.kafka.unpacking import Packed

OnChange = Callable[[frozenset[TopicPartition]], None]

_ASK_SECONDS = 5.0
_FETCH_WAIT_MS = 200
_FETCH_BYTES = 16 * 1024 * 1024
_PARTITION_FETCH_BYTES = 1024 * 1024
_BUFFER_BYTES = 64 * 1024 * 1024
_PARTITION_FETCH_BYTES_MIN = 64 * 1024


class GroupConsumer:
    """A member of the consumer group. ``assigned`` and ``revoked`` must not wait for anything."""

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        group_id: str,
        instance_id: str | None,
        session_timeout_seconds: float,
        assigned: OnChange,
        revoked: OnChange,
        unpacked_bytes_max: int,
        client_options: Mapping[str, Any],
    ) -> None:
        bound_decompression(unpacked_bytes_max)
        self._listener = _Listener(self, assigned, revoked)
        session_ms = int(session_timeout_seconds * 1000)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap_servers,
            group_id=group_id,
            group_instance_id=instance_id,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            fetch_max_bytes=_FETCH_BYTES,
            max_partition_fetch_bytes=_PARTITION_FETCH_BYTES,
            session_timeout_ms=session_ms,
            rebalance_timeout_ms=session_ms,
            heartbeat_interval_ms=min(1000, session_ms // 3),
            max_poll_interval_ms=120_000,
            request_timeout_ms=session_ms + 10_000,  # a join is answered when all have joined
            metadata_max_age_ms=30_000,
            **client_options,
        )

    async def start(self, topics: Collection[str]) -> None:
        """Connect and begin to join; raises what the driver raises. Then it must be ended."""
        await self._consumer.start()
        self._consumer.subscribe(topics=list(topics), listener=self._listener)

    async def fetch(self, timeout_ms: int, max_records: int, *only: TopicPartition) -> list[Record]:
        """Give what is there, in order per partition; wait for something that long at most."""
        with bounded_fetch():
            fetched = await self._consumer.getmany(
                *only, timeout_ms=timeout_ms, max_records=max_records
            )
        return [
            Record(r.topic, r.partition, r.offset, r.timestamp, r.key, r.value, tuple(r.headers))
            for records in fetched.values()
            for r in records
        ]

    async def fetch_packed(self, partition: TopicPartition, offset: int) -> Packed:
        """Fetch from there on, and look into none of it; the driver's own position stays.

        Raises `KafkaError`, `OSError` or `TimeoutError` when the brokers do not answer, or have
        nothing there.
        """
        client = self._consumer._client
        leader = client.cluster.leader_for_partition(partition)
        if leader is None or leader < 0:
            raise LeaderNotAvailableError(partition)
        wanted = [(partition.topic, [(partition.partition, offset, _PARTITION_FETCH_BYTES)])]
        request = FetchRequest(_FETCH_WAIT_MS, 1, _FETCH_BYTES, READ_COMMITTED, wanted)
        async with asyncio.timeout(_ASK_SECONDS):
            response = await client.send(leader, request)
        ((_, ((_, code, _, *answer),)),) = response.topics
        if code:
            raise for_code(code)(partition)
        content = answer[-1]
        if not content:
            raise TimeoutError("the record that could not be unpacked does not come any more")
        # From version 11 on, a preferred replica stands between the two.
        aborted = answer[2] if response.API_VERSION >= 11 else answer[-2]
        return Packed(partition, offset, content, aborted)

    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that are ours now."""
        return frozenset(self._consumer.assignment())

    def share_buffer(self, partitions: int) -> None:
        """Bound what is read ahead of all partitions together (I12): the driver bounds each.

        A batch that is larger than a partition's share comes alone, whatever its size.
        """
        share = _BUFFER_BYTES // max(1, partitions)
        share = max(_PARTITION_FETCH_BYTES_MIN, min(_PARTITION_FETCH_BYTES, share))
        self._consumer._fetcher._max_partition_fetch_bytes = share

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Read no more of those that are still ours, and drop what was read ahead."""
        self._consumer.pause(*(self.assignment() & set(partitions)))

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Read again those that are still ours."""
        self._consumer.resume(*(self.assignment() & set(partitions)))

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from there, if it is still ours."""
        with suppress(IllegalStateError):
            self._consumer.seek(partition, offset)

    async def position(self, partition: TopicPartition) -> int | None:
        """Where the driver stands, None if the partition is not ours."""
        try:
            return int(await self._consumer.position(partition))
        except (IllegalStateError, KafkaError):
            return None

    async def bounds(
        self, partitions: Collection[TopicPartition]
    ) -> tuple[Mapping[TopicPartition, int], Mapping[TopicPartition, int]]:
        """Ask where the logs begin and end. Raises `KafkaError` or `TimeoutError`."""
        async with asyncio.timeout(_ASK_SECONDS):
            beginnings, ends = await asyncio.gather(
                self._consumer.beginning_offsets(list(partitions)),
                self._consumer.end_offsets(list(partitions)),
            )
        return beginnings, ends

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Tell Kafka's lag tools how far we are. Raises `KafkaError` or `TimeoutError`."""
        ours = {place: offset for place, offset in offsets.items() if place in self.assignment()}
        if ours:
            async with asyncio.timeout(_ASK_SECONDS):
                await self._consumer.commit(ours)

    async def end(self, timeout_seconds: float) -> None:
        """Leave the group and let go, within that time."""
        if not await end_within(self._consumer.stop(), timeout_seconds):
            await end_within(self._consumer._client.close(), 0.5)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Synchronous on purpose: the journal may be away, and the group must not wait for it."""

    def __init__(self, owner: GroupConsumer, assigned: OnChange, revoked: OnChange) -> None:
        self._owner = owner
        self._assigned = assigned
        self._revoked = revoked

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self._revoked(frozenset(revoked))

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._owner.share_buffer(len(assigned))
        self._owner.pause(assigned)
        for partition in assigned:
            self._owner.seek(partition, 0)
        self._assigned(frozenset(assigned))
