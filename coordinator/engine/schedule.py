"""Which of this worker's units run next: the waiting, the ready, the set aside.

It owns what the worker knows of its open units between two journal transactions, and nothing
durable: after a crash another worker builds it again from the journal (recovery is
re-execution). It does no I/O and reads no clock; ``now`` is the caller's monotonic clock in
seconds.

A unit is *held back* for any of: an earlier claim on one of its keys (`LockQueues`), a claim of
another worker's unit, a store that is away, a pause after an outsider was in its way, or units of
its batch that must end first (rule 9). What is held back by nothing is *ready*, and `take` gives
the ready in the order of admission, and with them the sharers that wait for nobody else.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto

from coordinator.domain.errors import Problem
from coordinator.domain.operation import Unit
from coordinator.engine.locks import LockQueues
from coordinator.engine.ports import JOURNAL

_STALE_DEADLINES_MAX = 1000
"""Deadlines of units that have ended are dropped when there are more of them than of others."""


class Phase(Enum):
    """What is to be done with an open unit next."""

    EXECUTE = auto()
    REFUSE = auto()
    COMPENSATE = auto()
    PARKED = auto()


@dataclass(slots=True, eq=False)
class Entry:
    """One open unit of ours.

    ``in_doubt``: an apply may have been sent, in this or an earlier attempt (rule 1).
    ``problem``: why it is refused, or the cause of its compensation. ``after``: units that must
    end before it is tried again, then alone (rule 9). ``unsettled``: what we know of its status
    may be out of date, the journal's row is asked before anything is applied. Times are
    monotonic seconds.
    """

    unit: Unit
    deadline: float
    phase: Phase = Phase.EXECUTE
    in_doubt: bool = False
    problem: Problem | None = None
    running: bool = False
    unsettled: bool = False
    elsewhere: bool = False
    alone: bool = False
    after: set[int] = field(default_factory=set)
    not_before: float = 0.0
    attempts: int = 0

    @property
    def stores(self) -> Iterable[str]:
        """The stores that this unit touches."""
        return self.unit.plan.branches.keys()


@dataclass(frozen=True, slots=True)
class Batch:
    """What a lane does next: entries of one phase, in the order of admission."""

    phase: Phase
    entries: tuple[Entry, ...]


class Schedule:
    """The open units of this worker. ``weight_bytes`` is about what they take in memory."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._locks = LockQueues()
        self._ready: dict[Phase, list[int]] = {phase: [] for phase in Phase}
        self._queued: set[int] = set()
        self._pauses: list[tuple[float, int]] = []
        self._deadlines: list[tuple[float, int]] = []
        self._followers: dict[int, set[int]] = {}
        self._away: set[str] = set()
        self._held_by_store: set[int] = set()
        self.weight_bytes = 0
        self._ended_meanwhile: set[int] | None = None
        self.elsewhere: set[int] = set()
        self.parked: set[int] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, seq: int) -> bool:
        return seq in self._entries

    def get(self, seq: int) -> Entry | None:
        """The entry of an open unit of ours, if it is one."""
        return self._entries.get(seq)

    @property
    def running(self) -> int:
        """How many units are in a lane's hands."""
        return sum(1 for entry in self._entries.values() if entry.running)

    def oldest(self) -> Unit | None:
        """The open unit that was admitted first, without the parked; looks at each."""
        seq = min((each for each in self._entries if each not in self.parked), default=None)
        return None if seq is None else self._entries[seq].unit

    # --- coming and going ---------------------------------------------------------------------

    def add(self, entry: Entry) -> None:
        """Take an admitted or taken-over unit in. Units come in the order of ``seq`` or older."""
        seq = entry.unit.seq
        self._entries[seq] = entry
        self.weight_bytes += entry.unit.weight_bytes
        self._locks.claim(seq, entry.unit.plan.locks)
        if entry.elsewhere:
            self.elsewhere.add(seq)
        if entry.phase is Phase.PARKED:
            self.parked.add(seq)
            return
        heapq.heappush(self._deadlines, (entry.deadline, seq))
        if len(self._deadlines) > 2 * len(self._entries) + _STALE_DEADLINES_MAX:
            self._deadlines = [pair for pair in self._deadlines if pair[1] in self._entries]
            heapq.heapify(self._deadlines)
        self._offer(entry)

    def end(self, seq: int) -> None:
        """Forget a unit that is final (or not ours any more), and let its followers go."""
        if self._ended_meanwhile is not None:
            self._ended_meanwhile.add(seq)
        ended = self._entries.pop(seq, None)
        if ended is None:
            return
        self.weight_bytes -= ended.unit.weight_bytes
        self._queued.discard(seq)
        self.elsewhere.discard(seq)
        self.parked.discard(seq)
        self._held_by_store.discard(seq)
        for freed in self._locks.release(seq):
            self._offer(self._entries[freed])
        self._let_followers_go(seq)

    def _let_followers_go(self, seq: int) -> None:
        for follower in self._followers.pop(seq, ()):
            entry = self._entries.get(follower)
            if entry is not None:
                entry.after.discard(seq)
                self._offer(entry)

    @contextmanager
    def noting_ends(self) -> Iterator[set[int]]:
        """Give the units that end while the journal is being read: the reading may show them open.

        One at a time.
        """
        self._ended_meanwhile = ended = set[int]()
        try:
            yield ended
        finally:
            self._ended_meanwhile = None

    # --- what a lane reports back -------------------------------------------------------------

    def again(self, entry: Entry, *, not_before: float = 0.0) -> None:
        """Put a unit back; it is tried again, not before the given time."""
        entry.running = False
        entry.attempts += 1
        entry.not_before = not_before
        self._offer(entry)

    def alone_after(self, entry: Entry, others: Collection[int]) -> None:
        """Put a unit back, to be tried alone after those others have ended (rule 9)."""
        entry.alone = True
        entry.after = {seq for seq in others if seq in self._entries and seq != entry.unit.seq}
        for seq in entry.after:
            self._followers.setdefault(seq, set()).add(entry.unit.seq)
        self.again(entry)

    def refuse(self, entry: Entry, problem: Problem) -> None:
        """The unit shall not go on: its refusal is to be journaled."""
        entry.phase = Phase.REFUSE
        entry.problem = problem
        entry.running = False
        entry.not_before = 0.0
        entry.after = set()
        self._queued.discard(entry.unit.seq)
        self._offer(entry)

    def compensate(self, entry: Entry, cause: Problem) -> None:
        """The unit is durably compensating: its branches are to be undone."""
        entry.phase = Phase.COMPENSATE
        entry.problem = cause
        entry.running = False
        entry.not_before = 0.0
        entry.after = set()
        self.parked.discard(entry.unit.seq)
        self._queued.discard(entry.unit.seq)
        self._offer(entry)

    def park(self, entry: Entry) -> None:
        """The unit waits for a person, its locks kept; units of its batch wait for it no more."""
        entry.phase = Phase.PARKED
        entry.running = False
        self.parked.add(entry.unit.seq)
        self._let_followers_go(entry.unit.seq)

    # --- what the world reports ---------------------------------------------------------------

    def store_away(self, store: str) -> None:
        """Hold back the units that need this store."""
        self._away.add(store)

    def store_back(self, store: str) -> None:
        """Let the units go that were held back for this store."""
        self._away.discard(store)
        held, self._held_by_store = self._held_by_store, set()
        for seq in held:
            self._offer(self._entries[seq])

    @property
    def away(self) -> frozenset[str]:
        """The stores that are away."""
        return frozenset(self._away)

    def no_longer_elsewhere(self, seqs: Iterable[int]) -> None:
        """These units wait for no other worker's units any more."""
        for seq in seqs:
            self.elsewhere.discard(seq)
            entry = self._entries.get(seq)
            if entry is not None:
                entry.elsewhere = False
                self._offer(entry)

    def overdue(self, now: float) -> list[Entry]:
        """The units whose deadline has passed while nobody works on them."""
        late: list[Entry] = []
        later: list[tuple[float, int]] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, seq = heapq.heappop(self._deadlines)
            entry = self._entries.get(seq)
            if entry is None or entry.phase is not Phase.EXECUTE:
                continue
            if entry.running:
                later.append((now + 0.5, seq))
            else:
                late.append(entry)
        for pair in later:
            heapq.heappush(self._deadlines, pair)
        return late

    def waits_for(self, entry: Entry) -> list[Entry]:
        """Our own units that hold what this one waits for."""
        return [self._entries[seq] for seq in self._locks.blockers(entry.unit.seq)]

    # --- taking -------------------------------------------------------------------------------

    def take(self, now: float, units_max: int) -> Batch | None:
        """Give the next batch; its units are the caller's until reported back."""
        if JOURNAL in self._away:
            return None
        while self._pauses and self._pauses[0][0] <= now:
            _, seq = heapq.heappop(self._pauses)
            entry = self._entries.get(seq)
            if entry is not None and not entry.running:
                self._offer(entry)
        for phase in (Phase.REFUSE, Phase.COMPENSATE, Phase.EXECUTE):
            taken = self._take_phase(phase, now, units_max)
            if taken:
                return Batch(phase, tuple(taken))
        return None

    def next_pause_ends(self) -> float | None:
        """When the next unit that was set aside wants to be tried again."""
        return self._pauses[0][0] if self._pauses else None

    def _take_phase(self, phase: Phase, now: float, units_max: int) -> list[Entry]:
        heap = self._ready[phase]
        taken: list[Entry] = []
        put_back: list[int] = []
        forward = phase is Phase.EXECUTE
        passing = self._locks.passing() if forward and heap else None
        sharers: set[int] = set()
        while heap and len(taken) < units_max:
            seq = heapq.heappop(heap)
            entry = self._entries.get(seq)
            if entry is None or entry.phase is not phase:
                continue
            if seq in self._queued and entry.alone and taken and forward:
                put_back.append(seq)
                continue
            if not (self._may_join if seq in sharers else self._may_go)(entry, now):
                continue
            entry.running = True
            taken.append(entry)
            if entry.alone and forward:
                break
            for other in () if passing is None else passing.take(seq):
                sharers.add(other)
                heapq.heappush(heap, other)
        for seq in put_back:
            heapq.heappush(heap, seq)
        return taken

    def _may_go(self, entry: Entry, now: float) -> bool:
        """Whether a ready unit may be taken now; if not, it is kept where it will be found."""
        seq = entry.unit.seq
        if seq not in self._queued:
            return False
        self._queued.discard(seq)
        if entry.not_before > now:
            heapq.heappush(self._pauses, (entry.not_before, seq))
            return False
        if self._needs_absent_store(entry):
            self._held_by_store.add(seq)
            return False
        return True

    def _may_join(self, entry: Entry, now: float) -> bool:
        """Whether a unit that waits for units of this batch only may be taken with them."""
        return (
            entry.phase is Phase.EXECUTE
            and not (entry.running or entry.elsewhere or entry.after or entry.alone)
            and entry.not_before <= now
            and not self._needs_absent_store(entry)
        )

    def _needs_absent_store(self, entry: Entry) -> bool:
        if not self._away or entry.phase is Phase.REFUSE:
            return False
        return any(store in self._away for store in entry.stores)

    def _offer(self, entry: Entry) -> None:
        seq = entry.unit.seq
        if entry.running or seq in self._queued or entry.phase is Phase.PARKED:
            return
        waiting = entry.elsewhere or entry.after or not self._locks.is_free(seq)
        if waiting and entry.phase is Phase.EXECUTE:
            return
        self._queued.add(seq)
        heapq.heappush(self._ready[entry.phase], seq)
