"""Connections to the two stores for those who write to them by themselves.

The same settings for all of them, and the same durability as the coordinator's own connections:
``synchronous_commit``, majority and journal.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import pymongo
from motor.motor_asyncio import AsyncIOMotorClient

from benchmarks.arena import Arena

POSTGRESQL_CONNECTIONS: Final = 32
MONGODB_CONNECTIONS: Final = 50


@asynccontextmanager
async def postgresql_pool(arena: Arena) -> AsyncIterator[asyncpg.Pool]:
    """Give connections to the arena's database."""
    async with asyncpg.create_pool(
        arena.postgres_dsn,
        min_size=1,
        max_size=POSTGRESQL_CONNECTIONS,
        reset=_keep_session,
        server_settings={"synchronous_commit": "on", "jit": "off"},
    ) as pool:
        yield pool


async def _keep_session(connection: asyncpg.Connection) -> None:
    """Spare the round trip of RESET ALL: nothing here sets a session variable."""


@asynccontextmanager
async def mongodb_client(arena: Arena) -> AsyncIterator[Any]:
    """Give a client of the driver that was chosen; both have the same methods where we use them."""
    make: Any = AsyncIOMotorClient if arena.driver == "motor" else pymongo.AsyncMongoClient
    client = make(arena.mongodb_uri, w="majority", journal=True, maxPoolSize=MONGODB_CONNECTIONS)
    try:
        yield client
    finally:
        closed = client.close()
        if inspect.isawaitable(closed):
            await closed
