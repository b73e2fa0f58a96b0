"""One life of a group membership: partitions come, are placed by the journal, read and admitted.

A membership ends with `ConsumerBroken` when the driver fails in any way; `intake` makes the next.
It keeps polling while it may not read (the backlog is full, the journal is away), because a member
that does not poll is put out of its group.
"""

from __future__ import annotations

import asyncio
import gzip
import time
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import CorruptRecordException, KafkaError, UnsupportedCodecError

from coordinator.domain.errors import StoreError
from coordinator.engine.ports import Intake, Partition, Record
from coordinator.kafka.consumer import GroupConsumer
from coordinator.kafka.placement import BeyondEnd, Start, place
from coordinator.log_events import LogEvent
from coordinator.logs import get_log

POLL_MS = 100
_ROOM_LOOK_SECONDS = 0.005
_ROOM_PATIENCE_SECONDS = 0.5
_FIRST_RETRY_SECONDS = 0.1
_RETRY_SECONDS_MAX = 2.0
_BEYOND_END_LOOKS = 3
_BEYOND_END_SECONDS = 1.0
_PARKED_LOOK_SECONDS = 5.0

_log = get_log()


class ConsumerBroken(Exception):
    """The driver failed; ``cause`` is what it raised. Nothing it holds is to be trusted.

    ``unpacking``: it was a record that it could not unpack, not a broker.
    """

    def __init__(self, cause: Exception, *, unpacking: bool = False) -> None:
        super().__init__(repr(cause))
        self.cause = cause
        self.unpacking = unpacking


class Membership:
    """See the module. ``isolate`` reads one partition at a time, to find what cannot be unpacked.

    It ends once every partition is past what the failed membership may have stumbled over.
    ``unreadable`` outlives memberships: partition → the offset where the driver fails. There one
    fetch is unpacked by hand (see `unpacking`), and only what that cannot read parks a partition.
    """

    def __init__(
        self,
        port: Intake,
        *,
        max_records: int,
        isolate: bool,
        unreadable: dict[TopicPartition, int],
        consumer: Mapping[str, Any],
    ) -> None:
        self.consumer = GroupConsumer(assigned=self._assigned, revoked=self._revoked, **consumer)
        self.joined = False
        self.admitting = False
        self.paused = False
        self.silent = False
        self.progressed = False
        self.found_unreadable = False
        self.parked: dict[TopicPartition, int | None] = {}
        self.next_offsets: dict[TopicPartition, int] = {}
        self._port = port
        self._max_records = max_records
        self.isolating = isolate
        self._suspects: dict[TopicPartition, int] = {}
        self._read_alone: dict[TopicPartition, int] = {}
        self._last_alone: TopicPartition | None = None
        self._unreadable = unreadable
        self._generation = 0
        self._unplaced: set[TopicPartition] = set()
        self._place_at = 0.0
        self._failures = 0
        self._beyond_end: dict[TopicPartition, int] = {}
        self._look_at_parked = 0.0

    @property
    def waiting(self) -> frozenset[TopicPartition]:
        """The partitions that are not read now: not placed yet, or parked."""
        return frozenset(self._unplaced | self.parked.keys())

    async def read(self, stop: asyncio.Event) -> None:
        """Read until ``stop``. Raises `ConsumerBroken` and what the engine raises."""
        while not stop.is_set():
            now = time.monotonic()
            if self.silent:
                raise ConsumerBroken(RuntimeError("there are records, and none are delivered"))
            if self.parked and now >= self._look_at_parked:
                await self._look_for_resolution(now)
            if self._unplaced and now >= self._place_at:
                await self._place()
            if not await self._has_room():
                await self._fetch(POLL_MS)  # everything is paused: this only keeps us a member
                continue
            records = await self._fetch(POLL_MS)
            if records:
                await self._admit(records)

    # --- what the group tells us; called by the driver between any two of our awaits -----------

    def _assigned(self, partitions: frozenset[TopicPartition]) -> None:
        self._generation += 1
        self.joined = True
        self.parked.clear()
        self._beyond_end.clear()
        self._suspects.clear()
        self._read_alone.clear()
        self.next_offsets.clear()
        self._unplaced = set(partitions)
        self._place_at = 0.0
        for topic, numbers in _by_topic(partitions).items():
            _log.info(
                LogEvent.INTAKE_ASSIGNED,
                "Partitions were assigned; reading goes on at the journal's positions.",
                topic=topic,
                partitions=numbers,
            )

    def _revoked(self, partitions: frozenset[TopicPartition]) -> None:
        self._generation += 1
        self._unplaced.clear()
        for topic, numbers in _by_topic(partitions).items():
            _log.info(
                LogEvent.INTAKE_REVOKED,
                "Partitions are shared out anew.",
                topic=topic,
                partitions=numbers,
            )

    # --- placing -------------------------------------------------------------------------------

    def _unplace(self, partitions: Collection[TopicPartition]) -> None:
        self.consumer.pause(partitions)
        self._unplaced |= set(partitions) & self.consumer.assignment()

    async def _place(self) -> None:
        """Seek the unplaced partitions; what cannot be told now is asked again later."""
        generation, wanted = self._generation, frozenset(self._unplaced)
        try:
            positions = await self._port.positions([_partition(p) for p in wanted])
            beginnings, ends = await self.consumer.bounds(wanted)
        except (StoreError, KafkaError, TimeoutError) as error:
            self._retry_later(error)
            return
        if generation != self._generation:
            return
        self._place_at = 0.0
        if self.isolating:
            self._suspects.update(ends)
        unreadable: list[tuple[TopicPartition, int | None, Start]] = []
        for partition in wanted:
            position = positions.get(_partition(partition))
            decision = place(position, beginnings[partition], ends[partition])
            if isinstance(decision, BeyondEnd):
                self._suspect(partition, decision)
            elif self._unreadable.get(partition) == decision.offset:
                unreadable.append((partition, position, decision))
            else:
                self._start(partition, decision)
        for partition, position, start in unreadable:
            if generation == self._generation:
                await self._read_by_hand(partition, position, start)

    async def _read_by_hand(
        self, partition: TopicPartition, position: int | None, start: Start
    ) -> None:
        """Take in what the driver cannot unpack, or park the partition in front of it.

        After records were admitted the partition is placed anew, by the journal's word.
        """
        generation = self._generation
        if not self._port.has_room():
            self._place_at = time.monotonic() + _ROOM_PATIENCE_SECONDS
            return
        try:
            found = await self.consumer.unpack(partition, start.offset, self._max_records)
        except (KafkaError, OSError, TimeoutError) as error:
            self._retry_later(error)
            return
        if generation != self._generation:
            return
        if found.records:
            await self._admit(found.records)
            if self._failures:
                return  # not admitted: read by hand again
            self._unreadable.pop(partition, None)
            if not found.whole:
                self._unreadable[partition] = found.next_offset
        elif found.error is None:
            self._unreadable.pop(partition, None)
            self._start(partition, Start(found.next_offset, start.lost))
        else:
            why = f"has something there that cannot be unpacked ({found.error!r})"
            self._park(partition, position, why)

    def _start(self, partition: TopicPartition, start: Start) -> None:
        if start.lost:
            _log.error(
                LogEvent.INTAKE_RECORDS_LOST,
                f"Kafka's retention deleted {start.lost} records before they were read; "
                "reading goes on at the first that is left.",
                topic=partition.topic,
                partition=partition.partition,
                offset=start.offset,
                records=start.lost,
            )
        self._beyond_end.pop(partition, None)
        self._unplaced.discard(partition)
        self.consumer.seek(partition, start.offset)
        if not self.paused:
            self.consumer.resume([partition])

    def _suspect(self, partition: TopicPartition, found: BeyondEnd) -> None:
        """A new leader may for a moment not know how far its log is stable: look again first."""
        looks = self._beyond_end[partition] = self._beyond_end.get(partition, 0) + 1
        if looks < _BEYOND_END_LOOKS:
            self._place_at = time.monotonic() + _BEYOND_END_SECONDS
            return
        self._park(
            partition,
            found.position,
            f"ends at {found.end}: it was made again, or has lost its tail",
        )

    def _park(self, partition: TopicPartition, position: int | None, why: str) -> None:
        self._unplaced.discard(partition)
        self._suspects.pop(partition, None)
        self.parked[partition] = position
        self._look_at_parked = time.monotonic() + _PARKED_LOOK_SECONDS
        _log.error(
            LogEvent.INTAKE_PARTITION_PARKED,
            f"The partition is not read any more: the journal stands at {position}, and "
            f"the log {why}. Set the journal's position for it, or bring the log back.",
            topic=partition.topic,
            partition=partition.partition,
            offset=position,
        )

    async def _look_for_resolution(self, now: float) -> None:
        """A person resolves a parked partition by its position in the journal."""
        self._look_at_parked = now + _PARKED_LOOK_SECONDS
        parked = list(self.parked)
        try:
            positions = await self._port.positions([_partition(p) for p in parked])
        except StoreError:
            return
        for partition in parked:
            known = self.parked.get(partition)
            if partition in self.parked and positions.get(_partition(partition)) != known:
                del self.parked[partition]
                self._unplace([partition])
                self._place_at = 0.0

    # --- reading -------------------------------------------------------------------------------

    async def _has_room(self) -> bool:
        """Wait a moment for room, then pause: a pause drops what was read ahead."""
        if not self.paused:
            patience = time.monotonic() + _ROOM_PATIENCE_SECONDS
            while not self._port.has_room():
                if time.monotonic() >= patience:
                    self.paused = True
                    self.consumer.pause(self.consumer.assignment())
                    _log.warning(
                        LogEvent.INTAKE_PAUSED,
                        "No more is read: the backlog is at its bound, or a store is away.",
                    )
                    return False
                await asyncio.sleep(_ROOM_LOOK_SECONDS)
            return True
        if not self._port.has_room():
            return False
        self.paused = False
        self.consumer.resume(self.consumer.assignment() - self.waiting)
        _log.info(LogEvent.INTAKE_RESUMED, "Reading goes on.")
        return True

    async def _fetch(self, timeout_ms: int) -> list[Record]:
        if self.isolating:
            return await self._fetch_isolated()
        try:
            return await self.consumer.fetch(timeout_ms, self._max_records)
        except Exception as error:  # whatever it is: see `consumer`
            raise ConsumerBroken(error, unpacking=is_unpacking(error)) from error

    async def _fetch_isolated(self) -> list[Record]:
        """Read one partition after the other, and find the one that cannot be unpacked."""
        ready = sorted(self.consumer.assignment() - self.waiting)
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
        self.isolating = bool(self._suspects or self._unplaced)
        return records

    async def _fetch_alone(self, partition: TopicPartition) -> list[Record]:
        timeout_ms = POLL_MS if partition in self._suspects else 0
        try:
            records = await self.consumer.fetch(timeout_ms, self._max_records, partition)
        except Exception as error:
            position = await self.consumer.position(partition)
            if position is not None and is_unpacking(error):
                self._unreadable[partition] = position
                self.found_unreadable = True
            raise ConsumerBroken(error, unpacking=is_unpacking(error)) from error
        read = self._read_alone[partition] = self._read_alone.get(partition, 0) + len(records)
        position = await self.consumer.position(partition)
        # No fetch looks at more records than it may give: what failed was among the first ones.
        if (
            position is None
            or read >= self._max_records
            or position >= self._suspects.get(partition, 0)
        ):
            self._suspects.pop(partition, None)
        return records

    async def _admit(self, records: Sequence[Record]) -> None:
        generation = self._generation
        self.admitting = True
        try:
            lost = await self._port.admit(records)
        except StoreError as error:
            self._unplace(self.consumer.assignment() - self.parked.keys())
            self._retry_later(error)
            return
        finally:
            self.admitting = False
        self.progressed = True
        self._failures = 0
        if generation != self._generation:
            return  # shared out anew meanwhile: everything is about to be placed again
        for record in records:
            self.next_offsets[TopicPartition(record.topic, record.partition)] = record.offset + 1
        if lost:
            self._lose([TopicPartition(*partition) for partition in lost])

    def _lose(self, partitions: Sequence[TopicPartition]) -> None:
        self._unplace(partitions)
        for partition in partitions:
            offset = self.next_offsets.pop(partition, None)
            _log.warning(
                LogEvent.INTAKE_POSITION_LOST,
                "Another daemon read this partition too; its records are sought again.",
                topic=partition.topic,
                partition=partition.partition,
                offset=offset,
            )

    def _retry_later(self, error: Exception) -> None:
        self._failures += 1
        delay_seconds = min(_FIRST_RETRY_SECONDS * 2 ** min(self._failures, 8), _RETRY_SECONDS_MAX)
        self._place_at = time.monotonic() + delay_seconds
        _log.warning(
            LogEvent.INTAKE_RETRIED,
            "Nothing is taken in for now: the journal or the brokers do not answer.",
            attempt=self._failures,
            retry_ms=int(delay_seconds * 1000),
            error=error,
        )


_OF_CONTENT = (CorruptRecordException, UnsupportedCodecError, gzip.BadGzipFile)
"""Kinds of `KafkaError` and `OSError` that speak of a batch and not of a broker."""


def is_unpacking(error: Exception) -> bool:
    """Whether the driver stumbled over what a batch holds, so that asking again is of no use."""
    return isinstance(error, _OF_CONTENT) or not isinstance(error, KafkaError | OSError)


def _partition(partition: TopicPartition) -> Partition:
    return (partition.topic, partition.partition)


def _by_topic(partitions: Collection[TopicPartition]) -> dict[str, list[int]]:
    numbers: dict[str, list[int]] = {}
    for partition in sorted(partitions):
        numbers.setdefault(partition.topic, []).append(partition.partition)
    return numbers
