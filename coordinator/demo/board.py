"""The board: which units wait for their outcome, and what came of the others, as it comes.

Owns counts and the times that the client sees: from handing a unit to the client until its outcome
has been read back from Kafka.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial

from coordinator.client import Outcome, Ticket
from coordinator.domain.lifecycle import Status


class Board:
    """The outcomes of one act."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.statuses: Counter[Status] = Counter()
        self.latencies_ms: list[float] = []
        self._tickets: list[Ticket] = []  # the client lets go of tickets that nobody holds
        self._began = self._last = time.monotonic()

    @property
    def done(self) -> int:
        """How many units have their outcome."""
        return len(self.latencies_ms)

    @property
    def seconds(self) -> float:
        """From the beginning to the newest outcome; while units wait, until now."""
        return (self._last if self.done >= self.total else time.monotonic()) - self._began

    @property
    def rate(self) -> float:
        """Outcomes per second."""
        return self.done / self.seconds if self.seconds else 0.0

    def watch(self, tickets: Sequence[Ticket], sent_at: float) -> None:
        """Count these from now on; ``sent_at`` is of the monotonic clock."""
        self._tickets += tickets
        for ticket in tickets:
            ticket.answer.final.add_done_callback(partial(self._count, sent_at))

    def percentile_ms(self, share: float) -> float:
        """The latency that ``share`` of the units did not exceed, in milliseconds."""
        ordered = sorted(self.latencies_ms)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0

    def _count(self, sent_at: float, final: asyncio.Future[Outcome]) -> None:
        if final.cancelled() or final.exception() is not None:
            return
        self._last = time.monotonic()
        self.latencies_ms.append((self._last - sent_at) * 1000)
        self.statuses[final.result().status] += 1
