"""What was measured, as plain values: a sample is one load on one contender in one round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.meters import Cost
from benchmarks.statistics import Spread, spread


@dataclass(frozen=True, slots=True)
class Sample:
    """One load on one contender in one round. Latencies are in milliseconds.

    ``memory_bytes`` is what the contender's own process holds at the end; of a backlog, the peak.
    """

    contender: str
    load: str
    round: int
    units: int
    seconds: float
    p50_ms: float
    p99_ms: float
    cost: Cost | None = None
    memory_bytes: int | None = None

    @property
    def units_per_second(self) -> float:
        """How many have ended in a second."""
        return self.units / self.seconds


Of = Callable[[Sample], float]


@dataclass(slots=True)
class Samples:
    """All samples of a run, in the order in which they were taken."""

    taken: list[Sample] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        """Take one more."""
        self.taken.append(sample)

    def of(self, contender: str, load: str) -> Sequence[Sample]:
        """Give the repeats of one cell, by round; empty when it was not measured."""
        return [each for each in self.taken if (each.contender, each.load) == (contender, load)]

    def cells(self) -> Sequence[tuple[str, str]]:
        """Give contender and load of every cell, in the order in which they were first taken."""
        return list(dict.fromkeys((each.contender, each.load) for each in self.taken))

    def spread(self, contender: str, load: str, of: Of) -> Spread | None:
        """Sum up one figure of a cell; None when it was not measured."""
        repeats = self.of(contender, load)
        return spread([of(each) for each in repeats]) if repeats else None


def throughput(sample: Sample) -> float:
    """Give units per second."""
    return sample.units_per_second


def p50(sample: Sample) -> float:
    """Give the median latency in milliseconds."""
    return sample.p50_ms
