"""The bounds at which nothing more is taken in for a while, and how fast records may be (I12).

Pure: ``now`` is the caller's monotonic clock in seconds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Bound(StrEnum):
    """What keeps intake back; the value is the metric's label and the log's ``bound``."""

    UNITS = "units"
    BYTES = "bytes"
    PARKED = "parked"
    RATE = "rate"


class Backlog(NamedTuple):
    """The open units: how many, about what they take in memory, how many of them are parked."""

    units: int = 0
    weight_bytes: int = 0
    parked: int = 0


class Pace:
    """How many records of one topic may be taken in: a bucket that is filled ``per_second``.

    It holds what a second brings, so that a quiet second is not lost. ``is_slow`` from when it was
    found empty until it is full again: as long as more comes than may be taken in.
    """

    def __init__(self, per_second: int, now: float) -> None:
        self.per_second = per_second
        self.is_slow = False
        self._left = float(per_second)
        self._at = now

    def allowance(self, now: float) -> int:
        """How many records may be taken now."""
        self._left = min(float(self.per_second), self._left + (now - self._at) * self.per_second)
        self._at = now
        if self._left < 1.0:
            self.is_slow = True
        elif self._left >= self.per_second:
            self.is_slow = False
        return max(0, int(self._left))

    def take(self, records: int) -> None:
        """Take records out; those that could not be held back overdraw it, and are waited for."""
        self._left -= records
