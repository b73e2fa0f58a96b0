"""Our own collections in a database, and what the live catalog says about it (F35, F37).

``_coordinator_undo`` holds the undo records and tombstones, ``_coordinator_fences`` the workers'
fences. Both are found by ``_id`` alone, so there is no index to make. Refuses a standalone server:
without a replica set there are no transactions.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from pymongo.errors import OperationFailure

from coordinator.domain.errors import ConfigurationInvalid
from coordinator.participants.mongodb.driver import MAJORITY, Driver
from coordinator.participants.mongodb.errors import DRIVER_ERRORS, NAMESPACE_EXISTS, translate

UNDO: Final = "_coordinator_undo"
FENCES: Final = "_coordinator_fences"

_STATEMENT_TIMEOUT_MS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Catalog:
    """What a mapping is compared with. ``set_name`` is ``None`` for a standalone server."""

    set_name: str | None
    collections: frozenset[str]


async def read_catalog(driver: Driver, store: str) -> Catalog:
    """Read the replica set's name and the collections; raise `StoreUnavailable`, `BatchRefused`."""
    try:
        hello = await driver.run({"hello": 1, "maxTimeMS": _STATEMENT_TIMEOUT_MS})
        # A router of a sharded cluster has no set of its own, but transactions.
        is_router = hello.get("msg") == "isdbgrid"
        set_name = "sharded cluster" if is_router else hello.get("setName")
        return Catalog(set_name, await driver.list_collections())
    except DRIVER_ERRORS as error:
        raise translate(store, error) from error


async def prepare(driver: Driver, store: str, collections: Collection[str]) -> None:
    """Make the collections that are missing, ours included.

    Raises `ConfigurationInvalid` for a server without transactions, `StoreUnavailable`, and
    `BatchRefused` when a right is missing.
    """
    catalog = await read_catalog(driver, store)
    if catalog.set_name is None:
        raise ConfigurationInvalid(
            [
                f"stores.{store}: the MongoDB server is no member of a replica set, so it has no "
                "transactions; start it with --replSet and run rs.initiate()"
            ]
        )
    for name in (UNDO, FENCES, *collections):
        if name not in catalog.collections:
            await _create(driver, store, name)


async def _create(driver: Driver, store: str, name: str) -> None:
    try:
        await driver.run(
            {
                "create": name,
                "writeConcern": {**MAJORITY, "wtimeout": _STATEMENT_TIMEOUT_MS},
                "maxTimeMS": _STATEMENT_TIMEOUT_MS,
            }
        )
    except DRIVER_ERRORS as error:
        if isinstance(error, OperationFailure) and error.code == NAMESPACE_EXISTS:
            return
        raise translate(store, error) from error
