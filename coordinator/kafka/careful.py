"""Reading with care, where whoever read before did not live to let the partition go (H19).

Overview. A record may end the process that reads it: a fault in native code, memory that runs out.
Without a memory of it the record would end every daemon in turn, and hold up its partition for
ever. So the journal knows who reads a partition. A worker that lets go says so; one that is found
not to have let go, when the next begins, *stood* there. Then the next reads with care: one record
at a time, each *marked* in the journal before its bytes are touched, nothing else being read
meanwhile. A death under a mark speaks against that record alone::

    stood   under its mark   then
    0       –                read as usual
    1 …     0, 1             with care
    2 …     2                set aside as a dead letter, unpacked but not looked into
    4 …     4, and 2 of them while it was set aside: passed over, not even unpacked

Since nobody reads with care but after a death, that makes three deaths in all, as a rule.

What can fail, and what holds then:

* A daemon is killed from outside, however often: on a partition with nothing to read no mark is
  made, and elsewhere a mark lasts the few milliseconds until the record is admitted. The same
  record would have to be hit twice.
* A daemon is killed in a rebalance before its word that it let go has reached the journal: the
  next reads with care for nothing.
* Those who stood may live still, as long as their lease has not run out. Nobody is condemned by
  them: the partition waits for the verdict, a lease at most; others are read.
* Two read the partition at once: whoever begins later ends the other's right to mark.

Nobody else waits for long: what is suspicious is read in the order of suspicion, other partitions
go on between the turns, and a record under which somebody died is not touched in the first second.

The care ends where the unlucky batch of the one before must have ended: after as many records as
a batch can have, or where the log ended when we came.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto

from aiokafka import TopicPartition

from coordinator.engine.ports import Intake, Partition, Suspicion
from coordinator.kafka.codecs import BatchTooLarge
from coordinator.kafka.consumer import GroupConsumer
from coordinator.kafka.passing_over import leave_deadly, leave_too_large
from coordinator.kafka.placement import Start
from coordinator.kafka.unpacking import Packed
from coordinator.log_events import LogEvent
from coordinator.logs import get_log

MARKED_DEATHS_MAX = 2
_SETTING_ASIDE_DEATHS_MAX = 2
_TURN_SECONDS = 0.1
_PAUSE_SECONDS = 1.0

_log = get_log()


class Care(Enum):
    """How the record at which reading begins is to be touched."""

    NONE = auto()
    MARKED = auto()
    WAIT = auto()
    SET_ASIDE = auto()
    PASS_OVER = auto()


def judge(suspicion: Suspicion, offset: int, end: int) -> Care:
    """Decide by what the journal holds against the record at ``offset``, if there is one."""
    if not suspicion.stood or offset >= end:
        return Care.NONE
    if suspicion.marked < MARKED_DEATHS_MAX:
        return Care.MARKED
    if suspicion.undecided:
        return Care.WAIT
    if suspicion.setting_aside < _SETTING_ASIDE_DEATHS_MAX:
        return Care.SET_ASIDE
    return Care.PASS_OVER


class End(Enum):
    """What became of a suspicious partition in a turn."""

    NOT_YET = auto()
    PASSED = auto()
    LOST = auto()
    UNREADABLE = auto()


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: the partition, where it stands now, and what became of it."""

    partition: TopicPartition
    next_offset: int
    end: End
    error: Exception | None = None


class _Unreadable(Exception):
    def __init__(self, cause: Exception) -> None:
        super().__init__(repr(cause))
        self.cause = cause


@dataclass(slots=True)
class _Place:
    offset: int
    until: int
    records_left: int
    care: Care
    marked: int
    not_before: float
    packed: Packed | None = None


class CarefulReading:
    """The suspicious partitions of one membership. They are paused in the driver."""

    def __init__(self, port: Intake, consumer: GroupConsumer, *, records_max: int) -> None:
        self._port = port
        self._consumer = consumer
        self._records_max = records_max
        self._places: dict[TopicPartition, _Place] = {}

    @property
    def partitions(self) -> frozenset[TopicPartition]:
        """Those that are being read with care."""
        return frozenset(self._places)

    def add(
        self, partition: TopicPartition, start: Start, end: int, care: Care, suspicion: Suspicion
    ) -> None:
        """Read a partition with care from now on."""
        pause_seconds = _PAUSE_SECONDS if suspicion.marked else 0.0
        self._places[partition] = _Place(
            offset=start.offset,
            until=end,
            records_left=self._records_max,
            care=care,
            marked=suspicion.marked,
            not_before=time.monotonic() + pause_seconds,
        )
        _log.warning(
            LogEvent.INTAKE_SUSPICIOUS,
            "Whoever read this partition before did not let it go; the next records are read one "
            "at a time, each marked in the journal before it is touched.",
            topic=partition.topic,
            partition=partition.partition,
            offset=start.offset,
            attempt=suspicion.stood,
        )

    def clear(self) -> None:
        """Forget all: the partitions are shared out anew."""
        self._places.clear()

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        """Forget some: they are placed anew."""
        for partition in partitions:
            self._places.pop(partition, None)

    async def take_turn(self) -> Turn:
        """Read from the partition whose turn it is, for a tenth of a second or so.

        Raises what the port raises, and `KafkaError`, `OSError` or `TimeoutError` when the brokers
        do not answer: then the partition is to be placed anew.
        """
        partition, place = self._next_place()
        turn_ends = time.monotonic() + _TURN_SECONDS
        turn = Turn(partition, place.offset, End.NOT_YET)
        while turn.end is End.NOT_YET and time.monotonic() < turn_ends:
            turn = await self._step(partition, place)
            if self._places.get(partition) is not place:
                return turn  # shared out anew meanwhile
        del self._places[partition]
        if turn.end is End.NOT_YET:
            self._places[partition] = place  # behind the others
        return turn

    def is_due(self) -> bool:
        """Whether there is one whose turn it is."""
        return bool(self._places) and self._next_place()[1].not_before <= time.monotonic()

    def _next_place(self) -> tuple[TopicPartition, _Place]:
        """The least suspicious first, so that as much as can be is read before we may die."""
        return min(self._places.items(), key=lambda each: each[1].marked)

    def give_up(self) -> frozenset[TopicPartition]:
        """Forget all, since a turn has failed; give what is to be placed anew."""
        given_up = self.partitions
        self._places.clear()
        return given_up

    async def _step(self, partition: TopicPartition, place: _Place) -> Turn:
        """Touch one record, after it was marked."""
        if place.packed is None:
            place.packed = await self._consumer.fetch_packed(partition, place.offset)
        name = (partition.topic, partition.partition)
        setting_aside = place.care is not Care.MARKED
        if not await self._port.mark(name, place.offset, setting_aside=setting_aside):
            return Turn(partition, place.offset, End.LOST)
        if self._places.get(partition) is not place:
            return Turn(partition, place.offset, End.NOT_YET)
        try:
            next_offset, is_ours = await self._touch(name, place)
        except _Unreadable as error:
            return Turn(partition, place.offset, End.UNREADABLE, error.cause)
        if next_offset is None:
            return self._fetch_again(partition, place)
        if not is_ours:
            return Turn(partition, place.offset, End.LOST)
        place.care, place.marked = Care.MARKED, 0
        place.offset = next_offset
        place.records_left -= 1
        is_over = place.offset >= place.until or not place.records_left
        return Turn(partition, place.offset, End.PASSED if is_over else End.NOT_YET)

    async def _touch(self, name: Partition, place: _Place) -> tuple[int | None, bool]:
        """Do what is due with the marked record; the offset after it, and whether it was ours.

        No offset: what was fetched is used up.
        """
        packed = place.packed
        assert packed is not None
        if place.care is Care.PASS_OVER:
            place.packed = None
            return await leave_deadly(self._port, name, place.offset, packed)
        try:
            record = packed.next_record()
        except BatchTooLarge:
            place.packed = None
            return await leave_too_large(self._port, name, place.offset, packed)
        except Exception as error:  # of whatever kind: the content is at fault
            raise _Unreadable(error) from error
        if record is None:
            return None, True
        next_offset = record.offset + 1
        if place.care is Care.SET_ASIDE:
            return next_offset, await self._port.set_aside(record, next_offset, _DEADLY)
        return next_offset, not await self._port.admit([record])

    def _fetch_again(self, partition: TopicPartition, place: _Place) -> Turn:
        """What was fetched is used up; it may have held nothing for us at all."""
        assert place.packed is not None
        moved = place.packed.next_offset > place.offset
        place.offset, place.packed = place.packed.next_offset, None
        is_over = not moved or place.offset >= place.until
        return Turn(partition, place.offset, End.PASSED if is_over else End.NOT_YET)


_DEADLY = (
    f"Reading this record ended the process {MARKED_DEATHS_MAX + 1} times; it was not looked into "
    "any more."
)
