"""What the engine tells about itself: a port that logs and counts.

The engine calls it after the fact is durable and never waits for it; an observer must not raise.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from coordinator.domain.errors import Problem, StoreError
from coordinator.domain.lifecycle import Status
from coordinator.domain.operation import Origin, Unit
from coordinator.domain.submission import DeadLetter, RefusedCancel, RefusedEarly
from coordinator.engine.ports import Admitted


class Stage(StrEnum):
    """A step of a batch at one store; `COMPENSATION` at the journal is the end of one."""

    ADMISSION = "admission"
    LOAD = "load"
    APPLY = "apply"
    PIVOT = "pivot"
    COMPENSATION = "compensation"


class Observer(Protocol):
    """One method per kind of fact."""

    def received(self, records: int) -> None:
        """That many records were read and journaled, whatever became of each."""

    def admitted(self, admitted: Admitted) -> None:
        """A batch was journaled."""

    def pace_changed(self, topic: str, per_second: int, *, is_slow: bool) -> None:
        """More comes than may be taken in of a topic, or does so no more."""

    def refused_early(self, refused: RefusedEarly, origin: Origin) -> None:
        """A submission was refused before the journal (F2)."""

    def cancel_refused(self, refused: RefusedCancel, origin: Origin) -> None:
        """A cancel went beyond its authority; it is forgotten, and has no answer."""

    def dead_letter(self, letter: DeadLetter, origin: Origin) -> None:
        """A record could not be read as a unit."""

    def record_set_aside(self, origin: Origin, next_offset: int) -> None:
        """Records from there on, up to the next offset, were kept as dead letters unread."""

    def finished(self, unit: Unit, status: Status, problem: Problem | None) -> None:
        """A unit is final: the one canonical line."""

    def parked(self, unit: Unit, problem: Problem) -> None:
        """A unit waits for a person."""

    def compensating(self, unit: Unit, cause: Problem) -> None:
        """A unit is being undone."""

    def compensated(self, undone: int, untouched: int, parked: int) -> None:
        """Compensations have ended or are parked: how many of their branches ended how."""

    def set_aside(self, unit: Unit, why: str, attempts: int) -> None:
        """An outsider was in its way; it is tried again soon."""

    def store_away(self, store: str, reason: str) -> None:
        """A store does not answer; its units wait."""

    def store_back(self, store: str) -> None:
        """A store answers again."""

    def stage_done(self, stage: Stage, store: str, units: int, seconds: float) -> None:
        """A batch of at least one unit went through a stage, as far as it went."""

    def batch_failed(self, phase: str, store: str, units: int, attempts: int, reason: str) -> None:
        """A batch did not go through in one piece; it took that many attempts on parts of it."""

    def result_unknown(self, store: str) -> None:
        """The reply to a batch was lost: whether it happened is found out by a write (I11)."""

    def lease_late(self) -> None:
        """The lease could not be renewed in time; nothing new is begun until it is."""

    def swept(self, units: int) -> None:
        """Undo records of that many units were swept."""

    def taken_over(self, worker: int, units: int) -> None:
        """Another worker's open units are ours now."""

    def duty_failed(self, duty: str, error: StoreError) -> None:
        """A periodic duty could not be done; it is tried again."""
