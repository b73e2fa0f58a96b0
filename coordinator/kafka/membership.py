"""One life of a group membership: partitions come, are placed by the journal, read and admitted.

A membership ends with `ConsumerBroken` when the driver fails in any way; `intake` makes the next.
It keeps polling while it may not read (the backlog is full, the journal is away), because a member
that does not poll is put out of its group.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from coordinator.domain.errors import Fenced, StoreError
from coordinator.engine.bounds import Bound
from coordinator.engine.ports import Intake, Partition, Record, Suspicion
from coordinator.kafka.careful import Care, CarefulReading, End, judge
from coordinator.kafka.codecs import BatchTooLarge
from coordinator.kafka.consumer import GroupConsumer
from coordinator.kafka.failures import POLL_MS, ConsumerBroken, is_unpacking
from coordinator.kafka.isolation import Isolation
from coordinator.kafka.pacing import PacedReading
from coordinator.kafka.passing_over import leave_too_large
from coordinator.kafka.placement import BeyondEnd, Start, place
from coordinator.kafka.unpacking import Packed, unpack_fetch
from coordinator.log_events import LogEvent
from coordinator.logs import get_log

_ROOM_LOOK_SECONDS = 0.005
_ROOM_PATIENCE_SECONDS = 0.5
_FIRST_RETRY_SECONDS = 0.1
_RETRY_SECONDS_MAX = 2.0
_BEYOND_END_LOOKS = 3
_BEYOND_END_SECONDS = 1.0
_PARKED_LOOK_SECONDS = 5.0
_VERDICT_LOOK_SECONDS = 1.0
_RELEASE_SECONDS = 0.5

_PAUSED = {
    Bound.UNITS: "No more is read: as many units are open as may be.",
    Bound.BYTES: "No more is read: the open units take as much memory as they may.",
    Bound.PARKED: "No more is read: as many units are parked as may be. Retry or resolve them; "
    "`coordinator units list --status parked` shows them.",
}

_log = get_log()


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
        self.rebalances = 0
        self.parked: dict[TopicPartition, int | None] = {}
        self.next_offsets: dict[TopicPartition, int] = {}
        self._port = port
        self._max_records = max_records
        self.isolation = Isolation(
            self.consumer, unreadable, max_records=max_records, is_on=isolate
        )
        self._unreadable = unreadable
        self._generation = 0
        self._unplaced: set[TopicPartition] = set()
        self._placed: dict[TopicPartition, int] = {}
        self._place_at = 0.0
        self._failures = 0
        self._beyond_end: dict[TopicPartition, int] = {}
        self._look_at_parked = 0.0
        self._careful = CarefulReading(port, self.consumer, records_max=max_records)
        self._releasing: set[asyncio.Task[None]] = set()
        self._paced = PacedReading(self.consumer)
        self.slowed: frozenset[str] = frozenset()

    @property
    def waiting(self) -> frozenset[TopicPartition]:
        """The partitions that the driver does not read: not placed yet, parked, or suspicious."""
        return frozenset(self._unplaced | self.parked.keys() | self._careful.partitions)

    async def stands_at(self, partition: TopicPartition) -> int | None:
        """Where reading goes on, None while that is not known: the journal has to tell it first.

        Where the driver does not read, its own position means nothing.
        """
        if partition in self.waiting:
            return self.next_offsets.get(partition, self._placed.get(partition))
        return await self.consumer.position(partition)

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
            if self._careful.is_due():
                await self._read_carefully()
            records = await self._fetch(0 if self._careful.is_due() else POLL_MS)
            if records:
                await self._admit(records)

    async def release(self) -> None:
        """Tell the journal that we read no more and are well; for a moment at most."""
        self._release(self.consumer.assignment())
        if self._releasing:
            await asyncio.wait(self._releasing, timeout=_RELEASE_SECONDS)

    # --- what the group tells us; called by the driver between any two of our awaits -----------

    def _assigned(self, partitions: frozenset[TopicPartition]) -> None:
        self._generation += 1
        self.joined = True
        self.rebalances += 1
        self.parked.clear()
        self._beyond_end.clear()
        self.isolation.clear()
        self.next_offsets.clear()
        self._careful.clear()
        self._placed.clear()
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
        self._careful.clear()
        self._release(partitions)
        for topic, numbers in _by_topic(partitions).items():
            _log.info(
                LogEvent.INTAKE_REVOKED,
                "Partitions are shared out anew.",
                topic=topic,
                partitions=numbers,
            )

    def _release(self, partitions: Collection[TopicPartition]) -> None:
        """Let go, beside: the group must not wait for the journal."""
        if not partitions:
            return
        task = asyncio.create_task(self._let_go([_partition(p) for p in partitions]))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def _let_go(self, partitions: Collection[Partition]) -> None:
        with suppress(StoreError, Fenced):  # then somebody reads carefully for a while
            await self._port.release(partitions)

    # --- placing -------------------------------------------------------------------------------

    def _unplace(self, partitions: Collection[TopicPartition]) -> None:
        self._careful.drop(partitions)
        self.consumer.pause(partitions)
        self._unplaced |= set(partitions) & self.consumer.assignment()

    async def _place(self) -> None:
        """Seek the unplaced partitions; what cannot be told now is asked again later."""
        generation, wanted = self._generation, frozenset(self._unplaced)
        if self._releasing:
            await asyncio.wait(self._releasing)  # before we say that we read them again
        try:
            positions = await self._port.positions([_partition(p) for p in wanted])
            beginnings, ends = await self.consumer.bounds(wanted)
            if generation != self._generation:
                return
            starts = self._starts(positions, beginnings, ends)
            found = await self._port.begin_reading(
                {_partition(partition): start.offset for partition, start in starts.items()}
            )
        except (StoreError, KafkaError, TimeoutError) as error:
            self._retry_later(error)
            return
        if generation != self._generation:
            return
        by_hand: dict[TopicPartition, Start] = {}
        for partition, start in starts.items():
            suspicion = found.get(_partition(partition))
            if self._is_suspicious(partition, start, ends[partition], suspicion):
                continue
            if self._unreadable.get(partition) == start.offset:
                by_hand[partition] = start
            else:
                self._start(partition, start)
        for partition, start in by_hand.items():
            if generation == self._generation:
                position = positions.get(_partition(partition))
                await self._read_by_hand(partition, position, start)

    def _starts(
        self,
        positions: Mapping[Partition, int],
        beginnings: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
    ) -> Mapping[TopicPartition, Start]:
        """Decide where to start, for those whose log reaches there."""
        self._place_at = 0.0
        self.isolation.suspect(ends)
        starts: dict[TopicPartition, Start] = {}
        for partition, end in ends.items():
            decision = place(positions.get(_partition(partition)), beginnings[partition], end)
            if isinstance(decision, BeyondEnd):
                self._placed[partition] = decision.position
                self._suspect(partition, decision)
            else:
                self._placed[partition] = decision.offset
                starts[partition] = decision
        return starts

    def _is_suspicious(
        self, partition: TopicPartition, start: Start, end: int, suspicion: Suspicion | None
    ) -> bool:
        """Whether a partition is read with care, or waits; then that is seen to."""
        if suspicion is None:
            return True  # another has read on meanwhile: placed again
        care = judge(suspicion, start.offset, end)
        if care is Care.WAIT:
            self._place_at = time.monotonic() + _VERDICT_LOOK_SECONDS
        elif care is not Care.NONE:
            self._unplaced.discard(partition)
            self._careful.add(partition, start, end, care, suspicion)
        return care is not Care.NONE

    async def _read_carefully(self) -> None:
        """Read some of a suspicious partition; what became of it."""
        generation = self._generation
        self.admitting = True
        try:
            turn = await self._careful.take_turn()
        except (StoreError, KafkaError, OSError, TimeoutError) as error:
            if generation == self._generation:
                self._unplace(self._careful.give_up())
            self._retry_later(error)
            return
        finally:
            self.admitting = False
        if generation != self._generation:
            return
        self.progressed = True
        self._failures = 0
        self.next_offsets[turn.partition] = turn.next_offset
        if turn.end is End.LOST:
            self._lose([turn.partition])
        elif turn.end is End.UNREADABLE:
            why = f"has something there that cannot be unpacked ({turn.error!r})"
            self._park(turn.partition, turn.next_offset, why)
        elif turn.end is End.PASSED:
            self._start(turn.partition, Start(turn.next_offset))

    async def _read_by_hand(
        self, partition: TopicPartition, position: int | None, start: Start
    ) -> None:
        """Take in what the driver cannot unpack, or park the partition in front of it.

        After records were admitted the partition is placed anew, by the journal's word.
        """
        generation = self._generation
        if self._port.bound() is not None:
            self._place_at = time.monotonic() + _ROOM_PATIENCE_SECONDS
            return
        try:
            packed = await self.consumer.fetch_packed(partition, start.offset)
        except (KafkaError, OSError, TimeoutError) as error:
            self._retry_later(error)
            return
        if generation != self._generation:
            return
        found = unpack_fetch(packed, self._max_records)
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
        elif isinstance(found.error, BatchTooLarge):
            self._unreadable.pop(partition, None)
            await self._leave_behind(partition, start, packed)
        else:
            why = f"has something there that cannot be unpacked ({found.error!r})"
            self._park(partition, position, why)

    async def _leave_behind(self, partition: TopicPartition, start: Start, packed: Packed) -> None:
        """Pass over a batch that holds more than we unpack; then the partition is placed anew."""
        try:
            await leave_too_large(self._port, _partition(partition), start.offset, packed)
        except StoreError as error:
            self._retry_later(error)

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
        self.isolation.drop(partition)
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
            while (bound := self._port.bound()) is not None:
                if time.monotonic() >= patience:
                    self.paused = True
                    self.consumer.pause(self.consumer.assignment())
                    backlog = self._port.backlog()
                    _log.warning(
                        LogEvent.INTAKE_PAUSED,
                        _PAUSED[bound],
                        bound=bound.value,
                        units=backlog.units,
                        bytes=backlog.weight_bytes,
                        parked=backlog.parked,
                    )
                    return False
                await asyncio.sleep(_ROOM_LOOK_SECONDS)
            return True
        if self._port.bound() is not None:
            return False
        self.paused = False
        self.consumer.resume(self.consumer.assignment() - self.waiting)
        backlog = self._port.backlog()
        _log.info(
            LogEvent.INTAKE_RESUMED,
            "Reading goes on.",
            units=backlog.units,
            bytes=backlog.weight_bytes,
            parked=backlog.parked,
        )
        return True

    async def _fetch(self, timeout_ms: int) -> list[Record]:
        if self.isolation.is_on:
            ready = self.consumer.assignment() - self.waiting
            return await self.isolation.fetch(ready, awaits_more=bool(self._unplaced))
        allowances = self._port.allowances({each.topic for each in self.consumer.assignment()})
        self.slowed = frozenset(topic for topic, records in allowances.items() if not records)
        try:
            if allowances and not self.paused:
                return await self._paced.fetch(
                    allowances,
                    self.consumer.assignment() - self.waiting,
                    timeout_ms=timeout_ms,
                    max_records=self._max_records,
                )
            return await self.consumer.fetch(timeout_ms, self._max_records)
        except Exception as error:  # whatever it is: see `consumer`
            raise ConsumerBroken(error, unpacking=is_unpacking(error)) from error

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


def _partition(partition: TopicPartition) -> Partition:
    return (partition.topic, partition.partition)


def _by_topic(partitions: Collection[TopicPartition]) -> dict[str, list[int]]:
    numbers: dict[str, list[int]] = {}
    for partition in sorted(partitions):
        numbers.setdefault(partition.topic, []).append(partition.partition)
    return numbers
