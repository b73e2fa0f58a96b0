"""How a call travels from a worker to a database and back, and what it holds on its way.

A transaction holds rows until it has ended, also when its caller has lost its answer: whoever
wants the same rows comes after it. A link that delays effects must keep that promise, so each
call says what it holds: ``rows`` alone, ``shared`` together with others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from typing import Protocol, TypeVar

from coordinator.domain.operation import Unit

ResultT = TypeVar("ResultT")
Held = Collection[Hashable]


def rows_of(units: Collection[Unit]) -> Held:
    """What a transaction on these units holds: their rows, and what stands for them."""
    return {unit.seq for unit in units}


def fence_of(worker: int) -> Hashable:
    """The row of a worker's fence: its transactions share it, a takeover has it alone (rule 3)."""
    return ("fence", worker)


def units_of(worker: int) -> Hashable:
    """All units of a worker, as a takeover holds them."""
    return ("units", worker)


def takeover_by(worker: int) -> Hashable:
    """What the takeovers that a worker does hold, one after the other."""
    return ("takeover", worker)


class Link(Protocol):
    """Carries calls of one worker.

    ``effect`` is the atomic step; it may happen late, when its caller has given up or is gone, and
    then it still has to pass the fence. Raises what the effect raises, `StoreUnavailable` when it
    did not and will not happen, `ResultUnknown` when it may have happened or may still (I11).
    """

    async def call(
        self,
        store: str,
        what: str,
        effect: Callable[[], ResultT],
        *,
        rows: Held = (),
        shared: Held = (),
    ) -> ResultT:
        """Run a step that may change something, and give its result."""

    async def read(self, store: str, what: str, effect: Callable[[], ResultT]) -> ResultT:
        """Run a step that changes nothing: without an answer it is `StoreUnavailable`."""


class DirectLink:
    """Loses nothing and takes no time."""

    async def call(
        self,
        store: str,
        what: str,
        effect: Callable[[], ResultT],
        *,
        rows: Held = (),
        shared: Held = (),
    ) -> ResultT:
        """Run the step."""
        return effect()

    async def read(self, store: str, what: str, effect: Callable[[], ResultT]) -> ResultT:
        """Run the step."""
        return effect()
