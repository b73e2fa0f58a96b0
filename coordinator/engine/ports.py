"""What the engine asks of the world. One method is one transaction.

Each docstring says what is durable when the method returns and what is true if it raises. All
methods may raise `StoreUnavailable` (nothing was done), `ResultUnknown` (I11: it may be done, or
may still happen; the connection has been thrown away) and `Fenced` (nothing was done, and never
will be again by this worker). Time-outs are set inside the drivers; callers never cancel.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.domain.errors import ErrorCode, Problem
from coordinator.domain.lifecycle import Status
from coordinator.domain.operation import Origin, Unit
from coordinator.domain.preview import NOTHING_SEEN, Loaded, Preview
from coordinator.domain.publishing import Done, Message
from coordinator.domain.submission import Submission
from coordinator.engine.bounds import Backlog, Bound

JOURNAL = "journal"
"""The name under which errors and health speak of the journal's own database."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a batch at one participant.

    ``done``: the branch is durably applied, by this call or an earlier one (then as its undo
    record tells, rule 7). ``refused``: decided against under the lock; nothing of it is applied.
    ``failing``: the store refused its writes by themselves; nothing of it is applied.
    ``blocked``: a tombstone stands there; the unit is being compensated. ``busy``: an outsider
    holds a row of it; nothing of it is applied, try again. ``behind``: it shares a key with an
    earlier unit of the call that is not applied, or whose end decides about it; nothing of it is
    applied, try again once that one has ended.
    """

    done: Mapping[int, tuple[Done, ...]]
    refused: Mapping[int, Problem] = field(default_factory=dict)
    failing: Mapping[int, Problem] = field(default_factory=dict)
    blocked: frozenset[int] = frozenset()
    busy: frozenset[int] = frozenset()
    behind: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Undone:
    """What the compensation of one unit's branch found.

    ``wrote``: the branch had been applied and had written something, and that is undone now (or
    was before). ``problem`` is set when a person is needed (`foreign_write`, `undo_failed`):
    then the branch is untouched as a whole (F29).
    """

    wrote: bool
    problem: Problem | None = None


class Participant(Protocol):
    """One store that is not the journal's: it applies and undoes branches.

    ``lane`` is a small number, stable per engine lane: transactions of different lanes write
    different fence documents and so never collide (rule 3).
    """

    @property
    def store(self) -> str:
        """The store's name in the configuration."""

    async def load(self, units: Sequence[Unit]) -> Loaded:
        """Read the images of all keys of these units' branches here, without locks. Read only."""

    async def apply(
        self, lane: int, units: Sequence[Unit], preview: Preview = NOTHING_SEEN
    ) -> Applied:
        """Apply the branches in one transaction, with an undo record per unit.

        Returns: what is durable, by ``seq``. Raises `BatchRefused` when the store refused a
        write and `StoreBusy` when an outsider held something and the store did not tell whose
        it was: nothing of the batch is applied by this call.

        Units that share a key stand in the order of admission, and every one of them that is
        not final, nor `compensating`, and was admitted before another of the call is in it too.
        """

    async def compensate(self, lane: int, units: Sequence[Unit]) -> Mapping[int, Undone]:
        """Undo the branches in one transaction; plant a tombstone where nothing was applied.

        Returns: by ``seq``; units that are missing in it were busy, try again. After it returns
        no late apply of these units can succeed here. Running it again changes nothing more.
        Raises `BatchRefused` when an undo was refused: nothing was undone by this call.
        """

    async def enrol(self, worker: int, lanes: int) -> None:
        """Make this worker's fences, not yet fenced. Idempotent."""

    async def fence(self, worker: int) -> None:
        """Fence another worker: when this returns, no transaction of it can commit here (I9)."""

    async def sweep(self, unit_ids: Sequence[str]) -> None:
        """Delete the undo records and tombstones of units that are final for long."""

    async def forget_workers(self, workers: Collection[int]) -> None:
        """Delete the fences of workers that were fenced long ago.

        A worker without a fence is refused like a fenced one, and whoever has the highest of these
        numbers or a lower one cannot enrol any more.
        """

    async def ping(self) -> None:
        """Answer if the store is reachable and writable."""

    async def close(self) -> None:
        """Let connections go, in bounded time."""


class Candidate(NamedTuple):
    """A unit that goes to the pivot: applied everywhere else, as ``done`` says."""

    unit: Unit
    done: tuple[Done, ...]
    in_doubt: bool
    """Whether an apply was sent anywhere else: a refusal then is a compensation (rule 1)."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A unit that is refused. ``in_doubt``: an apply may have been sent (rule 1)."""

    unit: Unit
    problem: Problem
    in_doubt: bool


@dataclass(frozen=True, slots=True)
class Concluded:
    """What a journal transaction decided, by ``seq``.

    ``ended``: final, by this call or found so (then an earlier call, whose reply was lost, did
    it), with the problem if there is one. ``compensating``: durable, to be undone now, with the
    cause. ``parked``: waits for a person. ``failing``: untouched; the store refused its writes by
    themselves, after all earlier units of this call that are not busy. ``busy``: untouched, try
    again. ``behind``: untouched, because it shares a key with an earlier one of this call that is
    still open; try again once that one has ended. ``lost``: not ours.
    """

    ended: Mapping[int, tuple[Status, Problem | None]] = field(default_factory=dict)
    compensating: Mapping[int, Problem] = field(default_factory=dict)
    parked: Mapping[int, Problem] = field(default_factory=dict)
    failing: Mapping[int, Problem] = field(default_factory=dict)
    busy: frozenset[int] = frozenset()
    behind: frozenset[int] = frozenset()
    lost: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a compensation: ``wrote`` makes it `compensated`, else `rejected` (F6)."""

    unit: Unit
    cause: Problem
    wrote: bool
    problem: Problem | None = None
    """Set when a person is needed: the unit is parked instead."""


class Pivot(Protocol):
    """The journal's side of execution."""

    async def load(self, units: Sequence[Unit]) -> Loaded:
        """Read the images of the journal store's branches, without locks. Read only."""

    async def conclude(
        self,
        candidates: Sequence[Candidate],
        refusals: Sequence[Refusal],
        preview: Preview = NOTHING_SEEN,
    ) -> Concluded:
        """Commit what can be committed and refuse the rest, in one journal transaction.

        Durable on return: for each committed unit its data, status, outcome and events, and its
        locks are gone; refused ones are rejected (with outcome) or compensating. Raises
        `BatchRefused` or `StoreBusy` when a data write failed: nothing is changed by this call.
        """

    async def settle(self, units: Sequence[Unit]) -> Concluded:
        """Say which of these units are not `accepted` any more (I11). Changes nothing.

        Waits for a transaction of ours that is still on its way, so that the answer holds.
        """

    async def finish(self, endings: Sequence[Ending]) -> Concluded:
        """End compensations in one journal transaction: status, outcome, locks released."""


@dataclass(frozen=True, slots=True)
class Record:
    """One Kafka record as it was read: nothing in it has been looked at."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


Partition = tuple[str, int]
"""(topic, partition number)."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """A worker is about to read a partition from ``offset`` on.

    ``expected`` is the journal's next offset as it knows it, for the compare-and-set.
    """

    partition: Partition
    expected: int | None
    offset: int


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What the journal holds against the record at which reading begins.

    ``stood``: workers that stood here and never let the partition go: they died, or are frozen.
    ``marked``: those of them that had marked this very offset, so were about to touch it.
    ``setting_aside``: those of the marked that died while they set it aside. ``undecided``: those
    whose lease has not run out yet, so that they may be alive.
    """

    stood: int = 0
    marked: int = 0
    setting_aside: int = 0
    undecided: int = 0


class Intake(Protocol):
    """What the Kafka intake asks of the engine and the journal."""

    async def positions(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """Read the journal's next offsets; a partition never read before is missing."""

    async def begin_reading(
        self, offsets: Mapping[Partition, int]
    ) -> Mapping[Partition, Suspicion]:
        """Journal that this worker reads from there on, and tell what is known of the place.

        A partition whose position is not the one last told by `positions` is missing.
        """

    async def mark(self, partition: Partition, offset: int, *, setting_aside: bool) -> bool:
        """Journal that the record there is about to be touched; durable on return.

        False when another worker has begun to read the partition: it must not be touched.
        """

    async def set_aside(
        self, record: Record, next_offset: int, message: str, code: ErrorCode = ErrorCode.MALFORMED
    ) -> bool:
        """Journal a record as a dead letter without looking into it, and go on behind it.

        False when the position was not ours any more: nothing was done.
        """

    async def release(self, partitions: Collection[Partition]) -> None:
        """Journal that this worker reads them no more and is well: nobody is to be suspected."""

    async def admit(self, records: Sequence[Record]) -> frozenset[Partition]:
        """Journal the records, in their order per partition, and take them in.

        Durable on return: intents, positions and the refusals' answers. Returns the partitions
        whose position was not ours any more: their records were dropped, seek again.
        """

    def bound(self) -> Bound | None:
        """Which bound the backlog has reached: nothing more may be read meanwhile."""

    def backlog(self) -> Backlog:
        """How much is open."""

    def allowances(self, topics: Collection[str]) -> Mapping[str, int]:
        """How many records of these topics may be read now; one that is missing has no pace."""


class Outbox(Protocol):
    """What the relay asks of the journal."""

    async def hold_lease(self) -> bool:
        """Take or renew the relay's lease; whether it is ours until its TTL has passed."""

    async def release_lease(self) -> None:
        """Let the relay's lease expire now if it is ours, so that another relay goes on at once."""

    async def claim(
        self, rows_max: int, skip: Collection[int] = ()
    ) -> Sequence[tuple[int, Sequence[Message]]]:
        """Read the oldest outbox rows (id, messages) in id order. They stay until deleted.

        ``skip`` are rows that the relay has in flight. They are skipped by id and not by "greater
        than the last": a transaction that commits late may add a lower id (H21).
        """

    async def delete(self, rows: Sequence[int]) -> None:
        """Delete rows whose messages were all acknowledged or set aside."""

    async def set_aside(self, topic: str, messages: Sequence[Message]) -> None:
        """Keep messages of a topic that refuses, in their order, under that topic's own queue.

        Their rows stay until they are deleted: a crash in between sets them aside twice.
        """

    async def claim_aside(self, topic: str, limit: int) -> Sequence[tuple[int, Message]]:
        """Read the oldest messages that were set aside for a topic, in order."""

    async def delete_aside(self, ids: Sequence[int]) -> None:
        """Delete set-aside messages that were acknowledged."""

    async def topics_aside(self) -> frozenset[str]:
        """The topics that have messages set aside."""


# --- admission and the journal's other duties -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Move:
    """One partition's position moves on by compare-and-set.

    ``expected`` is the last known next offset (None: never read before), ``answers`` what is to
    be published if, and only if, the position moves: dead letters and early refusals.
    """

    partition: Partition
    expected: int | None
    next_offset: int
    answers: tuple[Message, ...] = ()


class Arrival(NamedTuple):
    """A valid submission, where it came from, and the length of its record's value."""

    submission: Submission
    origin: Origin
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class CancelArrival:
    """A cancel; ``after`` is how many arrivals stand before it in the batch.

    ``topics`` are those whose units it may end; a unit of another topic is unknown to it. None
    means any.
    """

    unit_id: str
    reason: str | None
    reply_to: str | None
    after: int
    origin: Origin
    topics: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class AdmissionBatch:
    """What one admission journals, in the order of the records."""

    moves: tuple[Move, ...]
    arrivals: tuple[Arrival, ...]
    cancels: tuple[CancelArrival, ...]


@dataclass(frozen=True, slots=True)
class Admitted:
    """What an admission did. ``at`` is the journal's clock.

    ``elsewhere``: the ``seq`` of units that wait for another worker's. ``cancelled``: the ``seq``
    of our own units that a cancel of this batch has marked. ``ignored`` and ``unknown``: ids that
    a cancel could not touch. ``forbidden``: cancels of units that are none of their topic's.
    """

    at: datetime
    lost: frozenset[Partition]
    units: tuple[Unit, ...]
    elsewhere: frozenset[int]
    newcomers: int
    cancelled: tuple[int, ...]
    ignored: tuple[str, ...]
    unknown: tuple[str, ...]
    forbidden: tuple[CancelArrival, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenUnit:
    """An open unit read back from the journal: by a takeover, or after a person's verb."""

    unit: Unit
    status: Status
    cause: Problem | None
    cancel_reason: str | None


class Journal(Protocol):
    """The journal's side of admission and of the worker's duties."""

    async def positions(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """Read the next offsets; a partition never read before is missing."""

    async def admit(self, batch: AdmissionBatch, mapping: EntityMapping) -> Admitted:
        """Journal a batch: units with plans and locks, cancels, positions, answers (I1)."""

    async def begin_reading(self, beginnings: Sequence[Beginning]) -> Mapping[Partition, Suspicion]:
        """Journal where this worker begins to read; see `Intake.begin_reading`."""

    async def mark_reading(self, partition: Partition, offset: int, *, setting_aside: bool) -> bool:
        """Mark what is about to be touched, by compare-and-set; see `Intake.mark`."""

    async def release_reading(self, partitions: Collection[Partition]) -> None:
        """Forget that this worker reads these partitions."""

    async def still_elsewhere(self, seqs: Collection[int]) -> frozenset[int]:
        """Which of these units still wait for another worker's."""

    async def cancel_requests(self) -> Mapping[int, str]:
        """Our accepted units whose cancel was asked for: ``seq`` → reason, maybe empty."""

    async def reopened(self, known_parked: Collection[int]) -> Sequence[OpenUnit | int]:
        """What persons did to our parked units: the unit again if retried, its seq if ended."""

    async def answer_newcomers(self, limit: int) -> int:
        """Answer duplicates whose unit is final, and reused ids; how many were answered."""

    async def unswept(
        self, age_seconds: float, limit: int, stores: Collection[str]
    ) -> Sequence[tuple[str, Sequence[str]]]:
        """Units final for that long whose undo records are not swept: (id, stores).

        Only those that need none but these stores: others must not stand in their way.
        """

    async def swept(self, unit_ids: Sequence[str]) -> None:
        """Every participant has confirmed the sweep of these units."""

    async def forget(self, retention_days: float, limit: int) -> int:
        """Delete swept units that are final for longer than the retention; how many.

        None that an admission is about to find as the first of a duplicate (F4).
        """

    async def forget_history(self, retention_days: float, limit: int) -> None:
        """Delete what persons did before the retention, and mappings that nobody needs."""

    async def buried(self, age_days: float, limit: int) -> Sequence[int]:
        """Workers that were fenced so long ago and have nothing left to take over."""

    async def forget_workers(self, workers: Collection[int]) -> None:
        """Delete all that is left of buried workers; their absence refuses them as well (I9)."""


class Workers(Protocol):
    """Leases and takeovers (DESIGN 5)."""

    @property
    def worker(self) -> int:
        """This worker's number; never used again."""

    async def beat(self) -> datetime:
        """Renew the lease by its TTL from now; give the journal's time; `Fenced` if it is lost."""

    async def leave(self) -> None:
        """Let go of every partition, and the lease expire now: another takes over at once."""

    async def expired(self) -> Sequence[int]:
        """Workers whose lease has expired and that still have something to take over."""

    async def fence(self, worker: int) -> bool:
        """Fence it in the journal: on True it changes nothing there any more.

        False when its lease was renewed in the meantime.
        """

    async def fenced_stores(self, worker: int) -> frozenset[str]:
        """The stores at which a takeover has fenced this worker already."""

    async def record_fenced(self, worker: int, store: str) -> None:
        """Remember that it is fenced at this store (rule 6: takeover is resumable)."""

    async def take_over(self, worker: int, stores: Collection[str]) -> Sequence[OpenUnit]:
        """Make a fenced worker's open units ours, those that need none but these stores."""

    async def ours(self) -> Sequence[OpenUnit]:
        """Read this worker's own open units; `Fenced` if they are ours no more."""

    async def bury(self, worker: int) -> bool:
        """Forget the lease of a fenced worker that has no open unit left; whether it was so."""
