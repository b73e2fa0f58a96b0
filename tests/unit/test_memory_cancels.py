"""The journal in memory keeps to the contract of bounded cancels, and not without the bound."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from coordinator.domain.announce import Announcer
from coordinator.domain.lifecycle import Status
from coordinator.memory.admission import MemoryAdmission
from coordinator.memory.journal_tables import Epoch
from coordinator.memory.link import DirectLink
from coordinator.memory.world import World
from tests.admissions import SHOP
from tests.cancels_contract import CONTRACT, Desk


def a_desk() -> Desk:
    announcer = Announcer("test", "0", "outcomes", "changes.{entity}")
    world = World(SHOP, [], pivot_store=None, announcer=announcer, seconds=lambda: 0.0)
    number = world.register(1, 10)

    async def finish(unit_id: str) -> None:
        row = world.journal.units[world.journal.ids[unit_id]]
        row.status, row.outcome, row.finished_at = Status.COMMITTED, b"{}", world.now()

    async def newcomers() -> int:
        return len(world.journal.newcomers)

    admission = MemoryAdmission(world, number, DirectLink(), Epoch())
    return Desk(admission, finish, newcomers)


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda each: each.__name__)
async def test_bounded_cancels_in_memory(promise: Callable[[Desk], Awaitable[None]]) -> None:
    await promise(a_desk())


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda each: each.__name__)
async def test_each_promise_needs_the_bound(
    promise: Callable[[Desk], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryAdmission, "_may_end", lambda *_: True)
    with pytest.raises(AssertionError):
        await promise(a_desk())
