"""What ``coordinator doctor`` asks a MongoDB server; nothing is changed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from bson.datetime_ms import DatetimeMS

from coordinator.domain.diagnosis import MongodbFacts
from coordinator.participants.mongodb.bookkeeping import FENCES, UNDO
from coordinator.participants.mongodb.driver import Driver
from coordinator.participants.mongodb.errors import DRIVER_ERRORS, translate

_TIMEOUT_MS: Final = 5_000
_ACTIONS: Final = ("find", "insert", "update", "remove")


async def read_facts(
    driver: Driver, store: str, database: str, collections: Collection[str]
) -> MongodbFacts:
    """Ask a server; ``collections`` are those that are mapped. Raises `StoreUnavailable`."""
    try:
        before = datetime.now(UTC)
        hello = await driver.run({"hello": 1, "maxTimeMS": _TIMEOUT_MS})
        after = datetime.now(UTC)
        build = await driver.run({"buildInfo": 1})
        status = await driver.run({"connectionStatus": 1, "showPrivileges": True})
    except DRIVER_ERRORS as error:
        raise translate(store, error) from error
    journaled: bool | None = None
    with suppress(*DRIVER_ERRORS):  # only some may ask this
        config = await driver.run_on_admin({"replSetGetConfig": 1})
        journaled = bool(config["config"].get("writeConcernMajorityJournalDefault", True))
    error_span = (after - before) / 2
    at = _time(hello["localTime"])
    return MongodbFacts(
        version=str(build["version"]),
        set_name=hello.get("setName"),
        is_router=hello.get("msg") == "isdbgrid",
        is_writable=bool(hello.get("isWritablePrimary")),
        members=len(hello.get("hosts", ())) + len(hello.get("passives", ())),
        arbiters=len(hello.get("arbiters", ())),
        majority_is_journaled=journaled,
        missing_rights=tuple(_missing(status["authInfo"], database, (UNDO, FENCES, *collections))),
        clock_seconds=(at - (before + error_span)).total_seconds(),
        clock_error_seconds=error_span.total_seconds(),
    )


def _time(told: datetime | DatetimeMS) -> datetime:
    """Give an aware time, whichever way the driver was told to read it."""
    at = told.as_datetime() if isinstance(told, DatetimeMS) else told
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _missing(auth: Mapping[str, Any], database: str, collections: Collection[str]) -> Iterator[str]:
    """Name each right that is missing; where nobody is authenticated nobody is asked for any."""
    users = auth.get("authenticatedUsers", ())
    if not users:
        return
    for collection in collections:
        granted: set[str] = set()
        for privilege in auth.get("authenticatedUserPrivileges", ()):
            if _covers(privilege["resource"], database, collection):
                granted.update(privilege["actions"])
        for action in _ACTIONS:
            if action not in granted and "anyAction" not in granted:
                who = users[0]["user"]
                yield f"the user {who} lacks {action} on {database}.{collection}"


def _covers(resource: Mapping[str, Any], database: str, collection: str) -> bool:
    if resource.get("anyResource"):
        return True
    return resource.get("db") in ("", database) and (
        resource.get("collection") in ("", collection) and "db" in resource
    )
