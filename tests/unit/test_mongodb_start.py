"""Opening a driver, and what a server must be: no server needed to refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from coordinator.domain.errors import BatchRefused, ConfigurationInvalid, ErrorCode
from coordinator.participants.mongodb.bookkeeping import prepare
from coordinator.participants.mongodb.driver import Command, Driver, open_driver
from coordinator.participants.mongodb.errors import of_reply, violation


class Standalone:
    """A server that is no member of a replica set."""

    async def run(self, command: Command, session: object = None) -> Mapping[str, Any]:
        assert "hello" in command, "nothing is made on such a server"
        return {"isWritablePrimary": True, "ok": 1.0}


async def test_a_standalone_server_is_refused() -> None:
    with pytest.raises(ConfigurationInvalid, match=r"stores\.catalog.*replica set"):
        await prepare(cast(Driver, Standalone()), "catalog", ["things"])


@pytest.mark.parametrize(
    ("uri", "database", "kind"),
    [
        ("mongodb://u:hunter2@h:x/", "app", "motor"),
        ("postgres://u:hunter2@h/", "app", "pymongo"),
        ("mongodb://u:hunter2@h/?replicaSet=rs0", "a b", "pymongo"),
        ("mongodb://u:hunter2@h/?datetime_conversion=x", "app", "motor"),
        ("mongodb://u:hunter2@h/", "app", "mongoose"),
    ],
)
def test_a_wrong_address_is_refused_without_its_secret(  # F39
    uri: str, database: str, kind: str
) -> None:
    with pytest.raises(ConfigurationInvalid) as error:
        open_driver(uri, database, kind)
    assert "hunter2" not in str(error.value)


DUPLICATE = {
    "index": 0,
    "code": 11000,
    "errmsg": 'E11000 duplicate key error index: by_email dup key: { e: "secret" }',
    "keyPattern": {"e": 1},
    "keyValue": {"e": "secret"},
}


def test_messages_name_the_index_and_never_a_value() -> None:  # F39
    named = violation(DUPLICATE, "people")
    assert named is not None
    assert named[0] is ErrorCode.CONSTRAINT_VIOLATED
    assert "by_email of collection people" in named[1]
    error = of_reply("catalog", {"writeErrors": [DUPLICATE]})
    assert isinstance(error, BatchRefused)
    assert "secret" not in named[1] + str(error)


def test_a_key_that_exists_is_said_to_exist() -> None:
    on_key = {**DUPLICATE, "keyPattern": {"_id": 1}, "errmsg": "index: _id_ dup key"}
    assert (violation(on_key, "people") or (None, ""))[0] is ErrorCode.ALREADY_EXISTS
