"""Admission: from Kafka records to journaled units that the schedule knows.

Owns the last known position of every partition, and the reading of records in batches. A record
becomes exactly one of: a unit, a cancel, an answer (early refusal), a dead letter; whichever it
is, it is journaled in one transaction with the position after it (I1, F1). A batch whose
transaction failed is read again from the journal's position: nothing of it was taken in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from coordinator.domain import announce
from coordinator.domain.authority import UNBOUNDED, Authority, Breach
from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.domain.errors import ErrorCode, StoreBusy
from coordinator.domain.lifecycle import Status
from coordinator.domain.operation import Origin
from coordinator.domain.publishing import Message
from coordinator.domain.refusals import cancelled
from coordinator.domain.signing import SignedIntake, judge
from coordinator.domain.submission import (
    Cancel,
    DeadLetter,
    Reading,
    RefusedCancel,
    RefusedEarly,
    Submission,
    read,
    read_unauthentic,
)
from coordinator.engine.bounds import Backlog, Bound, Pace
from coordinator.engine.clock import Clock
from coordinator.engine.dead_letters import dead_letter
from coordinator.engine.drawing import Drawing
from coordinator.engine.membership import Membership
from coordinator.engine.observer import Observer, Stage
from coordinator.engine.ports import (
    JOURNAL,
    AdmissionBatch,
    Admitted,
    Arrival,
    Beginning,
    CancelArrival,
    Journal,
    Move,
    Partition,
    Record,
    Suspicion,
)
from coordinator.engine.schedule import Entry, Schedule
from coordinator.fault_points import FaultPoint, reach

_NO_PACES: Mapping[str, int] = {}

_TURN_BYTES = 131_072
"""Of records, after which others have their turn: the worst take a second or more per megabyte."""


@dataclass(frozen=True, slots=True)
class IntakeRules:
    """What holds for the records of one topic. With ``signed`` the key tells the authority."""

    reply_topics: frozenset[str] = frozenset()
    authority: Authority = UNBOUNDED
    signed: SignedIntake | None = None


@dataclass(frozen=True, slots=True)
class AdmissionRules:
    """The settings that reading a record needs. ``backlog_…_max`` bound the open units.

    A record of a topic that ``intakes`` does not name is a bug: nobody has said what it may do.
    ``records_per_second`` are those of one topic; 0 means as many as there are.
    """

    max_bytes: int
    timeout_ms: int
    intakes: Mapping[str, IntakeRules]
    dead_letters_topic: str
    backlog_units_max: int
    backlog_bytes_max: int
    backlog_parked_max: int = 1_000_000
    records_per_second: int = 0


@dataclass(slots=True)
class _Reading:
    """A batch in the making."""

    arrivals: list[Arrival] = field(default_factory=list)
    cancels: list[CancelArrival] = field(default_factory=list)
    answers: dict[Partition, list[Message]] = field(default_factory=dict)
    next_offsets: dict[Partition, int] = field(default_factory=dict)


class Admission:
    """Reads records, journals them and hands the units to the schedule."""

    def __init__(
        self,
        *,
        journal: Journal,
        schedule: Schedule,
        mapping: EntityMapping,
        rules: AdmissionRules,
        announcer: announce.Announcer,
        drawing: Drawing,
        clock: Clock,
        observer: Observer,
        membership: Membership,
        bell: asyncio.Event,
        outbox_bell: asyncio.Event,
    ) -> None:
        self._journal = journal
        self._schedule = schedule
        self._mapping = mapping
        self._rules = rules
        self._announcer = announcer
        self._drawing = drawing
        self._clock = clock
        self._observer = observer
        self._membership = membership
        self._bell = bell
        self._outbox_bell = outbox_bell
        self._known: dict[Partition, int | None] = {}
        self._paces: dict[str, Pace] = {}

    async def positions(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """Read the journal's positions and remember them for the compare-and-set."""
        await self._membership.find_missing()
        held = await self._journal.positions(partitions)
        for partition in partitions:
            self._known[partition] = held.get(partition)
        return held

    async def begin_reading(
        self, offsets: Mapping[Partition, int]
    ) -> Mapping[Partition, Suspicion]:
        """Journal where we begin, by the positions that we know; see `ports.Intake`."""
        return await self._journal.begin_reading(
            [
                Beginning(partition, self._known.get(partition), offset)
                for partition, offset in offsets.items()
            ]
        )

    async def mark(self, partition: Partition, offset: int, *, setting_aside: bool) -> bool:
        """Journal that the record there is about to be touched."""
        return await self._journal.mark_reading(partition, offset, setting_aside=setting_aside)

    async def release(self, partitions: Collection[Partition]) -> None:
        """Journal that these partitions are read here no more."""
        await self._journal.release_reading(partitions)

    async def set_aside(
        self, record: Record, next_offset: int, message: str, code: ErrorCode = ErrorCode.MALFORMED
    ) -> bool:
        """Journal a record as a dead letter, unread, and move the position behind it."""
        partition = (record.topic, record.partition)
        kept = dead_letter(record, self._rules.dead_letters_topic, code.value, message)
        reading = _Reading(answers={partition: [kept]}, next_offsets={partition: next_offset})
        reach(FaultPoint.SET_ASIDE_BEFORE)
        lost = await self._journal_what_was_read(reading)
        reach(FaultPoint.SET_ASIDE_AFTER)
        if not lost:
            origin = Origin(*partition, record.offset)
            self._observer.dead_letter(DeadLetter(code, message), origin)
            self._observer.record_set_aside(origin, next_offset)
        return not lost

    def bound(self) -> Bound | None:
        """Give the first bound that the backlog has reached (I12).

        What a person does to a parked unit is no record: it comes through the journal, and is
        seen however long intake waits.
        """
        rules, schedule = self._rules, self._schedule
        if len(schedule.parked) >= rules.backlog_parked_max:
            return Bound.PARKED
        if len(schedule) >= rules.backlog_units_max:
            return Bound.UNITS
        return Bound.BYTES if schedule.weight_bytes >= rules.backlog_bytes_max else None

    def backlog(self) -> Backlog:
        """How much is open."""
        schedule = self._schedule
        return Backlog(len(schedule), schedule.weight_bytes, len(schedule.parked))

    def bounds_reached(self) -> frozenset[Bound]:
        """Tell what keeps intake back now."""
        bound = self.bound()
        slow = any(pace.is_slow for pace in self._paces.values())
        return frozenset([*([bound] if bound else ()), *([Bound.RATE] if slow else ())])

    def allowances(self, topics: Collection[str]) -> Mapping[str, int]:
        """How many records of these topics may be read now; tells when a pace begins to hold back.

        Empty where there is no pace to keep.
        """
        if not self._rules.records_per_second:
            return _NO_PACES
        now = self._clock.monotonic()
        found: dict[str, int] = {}
        for topic in topics:
            pace = self._pace(topic, now)
            was_slow = pace.is_slow
            found[topic] = pace.allowance(now)
            if pace.is_slow is not was_slow:
                self._observer.pace_changed(topic, pace.per_second, is_slow=pace.is_slow)
        return found

    async def admit(self, records: Sequence[Record]) -> frozenset[Partition]:
        """Journal records in their order; give the partitions that were not ours any more."""
        reading = _Reading()
        turn_bytes = 0
        for record in records:
            if turn_bytes >= _TURN_BYTES:
                turn_bytes = 0
                await asyncio.sleep(0)
            self._read(record, reading)
            turn_bytes += len(record.value or b"")
        lost = await self._journal_what_was_read(reading)
        kept = records if not lost else [r for r in records if (r.topic, r.partition) not in lost]
        self._observer.received(len(kept))
        if self._rules.records_per_second:
            now = self._clock.monotonic()
            for record in kept:
                self._pace(record.topic, now).take(1)
        return lost

    def _pace(self, topic: str, now: float) -> Pace:
        pace = self._paces.get(topic)
        if pace is None:
            pace = self._paces[topic] = Pace(self._rules.records_per_second, now)
        return pace

    async def _journal_what_was_read(self, reading: _Reading) -> frozenset[Partition]:
        batch = AdmissionBatch(
            moves=tuple(
                Move(
                    partition,
                    self._known.get(partition),
                    next_offset,
                    tuple(reading.answers.get(partition, ())),
                )
                for partition, next_offset in reading.next_offsets.items()
            ),
            arrivals=tuple(reading.arrivals),
            cancels=tuple(reading.cancels),
        )
        try:
            async with self._membership.changing():
                began = self._clock.monotonic()
                admitted = await self._journal.admit(batch, self._mapping)
                seconds = self._clock.monotonic() - began
                self._take_in(reading, admitted)
        except StoreBusy:
            # Perhaps our epoch is out of date: an earlier question's answer was lost.
            self._membership.doubt()
            raise
        if admitted.units:
            self._observer.stage_done(Stage.ADMISSION, JOURNAL, len(admitted.units), seconds)
        if admitted.lost:
            self._membership.doubt()
        return admitted.lost

    def _take_in(self, reading: _Reading, admitted: Admitted) -> None:
        for partition, next_offset in reading.next_offsets.items():
            if partition in admitted.lost:
                del self._known[partition]
            else:
                self._known[partition] = next_offset
        now = self._clock.monotonic()
        self._clock.journal_says(admitted.at)
        doubtful = self._membership.is_doubtful
        for unit in admitted.units:
            window = unit.deadline_at - admitted.at
            self._schedule.add(
                Entry(
                    unit,
                    deadline=now + window.total_seconds(),
                    elsewhere=doubtful or unit.seq in admitted.elsewhere,
                )
            )
        reasons = _reasons(reading)
        for seq in admitted.cancelled:
            entry = self._schedule.get(seq)
            if entry is not None and not entry.running:
                self._schedule.refuse(entry, cancelled(reasons.get(entry.unit.id, "")))
        self._bell.set()
        if reading.answers:
            self._outbox_bell.set()
        self._observer.admitted(admitted)
        for cancel in admitted.forbidden:
            self._observer.cancel_refused(
                RefusedCancel(cancel.unit_id, Breach.CANCEL), cancel.origin
            )

    def _read(self, record: Record, reading: _Reading) -> None:
        reach(FaultPoint.ADMIT_READ, about=record.value)
        partition = (record.topic, record.partition)
        reading.next_offsets[partition] = record.offset + 1
        origin = Origin(record.topic, record.partition, record.offset)
        rules = self._rules
        seen, authority = self._judged(record, rules.intakes[record.topic])
        match seen:
            case Submission():
                reading.arrivals.append(Arrival(seen, origin, len(record.value or b"")))
            case Cancel():
                reading.cancels.append(
                    CancelArrival(
                        seen.id,
                        seen.reason,
                        seen.reply_to,
                        len(reading.arrivals),
                        origin,
                        authority.cancels,
                    )
                )
            case RefusedCancel():
                self._observer.cancel_refused(seen, origin)
            case RefusedEarly():
                reading.answers.setdefault(partition, []).extend(self._refusal(seen, origin))
                self._observer.refused_early(seen, origin)
            case DeadLetter():
                letter = dead_letter(
                    record, rules.dead_letters_topic, seen.code.value, seen.message
                )
                answers = reading.answers.setdefault(partition, [])
                answers.append(letter)
                if seen.answer is not None:
                    answers.extend(self._refusal(seen.answer, origin))
                self._observer.dead_letter(seen, origin)

    def _judged(self, record: Record, intake: IntakeRules) -> tuple[Reading, Authority]:
        """Read a record with the authority of its topic, or of the key that signed it."""
        rules, value, authority = self._rules, record.value, intake.authority
        if intake.signed is not None and value and len(value) <= rules.max_bytes:
            now_seconds = self._clock.now().timestamp()
            found = judge(intake.signed, record.key, record.headers, value, now_seconds)
            if isinstance(found, Breach):
                return read_unauthentic(value, record.headers, rules.max_bytes, found), authority
            authority = found.authority
        seen = read(
            value,
            record.headers,
            self._mapping,
            rules.max_bytes,
            rules.timeout_ms,
            intake.reply_topics,
            self._drawing,
            authority,
        )
        return seen, authority

    def _refusal(self, refused: RefusedEarly, origin: Origin) -> list[Message]:
        now = self._clock.now()
        value = announce.outcome_value(
            announce.Verdict(
                refused.id,
                refused.digest,
                Status.REJECTED,
                refused.problems,
                now,
                now,
                refused.metadata,
            )
        )
        return announce.outcome_messages(
            self._announcer,
            unit_id=refused.id,
            ce_id=announce.refused_ce_id(refused.id, origin),
            status=Status.REJECTED,
            value=value,
            finished_at=now,
            reply_to=refused.reply_to,
            traceparent=refused.traceparent,
        )


def _reasons(reading: _Reading) -> dict[str, str]:
    """Why each unit is cancelled: the first cancel that stands behind its unit counts (F8)."""
    place = {each.submission.id: number for number, each in enumerate(reading.arrivals, 1)}
    reasons: dict[str, str] = {}
    for each in reading.cancels:
        if each.after >= place.get(each.unit_id, 0):
            reasons.setdefault(each.unit_id, each.reason or "")
    return reasons
