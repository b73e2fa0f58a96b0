"""What a contender is: something that is started in an arena and then does transfers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias

from benchmarks.arena import Arena
from benchmarks.transfers import Transfer

Ended: TypeAlias = Callable[[float, str], None]
"""Is told of each unit: when it was submitted (`perf_counter`), and the status of its outcome."""

Submit: TypeAlias = Callable[[Sequence[Transfer], Ended], Awaitable[None]]
"""Submits many at once and returns when they are on their way; the outcomes come later."""


class Running(Protocol):
    """A contender at work."""

    @property
    def pids(self) -> Mapping[str, int]:
        """Processes of its own beside servers and clients, by what they are called in a report."""

    @property
    def submit(self) -> Submit | None:
        """How many are submitted at once; None where a client can only do one after the other."""

    async def perform(self, transfer: Transfer) -> str:
        """Do one transfer and give the status of its outcome; raises when there is none."""


class Contender(Protocol):
    """One way to do transfers."""

    @property
    def name(self) -> str:
        """A short name, for options and files."""

    @property
    def title(self) -> str:
        """What it is, for tables."""

    @property
    def missing(self) -> str | None:
        """Why it cannot take part here, in a sentence; None when it can."""

    def start(self, arena: Arena) -> AbstractAsyncContextManager[Running]:
        """Start it; what it had started is gone when the block ends."""
