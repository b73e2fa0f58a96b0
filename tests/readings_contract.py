"""What every journal must keep to in telling who reads a partition: in memory and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from coordinator.engine.ports import Beginning, Partition, Suspicion

PLACE: Partition = ("units", 0)


class Readings(Protocol):
    """The part of `coordinator.engine.ports.Journal` that is tested here."""

    async def begin_reading(self, beginnings: Sequence[Beginning]) -> Mapping[Partition, Suspicion]:
        """See the port."""

    async def mark_reading(self, partition: Partition, offset: int, *, setting_aside: bool) -> bool:
        """See the port."""

    async def release_reading(self, partitions: Collection[Partition]) -> None:
        """See the port."""


@dataclass(frozen=True)
class Reader:
    """One worker: its readings, how it leaves, and how it dies (its lease runs out)."""

    readings: Readings
    leave: Callable[[], Awaitable[None]]
    die: Callable[[], Awaitable[None]]

    async def begin(self, offset: int, expected: int | None = None) -> Suspicion | None:
        """Begin at an offset, the journal standing at ``expected``; None if it does not."""
        told = await self.readings.begin_reading([Beginning(PLACE, expected, offset)])
        return told.get(PLACE)

    async def mark(self, offset: int, *, setting_aside: bool = False) -> bool:
        """Mark a record."""
        return await self.readings.mark_reading(PLACE, offset, setting_aside=setting_aside)


NewReader = Callable[[], Awaitable[Reader]]
Move = Callable[[int], Awaitable[None]]
"""Moves the journal's position of `PLACE`."""


async def the_dead_are_counted_where_they_stood(new: NewReader, move: Move) -> None:
    first, second, third = [await new() for _ in range(3)]
    assert await first.begin(0) == Suspicion()
    assert await second.begin(0) == Suspicion(stood=1, undecided=1)
    assert await second.mark(0)
    await first.die()
    await second.die()
    assert await third.begin(0) == Suspicion(stood=2, marked=1)
    assert await third.mark(0, setting_aside=True)
    await third.die()
    fourth = await new()
    assert await fourth.begin(0) == Suspicion(stood=3, marked=2, setting_aside=1)


async def a_position_that_moves_clears_those_who_stood_before_it(
    new: NewReader, move: Move
) -> None:
    first, second, third, fourth = [await new() for _ in range(4)]
    await first.begin(0)
    await second.begin(0)
    await second.mark(0)
    await move(5)
    await second.mark(5)
    assert await third.begin(5, 5) == Suspicion(stood=1, marked=1, undecided=1)
    await move(6)
    assert await fourth.begin(6, 6) == Suspicion(stood=1, undecided=1)


async def who_lets_go_is_not_suspected_and_clears_nobody(new: NewReader, move: Move) -> None:
    first, second, third, fourth = [await new() for _ in range(4)]
    await first.begin(0)
    await second.begin(0)
    await second.mark(0)
    await second.readings.release_reading([PLACE])
    assert await third.begin(0) == Suspicion(stood=1, undecided=1)
    await third.leave()
    assert await fourth.begin(0) == Suspicion(stood=1, undecided=1)


async def who_begins_again_has_survived(new: NewReader, move: Move) -> None:
    first, second = await new(), await new()
    await first.begin(0)
    await first.mark(0)
    assert await first.begin(0) == Suspicion()
    assert await second.begin(0) == Suspicion(stood=1, undecided=1)


async def who_is_behind_the_journal_tells_nothing_and_marks_nothing(
    new: NewReader, move: Move
) -> None:
    first, second = await new(), await new()
    await first.begin(0)
    await move(3)
    assert await second.begin(3, 3) == Suspicion(stood=1, undecided=1)
    assert not await first.mark(0)
    assert await first.begin(0) is None
    assert await second.mark(3)


CONTRACT = [
    the_dead_are_counted_where_they_stood,
    a_position_that_moves_clears_those_who_stood_before_it,
    who_lets_go_is_not_suspected_and_clears_nobody,
    who_begins_again_has_survived,
    who_is_behind_the_journal_tells_nothing_and_marks_nothing,
]
