"""Our own collections in a database, and what the live catalog says about it (F35, F37).

``_coordinator_undo`` holds the undo records and tombstones, ``_coordinator_fences`` the workers'
fences, ``_coordinator_shares`` what units share. They are found by ``_id`` alone, but for shares
that are swept by their last unit, for which there is an index. Refuses a standalone server:
without a replica set there are no transactions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from pymongo.errors import OperationFailure

from coordinator.domain.errors import ConfigurationInvalid
from coordinator.participants.mongodb.driver import MAJORITY, Driver
from coordinator.participants.mongodb.errors import DRIVER_ERRORS, NAMESPACE_EXISTS, translate

UNDO: Final = "_coordinator_undo"
FENCES: Final = "_coordinator_fences"
SHARES: Final = "_coordinator_shares"

_STATEMENT_TIMEOUT_MS: Final = 5_000


class MongodbServerView:
    """What the mapping's check asks of a server; see `coordinator.mapping.MongodbServer`."""

    def __init__(self, driver: Driver, store: str) -> None:
        self._driver = driver
        self._store = store

    async def hello(self) -> Mapping[str, Any]:
        """Give the answer to the command ``hello``; raise `StoreUnavailable`."""
        try:
            return await self._driver.run({"hello": 1, "maxTimeMS": _STATEMENT_TIMEOUT_MS})
        except DRIVER_ERRORS as error:
            raise translate(self._store, error) from error

    async def list_collections(self) -> Sequence[Mapping[str, Any]]:
        """Give the documents of ``listCollections``; raise `StoreUnavailable`, `BatchRefused`."""
        try:
            return await self._driver.list_collections()
        except DRIVER_ERRORS as error:
            raise translate(self._store, error) from error


async def prepare(driver: Driver, store: str, collections: Collection[str]) -> None:
    """Make the collections that are missing, ours included.

    Raises `ConfigurationInvalid` for a server without transactions, `StoreUnavailable`, and
    `BatchRefused` when a right is missing.
    """
    server = MongodbServerView(driver, store)
    hello = await server.hello()
    # A router of a sharded cluster has no set of its own, but transactions.
    if not hello.get("setName") and hello.get("msg") != "isdbgrid":
        raise ConfigurationInvalid(
            [
                f"stores.{store}: the MongoDB server is no member of a replica set, so it has no "
                "transactions; start it with --replSet and run rs.initiate()"
            ]
        )
    present = {each["name"] for each in await server.list_collections()}
    for name in (UNDO, FENCES, SHARES, *collections):
        if name not in present:
            await _create(driver, store, _creation(name))


def _creation(name: str) -> Mapping[str, Any]:
    if name == SHARES:  # with its collection at once, or a crash would leave that without it
        return {"createIndexes": SHARES, "indexes": [{"key": {"last": 1}, "name": "last"}]}
    return {"create": name}


async def _create(driver: Driver, store: str, command: Mapping[str, Any]) -> None:
    try:
        await driver.run(
            {
                **command,
                "writeConcern": {**MAJORITY, "wtimeout": _STATEMENT_TIMEOUT_MS},
                "maxTimeMS": _STATEMENT_TIMEOUT_MS,
            }
        )
    except DRIVER_ERRORS as error:
        if isinstance(error, OperationFailure) and error.code == NAMESPACE_EXISTS:
            return
        raise translate(store, error) from error


async def collections_with_rules(
    driver: Driver, counted: Mapping[str, Collection[str]]
) -> frozenset[str]:
    """Say which of these collections judge a document at every write: by validator or unique index.

    ``counted`` are the fields that are written, by collection. What cannot be asked is taken to
    have rules.
    """
    try:
        present = {each["name"]: each for each in await driver.list_collections()}
        return frozenset(
            [
                name
                for name, fields in counted.items()
                if "validator" in present.get(name, _UNKNOWN)["options"]
                or await _is_unique(driver, name, fields)
            ]
        )
    except (*DRIVER_ERRORS, KeyError):
        return frozenset(counted)


_UNKNOWN: Final[Mapping[str, Any]] = {"options": {"validator": None}}


async def _is_unique(driver: Driver, collection: str, fields: Collection[str]) -> bool:
    command = {"listIndexes": collection, "maxTimeMS": _STATEMENT_TIMEOUT_MS}
    indexes = (await driver.run(command))["cursor"]["firstBatch"]
    return any(
        each.get("unique") and any(name.partition(".")[0] in fields for name in each["key"])
        for each in indexes
    )
