"""Trying a batch that a store refuses: whole, without the culprit, in halves, alone (rule 9).

One stranger or one bad unit must not stop a batch, and a unit must not be refused for what an
earlier unit of its batch has done and may take back. So what fails is cut down to the units that
fail by themselves, and whether such a one is refused or tried again later is the caller's to
say: here it is only *failing*.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
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
    ``interrupted``: not tried to an end, because the store went away; what happened is unknown.
    ``refusals``: why parts had to be made smaller, in the order of the attempts.
    """

    results: list[ResultT] = field(default_factory=list)
    failing: dict[int, Problem] = field(default_factory=dict)
    busy: set[int] = field(default_factory=set)
    slow: set[int] = field(default_factory=set)
    interrupted: set[int] = field(default_factory=set)
    error: StoreError | None = None
    refusals: list[StoreError] = field(default_factory=list)


async def try_in_parts(
    units: Sequence[Unit], attempt: Callable[[Sequence[Unit]], Awaitable[ResultT]]
) -> Tried[ResultT]:
    """Run ``attempt`` on the units in their order, on as few parts as their refusals allow."""
    tried: Tried[ResultT] = Tried()
    parts: list[tuple[Sequence[Unit], int]] = [(units, 0)]
    while parts:
        part, culprits = parts.pop(0)
        if not part:
            continue
        try:
            tried.results.append(await attempt(part))
        except (BatchRefused, StoreBusy) as refusal:
            tried.refusals.append(refusal)
            parts[:0] = _smaller(part, culprits, refusal, tried)
        except (StoreUnavailable, ResultUnknown) as error:
            tried.error = error
            tried.interrupted.update(unit.seq for unit in part)
            for rest, _ in parts:
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
