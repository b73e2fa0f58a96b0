"""What can be measured in a round: the ordinary case, one contender under its loads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from benchmarks import arena, meters
from benchmarks.contenders.contender import Contender
from benchmarks.loads import Load
from benchmarks.measuring import Pace, measure
from benchmarks.samples import Sample
from benchmarks.servers import Servers
from benchmarks.traffic import Traffic
from benchmarks.transfers import Workload, uncontended


@dataclass(frozen=True, slots=True)
class Conditions:
    """What is the same for everybody in a run. ``driver`` is MongoDB's."""

    servers: Servers
    pace: Pace
    driver: str


Note = Callable[[Sample], None]
"""Is told of every sample."""


class Measurement(Protocol):
    """Something that gives samples in every round."""

    @property
    def name(self) -> str:
        """The name under which its samples go, and by which it is chosen."""

    @property
    def title(self) -> str:
        """What it is, for tables."""

    @property
    def missing(self) -> str | None:
        """Why it cannot be taken here, in a sentence; None when it can."""

    async def take(self, conditions: Conditions, round_: int, note: Note) -> None:
        """Take the samples of one round, and tell of each as it is taken."""

    async def close(self) -> None:
        """Give up what was kept from round to round."""


class Measured:
    """A `Measurement`: one contender, started anew in an arena of its own in every round."""

    def __init__(
        self,
        contender: Contender,
        loads: Sequence[Load],
        *,
        name: str | None = None,
        title: str | None = None,
        make_workload: Callable[[], Workload] = uncontended,
    ) -> None:
        self._contender = contender
        self._loads = loads
        self._workload = make_workload()
        self.name = name or contender.name
        self.title = title or contender.title

    @property
    def missing(self) -> str | None:
        """What the contender says."""
        return self._contender.missing

    async def take(self, conditions: Conditions, round_: int, note: Note) -> None:
        """Put the contender to its loads, and check the stores afterwards."""
        async with (
            arena.opened(
                conditions.servers,
                arena_name(self.name, round_),
                conditions.driver,
                self._workload.keys,
            ) as place,
            self._contender.start(place) as running,
            meters.opened(conditions.servers, running.pids) as meter,
        ):
            moved = 0
            for number, load in enumerate(self._loads):
                workload = self._workload
                traffic = Traffic(workload.transfers(f"{place.name}-{number}"), workload.statuses)
                note(
                    await measure(self.name, round_, load, running, traffic, meter, conditions.pace)
                )
                moved += traffic.ended["committed"] * workload.width
            await place.check(moved)

    async def close(self) -> None:
        """Nothing is kept."""


def arena_name(name: str, round_: int) -> str:
    """Name an arena after who is in it and when."""
    return f"bench-{name}-{round_}"
