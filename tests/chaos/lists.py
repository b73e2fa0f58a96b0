"""The lists: each unit writes its own id at the end of a few lists, over three stores.

The contract has no append, so a client reads the lists, and sets what it read with its id behind
it, expecting what it read. The expectation is on the content and not on the version alone: a
version may come again after an undo (F21), a content with an id of its own cannot. What is read
may be a write that is undone later (F31); then the expectation fails, and nothing must be seen
of the unit.

A list in PostgreSQL is a text with blanks, in MongoDB an array in a `json` field.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import asyncpg
from bson import Int64
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from tests.acceptance.harness.operations import update
from tests.acceptance.harness.world import World
from tests.chaos.history import Append, At, Image, Json, Sent

PER_STORE = 8
KIND = "append to lists"
SQL = """
CREATE TABLE lists (id text PRIMARY KEY, items text NOT NULL, version bigint NOT NULL);
"""
_READ_SECONDS: Final = 2.0

_OF_TABLE = {
    "table": "lists",
    "key": "id",
    "version": "version",
    "fields": {"id": {"type": "string"}, "items": {"type": "string"}},
}
ENTITIES: dict[str, Json] = {
    "ledger_list": {"store": "ledger", **_OF_TABLE},
    "archive_list": {"store": "archive", **_OF_TABLE},
    "catalog_list": {
        "store": "catalog",
        "collection": "lists",
        "key": "_id",
        "version": "version",
        "fields": {"_id": {"type": "string"}, "items": {"type": "json"}},
    },
}
LISTS: tuple[At, ...] = tuple(
    (entity, f"list-{number}") for entity in ENTITIES for number in range(PER_STORE)
)


async def seed(world: World) -> dict[At, Image]:
    """Make all lists, empty; give their images."""
    for connection in (world.ledger, world.archive):
        await connection.execute(SQL)
        await connection.execute(
            "INSERT INTO lists SELECT 'list-' || n, '', 1 FROM generate_series(0, $1) n",
            PER_STORE - 1,
        )
    world.catalog["lists"].insert_many(
        {"_id": f"list-{n}", "items": [], "version": Int64(1)} for n in range(PER_STORE)
    )
    return {at: {"items": (), "version": 1} for at in LISTS}


class Reader:
    """Reads lists past the coordinator, as any application would."""

    def __init__(self, world: World) -> None:
        self._dsn = {f"{store}_list": world.dsn_of[store] for store in ("ledger", "archive")}
        self._connections: dict[str, asyncpg.Connection] = {}
        self._mongo = AsyncMongoClient[Json](
            world.mongodb_uri, serverSelectionTimeoutMS=1000, socketTimeoutMS=2000
        )
        self._lists = self._mongo[world.name]["lists"]

    async def read(self, at: At) -> Any:
        """Give the items of a list as its entity shows them; None when its store is away."""
        entity, key = at
        try:
            async with asyncio.timeout(_READ_SECONDS):
                if entity == "catalog_list":
                    found = await self._lists.find_one({"_id": key})
                    return None if found is None else found["items"]
                connection = self._connections.get(entity)
                if connection is None or connection.is_closed():
                    connection = await asyncpg.connect(self._dsn[entity])
                    self._connections[entity] = connection
                return await connection.fetchval("SELECT items FROM lists WHERE id = $1", key)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, PyMongoError):
            return None

    async def close(self) -> None:
        for connection in self._connections.values():
            connection.terminate()
        await self._mongo.close()


async def appending(
    world: World,
    chance: random.Random,
    name: str,
    send: Callable[[Sent], Awaitable[None]],
    stop: asyncio.Event,
) -> None:
    """Be one client: read lists, append to them, await the outcome, and again until `stop`."""
    reader = Reader(world)
    number = 0
    try:
        while not stop.is_set():
            chosen = _chosen(chance)
            items = [await reader.read(at) for at in chosen]
            if any(each is None for each in items):
                await asyncio.sleep(0.2)
                continue
            number += 1
            await send(_append(f"{name}-{number}", dict(zip(chosen, items, strict=True))))
    finally:
        await reader.close()


def _chosen(chance: random.Random) -> list[At]:
    """Draw 2 to 5 lists, of at least two stores."""
    while True:
        chosen = chance.sample(LISTS, chance.randint(2, 5))
        if len({entity for entity, _ in chosen}) > 1:
            return chosen


def _append(unit: str, items: dict[At, Any]) -> Sent:
    operations = [
        update(entity, key, set={"items": _with(found, unit)}, expect={"items": {"eq": found}})
        for (entity, key), found in items.items()
    ]
    body: Json = {"id": unit, "timeout_ms": 30_000, "operations": operations}
    return Sent(unit, KIND, body, tuple(Append(*at) for at in items))


def _with(items: Any, unit: str) -> Any:
    return f"{items} {unit}".strip() if isinstance(items, str) else [*items, unit]


async def stored(world: World, ledger: Any, archive: Any) -> dict[At, Json]:
    """Read every list."""
    rows: dict[At, Json] = {}
    for entity, connection in (("ledger_list", ledger), ("archive_list", archive)):
        for row in await connection.fetch("SELECT * FROM lists"):
            rows[entity, row["id"]] = dict(row)
    for document in world.catalog["lists"].find():
        rows["catalog_list", document["_id"]] = document
    return rows
