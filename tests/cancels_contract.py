"""What every journal must keep to in bounding cancels by topic: in memory and on PostgreSQL.

A cancel that may not end a unit is left out, as if the unit were unknown (F8): nothing is marked
and nobody is answered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.engine.ports import AdmissionBatch, Admitted, Arrival, CancelArrival, Partition
from tests.admissions import SHOP, TOPIC, arrival, batch, cancel
from tests.units import insert

ELSEWHERE = "partner"
"""A topic of which no unit here is."""


class Admitting(Protocol):
    """The part of `coordinator.engine.ports.Journal` that is tested here."""

    async def positions(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """See the port."""

    async def admit(self, batch: AdmissionBatch, mapping: EntityMapping) -> Admitted:
        """See the port."""


@dataclass(frozen=True)
class Desk:
    """A journal's admission, how a unit is brought to its end, and how many are to be answered."""

    admission: Admitting
    finish: Callable[[str], Awaitable[None]]
    newcomers: Callable[[], Awaitable[int]]

    async def admit(self, *records: Arrival | CancelArrival) -> Admitted:
        """Admit records on partitions of which we know where the journal stands."""
        numbers = {each.origin.partition for each in records}
        held = await self.admission.positions([(TOPIC, number) for number in numbers])
        expected = {number: offset for (_, number), offset in held.items()}
        return await self.admission.admit(batch(*records, expected=expected), SHOP)


def told(found: Admitted) -> list[str]:
    return [each.unit_id for each in found.forbidden]


async def a_cancel_ends_units_of_its_own_topics_only(desk: Desk) -> None:
    old = await desk.admit(
        arrival("mine", insert("account", 1)), arrival("b", insert("account", 2))
    )
    found = await desk.admit(
        cancel("mine", topics=[ELSEWHERE]),
        cancel("b", topics=[ELSEWHERE, TOPIC]),
        cancel("nobody", topics=[ELSEWHERE]),
    )
    assert found.cancelled == (old.units[1].seq,)
    assert told(found) == ["mine"]
    assert (found.unknown, found.ignored) == (("nobody",), ())
    again = await desk.admit(cancel("mine", topics=[TOPIC]), cancel("b"))
    assert (again.cancelled, told(again)) == ((old.units[0].seq,), [])


async def a_unit_of_the_same_batch_counts_by_its_topic(desk: Desk) -> None:
    found = await desk.admit(
        arrival("a", insert("account", 1)),
        cancel("a", after=1, topics=[ELSEWHERE]),
        cancel("late", after=1, topics=[ELSEWHERE]),
        arrival("late", insert("account", 2)),
        cancel("late", after=2, topics=[TOPIC]),
    )
    assert found.cancelled == (found.units[1].seq,)
    assert told(found) == ["a"]
    assert found.unknown == ("late",)


async def a_final_unit_is_not_told_to_another_topic(desk: Desk) -> None:
    await desk.admit(arrival("u", insert("account", 1)))
    await desk.finish("u")
    found = await desk.admit(cancel("u", topics=[ELSEWHERE], reply_to="r"))
    assert (told(found), found.unknown, await desk.newcomers()) == (["u"], (), 0)
    await desk.admit(cancel("u", topics=[TOPIC], reply_to="r"))
    assert await desk.newcomers() == 1


async def an_id_that_comes_again_counts_by_its_first_unit(desk: Desk) -> None:
    """So nobody gets at a unit by submitting its id once more on a topic of their own."""
    await desk.admit(arrival("u", insert("account", 1)))
    other = arrival("u", insert("account", 9))
    newcomer = other._replace(origin=other.origin._replace(topic=ELSEWHERE))
    found = await desk.admit(
        newcomer, cancel("u", after=1, topics=[ELSEWHERE]), cancel("u", after=1, topics=[ELSEWHERE])
    )
    assert (found.cancelled, told(found)) == ((), ["u", "u"])


CONTRACT = (
    a_cancel_ends_units_of_its_own_topics_only,
    a_unit_of_the_same_batch_counts_by_its_topic,
    a_final_unit_is_not_told_to_another_topic,
    an_id_that_comes_again_counts_by_its_first_unit,
)
