"""What the world tells a checker, beside what it answers its callers.

A witness sees every durable change at the moment when it happens, so that an invariant can be
judged from outside by what was done, and not by what the doer believes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from coordinator.domain.decide import Image, ImageKey
from coordinator.domain.lifecycle import Status


class Way(Enum):
    """Whose write it is."""

    FORWARD = auto()
    UNDO = auto()
    STRANGER = auto()


@dataclass(frozen=True, slots=True)
class RowWrite:
    """One row or document was changed. ``seq`` and ``worker`` are 0 for a stranger's write.

    ``position`` is that of the operation in its plan; for an undo that of the key's last one.
    ``written`` names the fields that were set or unset and not only incremented.
    """

    store: str
    worker: int
    seq: int
    position: int
    way: Way
    at: ImageKey
    before: Image | None
    after: Image | None
    written: frozenset[str] = frozenset()
    delta: int = 0


class Witness(Protocol):
    """One method per kind of change."""

    def wrote(self, write: RowWrite) -> None:
        """A row was changed."""

    def recorded(self, store: str, worker: int, seq: int, state: str) -> None:
        """An undo record became ``applied``, ``undone`` or a ``tombstone``."""

    def changed(self, store: str, worker: int, what: str) -> None:
        """A transaction of this worker changed something."""

    def fenced(self, store: str, worker: int) -> None:
        """From now on nothing of this worker may be changed here."""

    def decided(self, seq: int, before: Status | None, after: Status) -> None:
        """A unit's status in the journal was changed; ``before`` is None for its admission."""

    def swept(self, store: str, unit_id: str) -> None:
        """The undo record or tombstone of a unit is gone."""


class NoWitness:
    """Looks away."""

    def wrote(self, write: RowWrite) -> None:
        """Look away."""

    def recorded(self, store: str, worker: int, seq: int, state: str) -> None:
        """Look away."""

    def changed(self, store: str, worker: int, what: str) -> None:
        """Look away."""

    def fenced(self, store: str, worker: int) -> None:
        """Look away."""

    def decided(self, seq: int, before: Status | None, after: Status) -> None:
        """Look away."""

    def swept(self, store: str, unit_id: str) -> None:
        """Look away."""
