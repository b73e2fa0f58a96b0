"""The journal in memory keeps to the contract of readings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from coordinator.domain.announce import Announcer
from coordinator.domain.mapping_json import make_mapping
from coordinator.memory.journal import MemoryJournal
from coordinator.memory.journal_tables import Epoch
from coordinator.memory.link import DirectLink
from coordinator.memory.workers import MemoryWorkers
from coordinator.memory.world import World
from tests.readings_contract import CONTRACT, PLACE, Move, NewReader, Reader


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda each: each.__name__)
async def test_readings_in_memory(promise: Callable[[NewReader, Move], Awaitable[None]]) -> None:
    announcer = Announcer("test", "0", "outcomes", "changes.{entity}")
    world = World(make_mapping([]), [], pivot_store=None, announcer=announcer, seconds=lambda: 0.0)

    async def new() -> Reader:
        number, epoch = world.register(1, 10), Epoch()

        async def die() -> None:
            world.journal.workers[number].expires_at = world.now() - timedelta(seconds=1)

        return Reader(
            MemoryJournal(world, number, DirectLink(), epoch),
            MemoryWorkers(world, number, 10, DirectLink(), epoch).leave,
            die,
        )

    async def move(offset: int) -> None:
        world.journal.positions[PLACE] = offset

    await promise(new, move)
