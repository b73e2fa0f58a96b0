"""The real clock and the real chance: the only place of the daemon that reads either.

``now`` is the journal's time of day: our own corrected by what the journal tells, so that a
deadline that was set by the journal's clock is judged by it (F7), and a unit that ends after
another one ends later by its outcome too. What the journal tells is a little old when we hear it,
more so on a busy machine, so the youngest word counts, not the last: the greatest difference heard
lately is the nearest to the truth.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

_WINDOW_SECONDS: Final = 30.0
"""So long, and at most twice as long, what the journal told counts: clocks are set and drift."""

_STEP_BACK: Final = timedelta(seconds=5)
"""By more than that our clock was set back, and is believed."""


class SystemClock:
    """Implements `coordinator.engine.clock.Clock`."""

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        own_time: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._monotonic = monotonic
        self._own_time = own_time
        self._ahead = timedelta()
        # The greatest differences heard in this window and in the one before it.
        self._heard: list[timedelta] = []
        self._heard_until = 0.0
        self._told = datetime.min.replace(tzinfo=UTC)

    def monotonic(self) -> float:
        """Seconds on a clock that only goes forward."""
        return self._monotonic()

    def now(self) -> datetime:
        """The journal's time of day as we know it, aware, UTC; it does not go back by a little."""
        now = self._own_time() + self._ahead
        if now < self._told < now + _STEP_BACK:
            return self._told
        self._told = now
        return now

    def journal_says(self, at: datetime) -> None:
        """The journal has just told its time."""
        ahead = at - self._own_time()
        if self._monotonic() >= self._heard_until:
            self._heard = [ahead, *self._heard[:1]]
            self._heard_until = self._monotonic() + _WINDOW_SECONDS
        elif ahead > self._heard[0]:
            self._heard[0] = ahead
        self._ahead = max(self._heard)

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
