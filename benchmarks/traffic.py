"""What is under way: a stream of transfers that can be stopped, and how each of them ended.

Everything that ends is counted, so that the stores can be checked afterwards. Latencies are kept
only while the *window* is open, which is what a sample is made of.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from time import perf_counter

from benchmarks.transfers import Transfer


class UnexpectedOutcome(Exception):
    """A transfer has ended as it must not under this load."""


class Traffic:
    """The transfers of one load. Iterating takes the next one; it ends when told to stop."""

    def __init__(self, transfers: Iterator[Transfer], statuses: frozenset[str]) -> None:
        """``statuses`` are the outcomes that may come."""
        self._transfers = transfers
        self._allowed = statuses
        self._stopped = False
        self._seconds: list[float] | None = None
        self._begun_at = 0.0
        self._units_min = 0
        self._enough = asyncio.Event()
        self.ended: Counter[str] = Counter()
        """How many have ended how, since the beginning."""

    def __iter__(self) -> Iterator[Transfer]:
        return self

    def __next__(self) -> Transfer:
        if self._stopped:
            raise StopIteration
        return next(self._transfers)

    def take(self, count: int) -> Sequence[Transfer]:
        """Take up to so many; none when it was told to stop."""
        return list(islice(self, count))

    def note(self, began: float, status: str) -> None:
        """Note that a transfer which began then (`perf_counter`) has ended now."""
        if status not in self._allowed:
            raise UnexpectedOutcome(f"a transfer has ended as {status!r}")
        self.ended[status] += 1
        if self._seconds is not None:
            self._seconds.append(perf_counter() - began)
            if len(self._seconds) >= self._units_min:
                self._enough.set()

    def stop(self) -> None:
        """Let nothing more begin."""
        self._stopped = True

    def open_window(self, units_min: int) -> None:
        """Keep the latencies of what ends from now on; so many at least are wanted."""
        self._units_min = units_min
        self._enough.clear()
        self._seconds = []
        self._begun_at = perf_counter()

    async def ripen(self, seconds: float) -> None:
        """Wait until the window was open for so long and enough have ended in it."""
        await asyncio.sleep(seconds - (perf_counter() - self._begun_at))
        await self._enough.wait()

    def close_window(self) -> tuple[float, Sequence[float]]:
        """Give the seconds for which it was open, and the latencies of what has ended in it."""
        seconds, self._seconds = self._seconds or [], None
        return perf_counter() - self._begun_at, seconds
