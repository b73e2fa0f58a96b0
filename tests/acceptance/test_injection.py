"""Ten thousand injection strings, in every place where a sender may write something (I10).

None reaches a server as syntax. In PostgreSQL: the texts of the statements hold none of them, and
their number does not grow with them. In MongoDB, by its profiler: no filter is anything but ``_id``
against scalars, no operator is there but ours, and a hostile name is a member of a json field only.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from bson import SON
from pymongo.database import Database

from tests.acceptance.fuzz.grammar import INJECTIONS
from tests.acceptance.harness.operations import Json, insert
from tests.acceptance.harness.statements import StatementTap
from tests.acceptance.harness.waiting import until
from tests.acceptance.harness.world import World, new_id
from tests.servers import Servers

STRINGS = 10_000
MARK = re.compile("inj[0-9]+tion")
PROFILE_BYTES = 512 * 1024 * 1024

ENTITIES = ("sample", "wallet", "entry", "document")
TEXT_OF = {"sample": "text_", "wallet": "note", "entry": "note", "document": "text_"}
KEYS = {each: f"inject-{each}" for each in ENTITIES}


def hostile(number: int) -> str:
    """Give the string of that number; no other has its mark."""
    payload = INJECTIONS[number % len(INJECTIONS)]
    mark = f"inj{number}tion"
    return [f"{payload}{mark}", f"{mark}{payload}", f"{payload}{mark}{payload}"][number % 3]


def units(number: int) -> Iterator[tuple[Json, list[tuple[str, bytes | None]]]]:
    """Give every unit that carries a hostile string in one place: names first, values then."""
    text = hostile(number)
    entity = ENTITIES[number % len(ENTITIES)]
    field, key = TEXT_OF[entity], KEYS[entity]
    update: Json = {"op": "update", "entity": entity, "key": key}
    places: list[Json] = [
        {**update, "entity": text, "set": {field: "x"}},
        {**update, "op": text, "set": {field: "x"}},
        {**update, text: "x", "set": {field: "x"}},
        {**update, "set": {text: "x"}},
        {**update, "increment": {text: 1}},
        {**update, "unset": [text]},
        {**update, "set": {field: "x"}, "expect": {text: "x"}},
        {**update, "set": {field: "x"}, "expect": {field: {text: "x"}}},
        {**update, "set": {field: "x"}, "if_missing": text},
        {**update, "set": {field: {"$ref": text}}},
        {**update, "set": {field: {text: 1}}},
        {**update, "key": {text: 1}, "set": {field: "x"}},
        {**update, "set": {field: "x"}, "compensate": {"op": text}},
        {**update, "set": {field: "x"}, "compensate": {"op": "update", "set": {text: 1}}},
        {**update, "set": {"version": text}},
        {"op": "insert", "entity": "account", "key": text, "values": {}},
        {"op": "insert", "entity": "ticket", "key": text, "values": {}},
        {"op": "insert", "entity": "document", "key": "d", "values": {"oid": text, "day": text}},
        {"op": "insert", "entity": "sample", "key": "s", "values": {"amount": text, "uid": text}},
        {"op": "upsert", "entity": entity, "key": text, "values": {field: text}},
        {**update, "set": {field: text}},
        {**update, "set": {field: text}, "expect": {field: {"ne": text, "in": ["x", text]}}},
        {**update, "set": {field: "x"}, "compensate": {"op": "update", "set": {field: text}}},
        {"op": "delete", "entity": entity, "key": text, "if_missing": "ignore"},
        {"op": "check", "entity": entity, "key": text, "absent": True},
        {"op": "upsert", "entity": "sample", "key": "s", "values": {"raw": {text: [text]}}},
        {"op": "upsert", "entity": "document", "key": "d", "values": {"data": {text: [text]}}},
        {"op": "upsert", "entity": "order", "key": text, "values": {"lines": [text]}},
    ]
    for operation in places:
        yield {"id": new_id(), "operations": [operation]}, []
    good = {**update, "set": {field: "x"}}
    yield {"id": new_id(), "operations": [good], text: 1}, []
    yield {"id": new_id(), "operations": [good], "metadata": {text: text}}, []
    yield {"id": new_id(), "operations": [good]}, [("reply-to", text.encode())]
    yield {"id": new_id(), "operations": [good]}, [("traceparent", text.encode())]
    yield {"id": printable(text), "operations": [good]}, []
    yield {"cancel": printable(text), "reason": text}, []


def printable(text: str) -> str:
    """Give as much of a text as an id may hold."""
    return "".join(each for each in text if "!" <= each <= "~")[:128]


@pytest_asyncio.fixture(loop_scope="module")
async def tapped(
    all_servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[World, StatementTap]]:
    """A daemon whose statements are seen."""
    world = World(all_servers, tmp_path_factory.mktemp("world"))
    taps: list[StatementTap] = []
    try:
        await world.prepare({"batch": {"max_units": 25}})
        address = re.search(r"@([^/:]+):([0-9]+)/", world.dsn_of["ledger"])
        assert address is not None
        tap = StatementTap(address[1], int(address[2]))
        taps.append(tap)
        await tap.open()
        for store in ("ledger", "archive"):
            there, here = f"{address[1]}:{address[2]}", f"127.0.0.1:{tap.port}"
            world.settings["stores"][store]["dsn"] = world.dsn_of[store].replace(there, here)
        world.write_config()
        profile(world.catalog)
        await world.start()
        yield world, tap
    finally:
        await world.close()
        for tap in taps:
            await tap.close()


def profile(database: Database[Json]) -> None:
    """Let the server write down every command on this database."""
    database.create_collection("system.profile", capped=True, size=PROFILE_BYTES)
    database.command("profile", 2)


@pytest.mark.timeout(400)
async def test_no_injection_string_reaches_a_server_as_syntax(
    tapped: tuple[World, StatementTap],
) -> None:
    world, tap = tapped
    for entity, key in KEYS.items():
        await world.committed(insert(entity, key))
    await send(world, range(STRINGS // 2))
    known = set(tap.statements)
    seen_before = sum(tap.statements.values())
    await send(world, range(STRINGS // 2, STRINGS))
    world.catalog.command("profile", 0)

    assert seen_before > 1_000, "the daemon's statements go through the tap"
    marked = [text for text in tap.statements if MARK.search(text)]
    assert marked == []
    # A statement is prepared again on a connection that is new; none is new but by its columns.
    new = {re.sub(r"\s+", " ", text) for text in tap.statements} - {
        re.sub(r"\s+", " ", text) for text in known
    }
    assert len(new) <= 5, sorted(new)
    filters = sum(judge(entry) for entry in world.catalog["system.profile"].find())
    assert filters > 1_000
    await has_what_was_sent(world)
    assert (await world.run(insert("sample", new_id())))["status"] == "committed"


async def has_what_was_sent(world: World) -> None:
    """The strings went through as values, each as it is."""
    keys = [row[0] for row in await world.ledger.fetch("SELECT id FROM app.samples")]
    keys += [each["_id"] for each in world.catalog["wallets"].find({}, {"_id": 1})]
    found = [key for key in keys if MARK.search(key)]
    assert len(found) > 100
    numbers = {key: int(MARK.findall(key)[0][3:-4]) for key in found}
    assert {key: hostile(number) for key, number in numbers.items()} == {key: key for key in found}


async def send(world: World, numbers: range) -> None:
    """Send every place's unit with strings in turn, until each string has been sent."""
    shapes = len(list(units(0)))
    last: list[str] = []
    for number in numbers:
        # Every string goes through one place, and every place gets every kind of string.
        unit, headers = list(units(number))[(number * 7 + number // len(INJECTIONS)) % shapes]
        await world.topics.submit(unit, key=f"p{number % 4}", headers=headers)
        if number % 500 == 499:
            unit_id = await world.submit(insert("sample", new_id()), key=f"p{number % 4}")
            last.append(unit_id)
    for unit_id in last:
        assert (await world.result(unit_id, seconds=120))["status"] == "committed"

    async def is_idle() -> bool:
        return "coordinator_units_in_flight 0.0" in (await world.daemon.get("/metrics"))[1]

    await world.settled()
    await until(is_idle, "nothing is open any more", 60, world.daemon.tail)


# --- MongoDB --------------------------------------------------------------------------------------

OPERATORS = {"$set", "$unset", "$inc", "$eq", "$in", "$ne", "$db", "$clusterTime", "$setOnInsert"}


def judge(entry: Json) -> int:
    """Judge one entry of the profiler; give how many filters it has."""
    command = entry.get("command", {})
    collection = str(entry.get("ns", "")).partition(".")[2]
    own = collection.startswith("_coordinator") or collection.startswith("system")
    filters = [command[name] for name in ("filter", "q") if name in command]
    for condition in filters:
        judge_filter(condition, own=own)
    if "$truncated" in command:  # over 50 KB the profiler shows a text in place of the command
        return len(filters)
    for path in paths(command):
        names = [each for each in path if isinstance(each, str)]
        for at, name in enumerate(names):
            below_json = bool({"data", "lines", "raw"} & set(names[:at])) or own
            if not below_json:
                assert MARK.search(name) is None, path
                assert not name.startswith("$") or name in OPERATORS, path
    return len(filters)


def judge_filter(condition: Json, *, own: bool) -> None:
    """A mapped collection is asked by its key only, for scalars; ours by no stranger's name."""
    if own:
        assert not any(MARK.search(str(name)) for path in paths(condition) for name in path)
        return
    assert set(condition) == {"_id"}, condition
    wanted = condition["_id"]
    if isinstance(wanted, dict):
        assert wanted, condition
        assert set(wanted) <= {"$eq", "$in"}, condition
    for operand in wanted.values() if isinstance(wanted, dict) else [wanted]:
        for each in operand if isinstance(operand, list) else [operand]:
            assert not isinstance(each, dict | list | SON), condition


def paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Give the path of every member."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield (*above, name)
            yield from paths(each, (*above, name))
    elif isinstance(value, list):
        for at, each in enumerate(value):
            yield from paths(each, (*above, at))
