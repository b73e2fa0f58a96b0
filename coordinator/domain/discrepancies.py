"""What must hold between journal, undo records, fences and topics, and every way to break it.

Pure comparison for ``coordinator verify``: facts in, discrepancies out. Owns each kind's meaning
and what to do about it. It judges only facts that were true at one moment together; seeing to that
is the part of `coordinator.engine.verification`. Refuses to repair anything: a discrepancy means
that a promise was broken from outside (a failover that lost a tail, a restored backup, a hand in
the tables), and only a person knows which side is right.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from coordinator.domain.lifecycle import FINAL_STATUSES, Status

APPLIED: Final = "applied"
UNDONE: Final = "undone"
TOMBSTONE: Final = "tombstone"
WORKER_LANE: Final = -1


class Kind(StrEnum):
    """In which way something does not agree."""

    COMMITTED_IN_PART = "committed_in_part"
    ENDED_BUT_APPLIED = "ended_but_applied"
    UNDONE_BEFORE_ITS_TIME = "undone_before_its_time"
    RECORD_MISSING = "record_missing"
    RECORD_WITHOUT_UNIT = "record_without_unit"
    RECORD_OF_OTHER_CONTENT = "record_of_other_content"
    RECORD_AFTER_SWEEP = "record_after_sweep"
    RECORD_OUT_OF_PLACE = "record_out_of_place"
    LOCK_WITHOUT_UNIT = "lock_without_unit"
    LOCK_OF_FINAL_UNIT = "lock_of_final_unit"
    LOCK_MISSING = "lock_missing"
    UNITS_WITHOUT_WORKER = "units_without_worker"
    OUTBOX_STUCK = "outbox_stuck"
    TOPIC_ASIDE = "topic_aside"
    FENCE_OPEN = "fence_open"
    FENCE_WITHOUT_WORKER = "fence_without_worker"
    POSITION_AHEAD = "position_ahead"
    NOT_LOOKED_AT = "not_looked_at"


class Advice(NamedTuple):
    """What a discrepancy means, and what a person does about it."""

    meaning: str
    remedy: str


_BY_HAND: Final = (
    "Compare the rows with the unit's outcome and its undo record, put the stores right by hand,"
    " and find out who touched the bookkeeping."
)
_LOST_TAIL: Final = (
    "The journal has lost its end (a failover without synchronous replication, a restored backup)."
)

ADVICE: Final[Mapping[Kind, Advice]] = MappingProxyType(
    {
        Kind.COMMITTED_IN_PART: Advice(
            "The unit is committed, but this store says that its branch was undone or never came.",
            _BY_HAND,
        ),
        Kind.ENDED_BUT_APPLIED: Advice(
            "The unit ended without effect, but this store still holds what it wrote.", _BY_HAND
        ),
        Kind.UNDONE_BEFORE_ITS_TIME: Advice(
            "This store has undone the unit or blocks it, though the journal never turned it back.",
            f"{_LOST_TAIL} Or somebody wrote into the bookkeeping. Cancel the unit"
            " (`coordinator units cancel`), then look at its rows.",
        ),
        Kind.RECORD_MISSING: Advice(
            "The undo record that proves what happened to this branch is not there.",
            "The store was restored from an older backup or lost a tail: its data of that time is"
            " gone as well. Restore it, or compare its rows with the change events.",
        ),
        Kind.RECORD_WITHOUT_UNIT: Advice(
            "This store holds the effect or the tombstone of a unit unknown to the journal.",
            f"{_LOST_TAIL} What the record calls applied happened here and perhaps nowhere else:"
            " look at its before-images, undo or complete it by hand, then delete the record.",
        ),
        Kind.RECORD_OF_OTHER_CONTENT: Advice(
            "The undo record under this id is of a unit with other content.",
            f"{_LOST_TAIL} The id was used again since. Treat the record as one without a unit.",
        ),
        Kind.RECORD_AFTER_SWEEP: Advice(
            "The unit's undo records were swept, but here is one: its branch may have been applied"
            " a second time, or the store was set back.",
            _BY_HAND,
        ),
        Kind.RECORD_OUT_OF_PLACE: Advice(
            "This store holds an undo record of a unit that has no branch here.",
            "Two stores of the configuration may point at one database, or were swapped.",
        ),
        Kind.LOCK_WITHOUT_UNIT: Advice(
            "A lock belongs to no unit; all later units on its key wait for ever.",
            "Stop the daemons, delete the row from coordinator.locks, start them again.",
        ),
        Kind.LOCK_OF_FINAL_UNIT: Advice(
            "A lock belongs to a unit that has ended; all later units on its key wait for ever.",
            "Stop the daemons, delete the row from coordinator.locks, start them again.",
        ),
        Kind.LOCK_MISSING: Advice(
            "An open unit does not hold all the locks of its plan; another may overtake it (I5).",
            "Cancel the unit (`coordinator units cancel`) and submit it again under a new id.",
        ),
        Kind.UNITS_WITHOUT_WORKER: Advice(
            "Open units belong to a worker whose lease has run out, and nobody took them over.",
            "Start a daemon. If one runs, `/readyz` and the log event takeover.waiting name the"
            " store that it cannot reach.",
        ),
        Kind.OUTBOX_STUCK: Advice(
            "Outcomes and change events wait in the journal; Kafka has not taken them.",
            "Start a daemon; if one runs, look at Kafka and at the relay's log events.",
        ),
        Kind.TOPIC_ASIDE: Advice(
            "A topic refuses messages; they wait in order in the journal.",
            "See what the topic refuses (rights, size, that it exists) in the log event"
            " relay.topic_set_aside. A name that ends with #too-large: raise the topic's"
            " max.message.bytes, then put the rows back under the topic's name.",
        ),
        Kind.FENCE_OPEN: Advice(
            "The journal says that this worker is fenced at this store, but its fence is open: a"
            " process that comes back could still write.",
            "The store was restored or lost a tail. End that process if it lives, then set the"
            " fence document or row to fenced.",
        ),
        Kind.FENCE_WITHOUT_WORKER: Advice(
            "This store knows a worker of this journal that the journal does not know.",
            f"{_LOST_TAIL} Look for undo records without a unit as well.",
        ),
        Kind.POSITION_AHEAD: Advice(
            "The journal's position is behind the end of the topic's partition: the topic was made"
            " anew or has lost records, and new ones would be passed over.",
            "Stop the daemons, see which records are not journaled, and set next_offset in"
            " coordinator.positions back to where they begin; ids protect from repeats.",
        ),
        Kind.NOT_LOOKED_AT: Advice(
            "This could not be looked at, so nothing is proved about it.",
            "Make it reachable and verify again.",
        ),
    }
)


class Discrepancy(NamedTuple):
    """Something that does not agree. ``kind`` and the names say what; equal ones are the same."""

    kind: Kind
    unit: str | None = None
    store: str | None = None
    subject: str | None = None
    """A lock, a worker, a topic's partition: what it is about where it is no unit."""

    def as_json(self, detail: str = "") -> dict[str, Any]:
        """Give it as the command shows it."""
        advice = ADVICE[self.kind]
        return {
            "kind": self.kind.value,
            "unit": self.unit,
            "store": self.store,
            "subject": self.subject,
            "detail": detail,
            "meaning": advice.meaning,
            "remedy": advice.remedy,
        }


class UnitFacts(NamedTuple):
    """A unit as the journal has it. ``stores``: those that have a branch and an undo record of it.

    ``final_seconds`` is how long it has been final, on the journal's clock; None while it is not.
    ``by_hand``: a person has resolved it, without undoing what a store still calls applied.
    """

    seq: int
    id: str
    digest: str
    status: Status
    stores: tuple[str, ...]
    final_seconds: float | None
    swept: bool
    by_hand: bool

    def is_as_before(self, other: UnitFacts | None) -> bool:
        """Whether nothing but the time has changed between two looks."""
        return other is not None and self._replace(final_seconds=other.final_seconds) == other


class RecordFacts(NamedTuple):
    """An undo record or tombstone as a store has it."""

    unit: str
    digest: str
    state: str


class LockFacts(NamedTuple):
    """A lock, and its unit's status at the same moment; None when there is no such unit."""

    entity: str
    key: str
    seq: int
    status: Status | None


class WorkerFacts(NamedTuple):
    """A worker as the journal has it; ``fenced_at``: stores where it is fenced for good."""

    number: int
    fenced_at: frozenset[str]


class FenceFacts(NamedTuple):
    """A fence at a store; lane -1 is the worker itself."""

    worker: int
    lane: int
    fenced: bool


_SETTLED: Final = FINAL_STATUSES | {Status.PARKED}


def judge_branch(
    store: str,
    unit_id: str,
    unit: UnitFacts | None,
    record: RecordFacts | None,
    undo_retention_seconds: float,
) -> tuple[Discrepancy, str] | None:
    """Compare a unit with its undo record at one store; both as they were at one moment."""
    judged = _judge_branch(store, unit, record, undo_retention_seconds)
    if judged is None:
        return None
    kind, detail = judged
    return Discrepancy(kind, unit_id, store), detail


def _judge_branch(
    store: str, unit: UnitFacts | None, record: RecordFacts | None, undo_retention_seconds: float
) -> tuple[Kind, str] | None:
    if unit is None:
        if record is None:
            return None
        return Kind.RECORD_WITHOUT_UNIT, f"its undo record is {record.state}"
    said = f"the journal says {unit.status.value}"
    if record is None:
        if store in unit.stores and _must_be_there(unit, undo_retention_seconds):
            return Kind.RECORD_MISSING, f"{said}, and there is no undo record"
        return None
    told = f"{said}, the undo record {record.state}"
    if record.digest != unit.digest:
        return Kind.RECORD_OF_OTHER_CONTENT, told
    if store not in unit.stores:
        return Kind.RECORD_OUT_OF_PLACE, told
    if unit.swept:
        return Kind.RECORD_AFTER_SWEEP, told
    kind = _contradiction(unit, record.state)
    return None if kind is None else (kind, told)


def _must_be_there(unit: UnitFacts, undo_retention_seconds: float) -> bool:
    """Whether a branch must have its undo record.

    A rejected unit may never have been applied anywhere; an open one may not have come so far.
    """
    if unit.swept or unit.status not in _SETTLED or unit.status is Status.REJECTED:
        return False
    return unit.final_seconds is None or unit.final_seconds < undo_retention_seconds


def _contradiction(unit: UnitFacts, state: str) -> Kind | None:
    match unit.status:
        case Status.COMMITTED if state != APPLIED:
            return Kind.COMMITTED_IN_PART
        case Status.ACCEPTED if state != APPLIED:
            return Kind.UNDONE_BEFORE_ITS_TIME
        case Status.REJECTED | Status.COMPENSATED if state == APPLIED and not unit.by_hand:
            return Kind.ENDED_BUT_APPLIED
    return None


def judge_lock(lock: LockFacts) -> tuple[Discrepancy, str] | None:
    """Say whether a lock belongs to nobody who may hold one."""
    subject = f"{lock.entity} {lock.key} of seq {lock.seq}"
    if lock.status is None:
        return Discrepancy(Kind.LOCK_WITHOUT_UNIT, subject=subject), "there is no unit of this seq"
    if lock.status in FINAL_STATUSES:
        detail = f"its unit is {lock.status.value}"
        return Discrepancy(Kind.LOCK_OF_FINAL_UNIT, subject=subject), detail
    return None


def judge_fences(
    store: str,
    before: Mapping[int, WorkerFacts],
    fences: Collection[FenceFacts],
    after: Mapping[int, WorkerFacts],
) -> Iterator[tuple[Discrepancy, str]]:
    """Compare fences with the workers as they were before and after the fences were read."""
    unknown: set[int] = set()
    still_open: set[int] = set()
    for fence in fences:
        if fence.lane < WORKER_LANE:
            continue
        worker = before.get(fence.worker)
        if worker is None and fence.worker not in after:
            unknown.add(fence.worker)
        elif worker is not None and store in worker.fenced_at and not fence.fenced:
            still_open.add(fence.worker)
    for number in sorted(unknown):
        subject = f"worker {number}"
        yield Discrepancy(Kind.FENCE_WITHOUT_WORKER, store=store, subject=subject), ""
    for number in sorted(still_open):
        yield Discrepancy(Kind.FENCE_OPEN, store=store, subject=f"worker {number}"), ""
