"""Reading a MongoDB store's catalog: whether it has transactions, and its collections.

Owns what the answers mean. Refuses to know a driver: it asks a `MongodbServer`, which raises
`StoreUnavailable` by itself when the server is away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from coordinator.mapping.catalog import LiveCollection, MongodbCatalog


class MongodbServer(Protocol):
    """One database of a MongoDB server."""

    async def hello(self) -> Mapping[str, Any]:
        """Give the answer to the command ``hello``."""

    async def list_collections(self) -> Sequence[Mapping[str, Any]]:
        """Give the documents of ``listCollections``: each with ``name``, ``type``, ``options``."""


async def read_catalog(server: MongodbServer) -> MongodbCatalog:
    """Read what the store says of itself and of its collections."""
    hello = await server.hello()
    return MongodbCatalog(
        # mongos answers for a sharded cluster, whose shards are replica sets.
        has_transactions=bool(hello.get("setName")) or hello.get("msg") == "isdbgrid",
        collections={
            found["name"]: LiveCollection(
                name=found["name"],
                kind=str(found.get("type", "collection")),
                capped=bool(found.get("options", {}).get("capped")),
                has_collation=bool(found.get("options", {}).get("collation")),
            )
            for found in await server.list_collections()
        },
    )
