"""What happened to one simulated world, as the databases saw it: the evidence of all checkers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from coordinator.domain.decide import Image, ImageKey
from coordinator.domain.lifecycle import Status
from coordinator.memory.witness import RowWrite, Way
from coordinator.memory.world import World
from tests.simulation.kafka import Broker
from tests.simulation.submissions import Sending
from tests.simulation.worker import Worker


class Checker(Protocol):
    """Judges each change when it happens; `at_rest` modules judge the whole.

    A violation is told by ``history.fail``.
    """

    def wrote(self, history: History, write: RowWrite) -> None:
        """A row was changed."""

    def recorded(self, history: History, store: str, seq: int, state: str) -> None:
        """An undo record became ``applied``, ``undone`` or a ``tombstone``."""

    def decided(self, history: History, seq: int, before: Status | None, after: Status) -> None:
        """A unit's status was changed."""

    def changed(self, history: History, store: str, worker: int, what: str) -> None:
        """A worker's transaction changed something."""


class EachStep:
    """A checker that judges nothing; others override what concerns them."""

    def wrote(self, history: History, write: RowWrite) -> None:
        pass

    def recorded(self, history: History, store: str, seq: int, state: str) -> None:
        pass

    def decided(self, history: History, seq: int, before: Status | None, after: Status) -> None:
        pass

    def changed(self, history: History, store: str, worker: int, what: str) -> None:
        pass


@dataclass(slots=True)
class History:
    """Implements `coordinator.memory.witness.Witness`, and remembers what the checkers need."""

    checkers: Sequence[Checker]
    fail: Callable[[str], None]
    by_key: dict[ImageKey, list[RowWrite]] = field(default_factory=dict)
    forward: dict[int, list[RowWrite]] = field(default_factory=dict)
    undone: dict[int, list[RowWrite]] = field(default_factory=dict)
    records: dict[int, dict[str, list[str]]] = field(default_factory=dict)
    fences: set[tuple[str, int]] = field(default_factory=set)
    by_hand: set[int] = field(default_factory=set)
    stranger_writes: int = 0
    in_turn: dict[tuple[int, int], Image | None] = field(default_factory=dict)
    """What each write left when all units are replayed one after the other, by seq and position."""
    counting: dict[int, frozenset[ImageKey]] = field(default_factory=dict)
    world: World | None = None

    @property
    def units(self) -> Mapping[int, Status]:
        """The statuses in the journal, by seq."""
        assert self.world is not None
        return {seq: row.status for seq, row in self.world.journal.units.items()}

    def status(self, seq: int) -> Status | None:
        """A unit's status in the journal; None for one that is not there."""
        assert self.world is not None
        row = self.world.journal.units.get(seq)
        return None if row is None else row.status

    def stands_applied(self, seq: int, store: str) -> bool:
        """Whether a branch was applied at this store and never undone."""
        states = self.records.get(seq, {}).get(store, ())
        return "applied" in states and "undone" not in states

    def only_counts(self, seq: int, at: ImageKey) -> bool:
        """Whether a unit does nothing to a key but count it, so that it may share it."""
        assert self.world is not None
        known = self.counting.get(seq)
        if known is None:
            locks = self.world.unit_of(self.world.journal.units[seq]).plan.locks
            known = frozenset((each.entity, each.key_text) for each in locks if each.increment)
            self.counting[seq] = known
        return at in known

    # --- the witness ----------------------------------------------------------------------------

    def wrote(self, write: RowWrite) -> None:
        for checker in self.checkers:
            checker.wrote(self, write)
        self.by_key.setdefault(write.at, []).append(write)
        if write.way is Way.FORWARD:
            self.forward.setdefault(write.seq, []).append(write)
        elif write.way is Way.UNDO:
            self.undone.setdefault(write.seq, []).append(write)
        else:
            self.stranger_writes += 1

    def recorded(self, store: str, worker: int, seq: int, state: str) -> None:
        for checker in self.checkers:
            checker.recorded(self, store, seq, state)
            checker.changed(self, store, worker, state)
        self.records.setdefault(seq, {}).setdefault(store, []).append(state)

    def changed(self, store: str, worker: int, what: str) -> None:
        for checker in self.checkers:
            checker.changed(self, store, worker, what)

    def fenced(self, store: str, worker: int) -> None:
        self.fences.add((store, worker))

    def decided(self, seq: int, before: Status | None, after: Status) -> None:
        for checker in self.checkers:
            checker.decided(self, seq, before, after)

    def swept(self, store: str, unit_id: str) -> None:
        assert self.world is not None
        seq = self.world.journal.ids.get(unit_id)
        row = None if seq is None else self.world.journal.units[seq]
        if row is None or row.is_open:
            self.fail(f"rule 10: the undo record of {unit_id} was swept before the unit was final")


@dataclass(frozen=True, slots=True)
class Rest:
    """The world when nothing moves any more."""

    world: World
    broker: Broker
    history: History
    sent: Sequence[tuple[Sending, int]]
    """What was sent, with its offset."""
    alive: Sequence[Worker]
    workers: Sequence[Worker]
    first_rows: Mapping[ImageKey, Image]
