"""Trying a batch that a store refuses: whole, without the culprit, in halves, alone (rule 9).

One stranger or one bad unit must not stop a batch, and a unit must not be refused for what an
earlier unit of its batch has done and may take back. So what fails is cut down to the units that
fail by themselves, and whether such a one is refused or tried again later is the caller's to
say: here it is only *failing*.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from coordinator.domain.errors import (
    BatchRefused,
    Problem,
    ResultUnknown,
    StoreBusy,
    StoreError,
    StoreUnavailable,
)
from coordinator.domain.operation import Unit
from coordinator.domain.sharing import Line

ResultT = TypeVar("ResultT")

_SLOW_PARTS = 16
"""Into how many parts a batch is cut whose statement took too long."""

_CULPRITS_MAX = 3
"""How often a batch is tried again without a named culprit before it is halved."""


@dataclass(slots=True)
class Tried(Generic[ResultT]):
    """What became of a batch: the results of the parts that went through, and the rest by ``seq``.

    ``failing``: refused by the store on its own. ``busy``: an outsider is in its way; those of
    them that took too long by themselves are ``slow`` as well.
    ``behind``: not tried, because an earlier sharer of a key stayed behind or was in another part.
    ``interrupted``: not tried to an end, because the store went away; what happened is unknown.
    ``refusals``: why parts had to be made smaller, in the order of the attempts.
    """

    results: list[ResultT] = field(default_factory=list)
    failing: dict[int, Problem] = field(default_factory=dict)
    busy: set[int] = field(default_factory=set)
    slow: set[int] = field(default_factory=set)
    behind: set[int] = field(default_factory=set)
    interrupted: set[int] = field(default_factory=set)
    error: StoreError | None = None
    refusals: list[StoreError] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Turns(Generic[ResultT]):
    """In which order sharers go through a stage: nobody goes past one that the stage left open.

    ``left_open`` gives, of the units of a part and its result, those that have not ended by it;
    sharers behind them may not go in another part, because its transaction would not know them.
    ``refused`` are units that only end here, which everybody may at any time.
    """

    line: Line
    left_open: Callable[[Sequence[Unit], ResultT], Iterable[Unit]]
    refused: Collection[int] = ()

    def who_may_go(self, part: Sequence[Unit], behind: set[int]) -> Sequence[Unit]:
        """Give the units that stand behind nobody, and note the others."""
        going = []
        for unit in part:
            if unit.seq not in self.refused and self.line.holds(unit):
                behind.add(unit.seq)
            else:
                going.append(unit)
        return going


async def try_in_parts(
    units: Sequence[Unit],
    attempt: Callable[[Sequence[Unit]], Awaitable[ResultT]],
    turns: Turns[ResultT] | None = None,
) -> Tried[ResultT]:
    """Run ``attempt`` on the units in their order, on as few parts as their refusals allow."""
    tried: Tried[ResultT] = Tried()
    parts: list[tuple[Sequence[Unit], int]] = [(units, 0)]
    while parts:
        part, culprits = parts.pop(0)
        if turns is not None:
            part = turns.who_may_go(part, tried.behind)
        if not part:
            continue
        try:
            result = await attempt(part)
            tried.results.append(result)
            if turns is not None:
                turns.line.stop_all(turns.left_open(part, result))
        except (BatchRefused, StoreBusy) as refusal:
            tried.refusals.append(refusal)
            parts[:0] = _smaller(part, culprits, refusal, tried)
            if turns is not None:
                turns.line.stop_all(
                    u for u in part if u.seq in tried.failing or u.seq in tried.busy
                )
        except (StoreUnavailable, ResultUnknown) as error:
            tried.error = error
            for rest in (part, *(each for each, _ in parts)):
                tried.interrupted.update(unit.seq for unit in rest)
            break
    return tried


def _smaller(
    part: Sequence[Unit],
    culprits: int,
    refusal: BatchRefused | StoreBusy,
    tried: Tried[ResultT],
) -> list[tuple[Sequence[Unit], int]]:
    busy = isinstance(refusal, StoreBusy)
    named = refusal.units if isinstance(refusal, StoreBusy) else frozenset(refusal.refusals)
    if len(part) == 1:
        named = frozenset({part[0].seq})
    known = [unit for unit in part if unit.seq in named]
    if known and (culprits < _CULPRITS_MAX or len(part) == 1):
        for unit in known:
            if isinstance(refusal, BatchRefused) and not busy:
                tried.failing[unit.seq] = refusal.refusals.get(unit.seq, refusal.problem)
            else:
                tried.busy.add(unit.seq)
                if isinstance(refusal, StoreBusy) and refusal.slow:
                    tried.slow.add(unit.seq)
        return [([unit for unit in part if unit.seq not in named], culprits + 1)]
    # Each time-out costs seconds: go on in small parts at once.
    is_slow = isinstance(refusal, StoreBusy) and refusal.slow
    size = max(1, -(-len(part) // (_SLOW_PARTS if is_slow else 2)))
    return [(part[at : at + size], 0) for at in range(0, len(part), size)]
