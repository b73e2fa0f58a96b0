"""Time and chance that somebody else owns: the engine's ports over a given source of each."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

from coordinator.memory.world import EPOCH


class MemoryClock:
    """One worker's clock over the world's ``seconds``.

    ``rate`` is how fast it goes, ``ahead_seconds`` how far its time of day is off; the journal's
    word corrects the latter, as in the daemon.
    """

    def __init__(
        self, seconds: Callable[[], float], *, rate: float = 1.0, ahead_seconds: float = 0.0
    ) -> None:
        self._seconds = seconds
        self._rate = rate
        self._ahead = timedelta(seconds=ahead_seconds)

    def monotonic(self) -> float:
        """Seconds on a clock that only goes forward."""
        return self._seconds() * self._rate

    def now(self) -> datetime:
        """The journal's time of day as we know it."""
        return self._own_time() + self._ahead

    def journal_says(self, at: datetime) -> None:
        """The journal has just told its time."""
        self._ahead = at - self._own_time()

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait for an event, at most that long; whether it came."""
        if event.is_set():
            return True
        try:
            async with asyncio.timeout(seconds / self._rate):
                await event.wait()
        except TimeoutError:
            return False
        return True

    def _own_time(self) -> datetime:
        return EPOCH + timedelta(seconds=self._seconds() * self._rate)


class SeededChance:
    """Chance out of one seeded source."""

    def __init__(self, source: random.Random) -> None:
        self._source = source

    def uniform(self, low: float, high: float) -> float:
        """A float between the two."""
        return self._source.uniform(low, high)

    def uuid7(self) -> UUID:
        """A UUID of version 7, of random bits alone."""
        value = self._source.getrandbits(128)
        value = value & ~(0xF << 76) | 0x7 << 76
        return UUID(int=value & ~(0b11 << 62) | 0b10 << 62)
