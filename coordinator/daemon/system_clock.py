"""The real clock and the real chance: the only place of the daemon that reads either.

``now`` is the journal's time of day: our own corrected by what the journal last told, so that a
deadline that was set by the journal's clock is judged by it (F7).
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID


class SystemClock:
    """Implements `coordinator.engine.clock.Clock`."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def monotonic(self) -> float:
        """Seconds on a clock that only goes forward."""
        return time.monotonic()

    def now(self) -> datetime:
        """The journal's time of day as we know it, aware, UTC."""
        return datetime.now(UTC) + self._ahead

    def journal_says(self, at: datetime) -> None:
        """The journal has just told its time."""
        self._ahead = at - datetime.now(UTC)

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait for an event, at most that long; whether it came."""
        if event.is_set():
            return True
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return False
        return True


class SystemChance:
    """Implements `coordinator.engine.clock.Chance`."""

    def uniform(self, low: float, high: float) -> float:
        """A float between the two."""
        return random.uniform(low, high)

    def uuid7(self) -> UUID:
        """A UUID of version 7: 48 bits of Unix milliseconds, 74 random bits (RFC 9562)."""
        milliseconds = time.time_ns() // 1_000_000
        value = (milliseconds & ((1 << 48) - 1)) << 80
        value |= 0x7 << 76 | secrets.randbits(12) << 64
        value |= 0b10 << 62 | secrets.randbits(62)
        return UUID(int=value)
