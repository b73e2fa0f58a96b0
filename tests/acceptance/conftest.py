"""Fixtures of the acceptance tests: `world` (one per module) and `make_world` (one per call).

    async def test_it(world: World) -> None:
        outcome = await world.run(insert("account", 1, balance="1.00"))

    async def test_with_its_own(make_world: MakeWorld) -> None:
        world = await make_world({"units": {"timeout_ms": 500}})

All tests of a module run in one event loop; an async fixture of a module must say so with
`@pytest_asyncio.fixture(loop_scope="module")`. A world is stopped by SIGTERM at its end: it must
leave with exit code 0 within 30 s, and must have logged no error that was not expected.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.acceptance.harness.config_text import merge
from tests.acceptance.harness.world import World
from tests.servers import KAFKA, MONGODB, POSTGRES, Servers

HERE = Path(__file__).parent
MakeWorld = Callable[..., Awaitable[World]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not item.path.is_relative_to(HERE):
            continue
        item.add_marker(pytest.mark.acceptance)
        if pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


@pytest.fixture(scope="session")
def all_servers(servers: Servers) -> Servers:
    """All three servers, started side by side."""
    servers.prefetch((POSTGRES, MONGODB, KAFKA))
    return servers


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    all_servers: Servers, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[World]:
    """The module's daemon. A module may set `WORLD` to overrides of the configuration."""
    made = World(all_servers, tmp_path_factory.mktemp("world"))
    try:
        await made.prepare(getattr(request.module, "WORLD", None))
        await made.start()
        yield made
    finally:
        await made.close()


@pytest_asyncio.fixture(loop_scope="module")
async def make_world(
    all_servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[MakeWorld]:
    """Make a world of one's own: ``await make_world(overrides, entities=…, start=False)``.

    `entities` is merged into the mapping; with ``start=False`` only its databases and
    configuration are made.
    """
    made = AsyncExitStack()

    async def make(
        overrides: dict[str, Any] | None = None,
        *,
        entities: dict[str, Any] | None = None,
        start: bool = True,
    ) -> World:
        one = World(all_servers, tmp_path_factory.mktemp("world"))
        made.push_async_callback(one.close)
        merge(one.entities, entities or {})
        await one.prepare(overrides)
        if start:
            await one.start()
        return one

    async with made:
        yield make
