"""Time and chance as ports, so that the simulation can own both."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Protocol
from uuid import UUID


class Clock(Protocol):
    """The worker's monotonic clock, and its guess of the journal's."""

    def monotonic(self) -> float:
        """Seconds on a clock that only goes forward."""

    def now(self) -> datetime:
        """The journal's time of day as we know it, aware, UTC."""

    def journal_says(self, at: datetime) -> None:
        """The journal has just told its time."""

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait for an event, at most that long; whether it came."""


class Chance(Protocol):
    """A source of randomness."""

    def uniform(self, low: float, high: float) -> float:
        """A float between the two."""

    def uuid7(self) -> UUID:
        """A new UUID of version 7: time-ordered, unique."""
