"""What we promise of the figures, as ratios, and whether they keep it. Pure.

A ratio is taken within each round, between contenders that were measured one after the other, and
then the median of the rounds counts: what disturbs the machine for a minute disturbs both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from benchmarks.samples import Of, Samples, p50, throughput
from benchmarks.statistics import Spread, spread

Cell = tuple[str, str]
"""Contender and load, by their names."""

_SATURATED: Final[Cell] = ("coordinator", "saturation")
_MANY: Final[Cell] = ("coordinator", "32 clients")
_ALONE: Final[Cell] = ("coordinator", "1 client")
_CLIENTS: Final = ("1 client", "32 clients", "128 clients")
_DUAL_WRITE: Final = "dual-write"
_STRAIGHT_LINE: Final = "straight-line"


class Kept(Enum):
    """Whether a promise is kept."""

    YES = "pass"
    NO = "miss"
    UNKNOWN = "not measured"


@dataclass(frozen=True, slots=True)
class Promise:
    """One figure of ours against the best one of some others, at least or at most so many times."""

    text: str
    ours: Cell
    theirs: Sequence[Cell]
    of: Of
    bound: float
    is_least: bool = True

    @property
    def bound_text(self) -> str:
        """The bound as it is shown."""
        return f"{'≥' if self.is_least else '≤'} {self.bound:g}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a promise; no ratio when something was not measured."""

    promise: Promise
    kept: Kept
    ratio: Spread | None = None


def _every(contender: str) -> Sequence[Cell]:
    return [(contender, load) for load in _CLIENTS]


PROMISES: Final = (
    Promise(
        "saturation: units/s against the best of the dual write with event",
        _SATURATED,
        _every(_DUAL_WRITE),
        throughput,
        2.5,
    ),
    Promise(
        "saturation: units/s against the straight line",
        _SATURATED,
        [(_STRAIGHT_LINE, "saturation")],
        throughput,
        0.5,
    ),
    Promise(
        "32 clients: units/s against the dual write with event",
        _MANY,
        [(_DUAL_WRITE, "32 clients")],
        throughput,
        1.0,
    ),
    Promise(
        "32 clients: p50 against the dual write with event",
        _MANY,
        [(_DUAL_WRITE, "32 clients")],
        p50,
        1.0,
        is_least=False,
    ),
    Promise(
        "1 client: p50 against the straight line with a batch of one",
        _ALONE,
        [(_STRAIGHT_LINE, "1 client")],
        p50,
        2.0,
        is_least=False,
    ),
    Promise(
        "saturation: units/s against the best of DBOS", _SATURATED, _every("dbos"), throughput, 10.0
    ),
)


def judge(samples: Samples, promises: Sequence[Promise] = PROMISES) -> Sequence[Verdict]:
    """Hold the figures against the promises."""
    return [_judged(samples, promise) for promise in promises]


def _judged(samples: Samples, promise: Promise) -> Verdict:
    best: Callable[[Sequence[float]], float] = max if promise.of is throughput else min
    ours = _by_round(samples, promise.ours, promise.of)
    theirs = [_by_round(samples, cell, promise.of) for cell in promise.theirs]
    ratios = []
    for number, value in ours.items():
        others = [each[number] for each in theirs if number in each]
        if others:
            ratios.append(value / best(others))
    if not ratios:
        return Verdict(promise, Kept.UNKNOWN)
    ratio = spread(ratios)
    kept = ratio.median >= promise.bound if promise.is_least else ratio.median <= promise.bound
    return Verdict(promise, Kept.YES if kept else Kept.NO, ratio)


def _by_round(samples: Samples, cell: Cell, of: Of) -> dict[int, float]:
    return {each.round: of(each) for each in samples.of(*cell)}
