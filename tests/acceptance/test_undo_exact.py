"""Undo gives everything back: bytes of documents, text of rows, no event (F6, F27, F28, I2, I8).

Every kind of write is in one unit, which fails only after MongoDB and the second PostgreSQL store
were written: at the pivot, each time in another way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from tests.acceptance.harness.operations import (
    Json,
    adding,
    delete,
    insert,
    setting,
    update,
    upsert,
)
from tests.acceptance.harness.outsider import holding, stored
from tests.acceptance.harness.world import World, new_id, new_number

RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)


def raw(world: World, collection: str, key: Any) -> bytes | None:
    """Give a document's very bytes."""
    found: Any = world.catalog.get_collection(collection, codec_options=RAW).find_one({"_id": key})
    very: bytes | None = None if found is None else found.raw
    return very


async def row_text(world: World, key: Any, table: str = "entries") -> str | None:
    """Give a row of the second PostgreSQL store as its text, numbers in their own scale."""
    text: str | None = await world.archive.fetchval(
        f"SELECT t::text FROM {table} t WHERE id = $1", key
    )
    return text


# --- the ways to fail after the others were written ---------------------------------------------

Failure = tuple[list[Json], str, dict[str, Any]]
Failing = Callable[[World, AsyncExitStack], Coroutine[Any, Any, Failure]]


async def _check(world: World, stack: AsyncExitStack) -> Failure:
    return [insert("account", new_number(), balance="950000")], "constraint_violated", {}


async def _unique(world: World, stack: AsyncExitStack) -> Failure:
    taken = f"{new_id()}@x"
    await world.committed(insert("customer", new_number(), name="n", email=taken))
    operation = insert("customer", new_number(), name="n", email=taken)
    return [operation], "constraint_violated", {}


async def _deferred(world: World, stack: AsyncExitStack) -> Failure:
    seat = new_number()
    await world.committed(insert("seat", seat, place=seat))
    return [insert("seat", new_number(), place=seat)], "constraint_violated", {}


async def _foreign_key(world: World, stack: AsyncExitStack) -> Failure:
    return [insert("invoice", new_id(), customer=new_number())], "constraint_violated", {}


async def _deadline(world: World, stack: AsyncExitStack) -> Failure:
    number = new_number()
    await world.committed(insert("account", number))
    await stack.enter_async_context(holding(world, "accounts", number))
    return [setting("account", number, note="x")], "deadline_exceeded", {"timeout_ms": 1200}


FAILINGS: dict[str, Failing] = {
    "CHECK": _check,
    "UNIQUE": _unique,
    "deferred UNIQUE": _deferred,
    "foreign key": _foreign_key,
    "row lock past the deadline": _deadline,
}


@pytest_asyncio.fixture(loop_scope="module")
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as held:
        yield held


# --- what is written before ---------------------------------------------------------------------


def _everything() -> Json:
    """Unmapped members of every BSON type, some of which drivers like to change."""
    return {
        "int32": 7,
        "int64": Int64(7),
        "whole double": 7.0,
        "minus zero": -0.0,
        "nan": float("nan"),
        "decimal": Decimal128("1.2300"),
        "decimal infinity": Decimal128("-Infinity"),
        "exponent": Decimal128("1E+3"),
        "nothing": None,
        "when": datetime(2020, 2, 29, 1, 2, 3, 4000, UTC),
        "oid": ObjectId("0123456789abcdef01234567"),
        "regex": Regex("^a", "i"),
        "timestamp": Timestamp(4, 5),
        "code": Code("f()"),
        "scoped": Code("f()", {"x": 1}),
        "low": MinKey(),
        "high": MaxKey(),
        "old binary": Binary(b"\x01\x02", 2),
        "old uuid": Binary(bytes(16), 3),
        "uuid": Binary(bytes(range(16)), 4),
        "bytes": b"\x00\xff",
        "ref": DBRef("c", 1),
        "nested": {"z": 1, "a": [1, Int64(1), 1.0, {"y": None}], "$odd": 1, "dot.ted": 2, "": 3},
        "list": [],
        "text": "\u0000\U0001f600",
    }


def _documents() -> dict[str, Json]:
    """Wallets as strangers left them: odd types of mapped fields, unmapped ones in between."""
    return {
        "full": {
            "first": 1,
            "note": "n",
            **_everything(),
            "points": 5,
            "balance": Decimal128("10.00"),
            "state": None,
            "last": 1,
            "version": 3,
        },
        "int32": {"version": 1, "points": 5, "balance": Decimal128("10.00")},
        "int64": {"points": Int64(5), "balance": Decimal128("10"), "version": Int64(1)},
        "double": {"points": 5.0, "balance": Decimal128("1E+1"), "version": 1.0},
        "nulls": {"points": 0, "note": None, "state": None, "version": 2, "balance": None},
        "sparse": {"points": 1, "balance": Decimal128("0.0"), "version": 1},
        "alien": {
            "note": 5,
            "state": {"a": 1},
            "balance": Decimal128("2"),
            "points": 1,
            "version": 1,
        },
    }


Writing = Callable[[str, Any], list[Json]]

WRITES: dict[str, Writing] = {
    "set": lambda e, k: [setting(e, k, note="during", state="s")],
    "set to null": lambda e, k: [setting(e, k, note=None)],
    "unset": lambda e, k: [update(e, k, unset=["note", "state"])],
    "the same values": lambda e, k: [setting(e, k, note="n")],
    "increment": lambda e, k: [adding(e, k, points=3)],
    "increment of a decimal": lambda e, k: [update(e, k, set={"balance": "7.5"})],
    "upsert": lambda e, k: [upsert(e, k, note="during", points=9)],
    "delete": lambda e, k: [delete(e, k)],
    "delete, then insert": lambda e, k: [delete(e, k), insert(e, k, note="again")],
    "three updates": lambda e, k: [
        setting(e, k, note="a"),
        update(e, k, unset=["note"], increment={"points": 1}),
        setting(e, k, points=100, note="b"),
    ],
    "update, then delete": lambda e, k: [setting(e, k, state="x"), delete(e, k)],
}


def _for_entries(operations: list[Json]) -> list[Json]:
    """Turn the writes of a wallet into those of an entry."""
    renamed = {"points": "count", "balance": "amount"}
    parts = ("set", "increment", "values")
    return [
        {
            name: {renamed.get(f, f): v for f, v in part.items()} if name in parts else part
            for name, part in operation.items()
        }
        for operation in operations
    ]


ROWS: dict[str, tuple[Any, ...]] = {
    "full": (Decimal("1.2300"), "n", None, "h", 5, 3),
    "nulls": (None, None, None, None, None, 7),
}


@dataclass
class Written:
    """One thing that a unit writes and that must end as it was."""

    name: str
    entity: str
    key: str
    before: Any = None

    async def now(self, world: World) -> Any:
        if self.entity == "wallet":
            return raw(world, "wallets", self.key)
        return await row_text(world, self.key)


async def _seed(world: World, write: str, documents: set[str]) -> tuple[list[Json], list[Written]]:
    """Put documents and rows there; give the writes to them."""
    operations: list[Json] = []
    things: list[Written] = []
    for name, document in _documents().items():
        if name in documents:
            things.append(Written(name, "wallet", new_id()))
            world.catalog.wallets.insert_one({"_id": things[-1].key, **document})
            operations += WRITES[write]("wallet", things[-1].key)
    for name, row in ROWS.items():
        if name == "nulls" and "increment" in str(WRITES[write]("entry", "k")):
            continue  # F23: it would be refused
        things.append(Written(name, "entry", new_id()))
        await world.archive.execute(
            "INSERT INTO entries (id, amount, note, state, hidden, count, version)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7)",
            things[-1].key,
            *row,
        )
        operations += _for_entries(WRITES[write]("entry", things[-1].key))
    for thing in things:
        thing.before = await thing.now(world)
    return operations, things


@pytest.mark.parametrize("failing", FAILINGS)
async def test_f27_documents_and_rows_end_exactly_as_they_were(
    world: World, stack: AsyncExitStack, failing: str, subtests: pytest.Subtests
) -> None:
    """F27, F6, I2, I8: byte by byte, unmapped fields, types and order included; no event."""
    documents = set(_documents()) if failing == "CHECK" else {"full", "double"}
    units: dict[str, tuple[str, list[Written]]] = {}
    for write in WRITES:
        operations, things = await _seed(world, write, documents)
        failure, code, members = await FAILINGS[failing](world, stack)
        units[write] = await world.submit(*operations, *failure, **members), things
    fresh = [Written("new", entity, new_id()) for entity in ("wallet", "entry")]
    failure, code, members = await FAILINGS[failing](world, stack)
    created = await world.submit(
        *(insert(f.entity, f.key, note="x") for f in fresh),
        *(setting(f.entity, f.key, note="y") for f in fresh),
        *(upsert(f.entity, f.key + "-2", note="z") for f in fresh),
        *failure,
        **members,
    )
    units["creations"] = created, [*fresh, *(Written("new", f.entity, f.key + "-2") for f in fresh)]
    for write, (unit_id, things) in units.items():
        outcome = await world.result(unit_id)
        with subtests.test(f"{write}: outcome"):
            assert (outcome["status"], outcome["error"]["code"]) == ("compensated", code), outcome
            assert outcome["operations"] == []
        for thing in things:
            with subtests.test(f"{write}: {thing.entity} {thing.name}"):
                assert await thing.now(world) == thing.before, _told(thing, await thing.now(world))
    await world.settled()
    for write, (unit_id, _) in units.items():
        with subtests.test(f"{write}: no event"):
            assert world.topics.changes_so_far(unit_id) == []


def _told(thing: Written, now: Any) -> str:
    if thing.entity != "wallet" or now is None or thing.before is None:
        return f"{now} is not {thing.before}"
    return f"{RawBSONDocument(now)!s}\nis not\n{RawBSONDocument(thing.before)!s}"


async def test_f27_versions_go_on_from_where_they_were(world: World) -> None:
    """F21: undo restores the version exactly; the next write counts on from there."""
    key = new_id()
    await world.committed(insert("wallet", key, note="a"), insert("entry", key, note="a"))
    undone = await world.run(
        setting("wallet", key, note="b"),
        setting("wallet", key, note="c"),
        setting("entry", key, note="b"),
        insert("account", new_number(), balance="950000"),
    )
    assert undone["status"] == "compensated"
    outcome = await world.run(setting("wallet", key, note="d"), setting("entry", key, note="d"))
    assert [each["version"] for each in outcome["operations"]] == [2, 2]


async def test_f27_a_later_unit_on_the_same_keys_waits_for_the_undo(world: World) -> None:
    """I5: who is admitted behind a unit that is undone sees what was before it."""
    for entity in ("wallet", "entry"):
        key = new_id()
        await world.committed(insert(entity, key, note="before"))
        failing = [
            await world.submit(
                setting(entity, key, note=f"during {n}"),
                insert("account", new_number(), balance="950000"),
                key=key,
            )
            for n in range(5)
        ]
        last = await world.submit(
            update(entity, key, {"note": "before", "version": 1}, set={"note": "after"}), key=key
        )
        assert (await world.result(last))["status"] == "committed"
        assert {o["status"] for o in await world.results(failing)} == {"compensated"}
        event = (await world.topics.changes(last, 1))[0].json
        assert (event["before"]["note"], event["after"]["version"]) == ("before", 2)


SPECIAL_SQL = """
CREATE TABLE special (
    id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    serial bigint GENERATED ALWAYS AS IDENTITY,
    label text NOT NULL,
    shout text GENERATED ALWAYS AS (upper(label)) STORED,
    tags text[] DEFAULT '{a,NULL,"b c"}',
    inside jsonb DEFAULT '{"z": 1.50, "a": null}',
    plain json DEFAULT '{"z": 1.50,  "a": 1, "a": 2}',
    spans tstzrange DEFAULT '[2020-01-01 00:00:00.123456+00,)',
    net inet DEFAULT '10.0.0.1/8',
    price money DEFAULT 12.5,
    bits bit(3) DEFAULT B'101',
    raw bytea DEFAULT '\\x00ff',
    tiny real DEFAULT 0.1,
    wide double precision DEFAULT 'NaN',
    fine numeric DEFAULT 1.2300,
    clock time DEFAULT '24:00',
    since interval DEFAULT '1 mon 2 days 03:04:05.678',
    far timestamptz DEFAULT 'infinity',
    "weird ""name" text DEFAULT E'\\\\ '' ',
    pad char(5) DEFAULT 'x'
);
"""


@pytest_asyncio.fixture(loop_scope="module")
async def special_world(make_world: Any) -> World:
    """A world with a table in which every column is peculiar, and four rows in it."""
    world: World = await make_world(
        entities={
            "special": {
                "store": "archive",
                "table": "special",
                "key": "id",
                "fields": {"id": {"type": "integer"}, "label": {"type": "string"}},
            }
        },
        start=False,
    )
    await world.archive.execute(SPECIAL_SQL)
    await world.start()
    await world.archive.execute(
        "INSERT INTO special (id, label) SELECT n, 'label ' || n FROM generate_series(1, 4) n"
    )
    return world


async def test_f27_f30_special_columns_come_back(special_world: World) -> None:
    """F27, F30: unmapped columns of any type; generated left out, identity columns kept."""
    world, keys = special_world, range(1, 5)
    before = [await row_text(world, key, "special") for key in keys]
    outcome = await world.run(
        delete("special", 1),
        setting("special", 2, label="during"),
        upsert("special", 3, label="during"),
        insert("special", 5, label="new"),
        insert("account", new_number(), balance="950000"),
    )
    assert (outcome["status"], outcome["error"]["code"]) == ("compensated", "constraint_violated")
    assert [await row_text(world, key, "special") for key in keys] == before
    assert await world.archive.fetchval("SELECT count(*) FROM special") == 4
    assert world.topics.changes_so_far(outcome["unit"]) == []


async def test_f27_a_row_deleted_and_inserted_again_keeps_its_identity_columns(
    special_world: World,
) -> None:
    """F27: a second identity column, GENERATED ALWAYS: the number drawn anew is undone too."""
    before = await row_text(special_world, 4, "special")
    outcome = await special_world.run(
        delete("special", 4),
        insert("special", 4, label="again"),
        insert("account", new_number(), balance="950000"),
    )
    assert outcome["status"] == "compensated"
    assert await row_text(special_world, 4, "special") == before


async def test_f29_without_a_stranger_every_policy_undoes_alike(world: World) -> None:
    """F27, F29: force and skip say something of strangers only."""
    operations: list[Json] = []
    before: dict[str, Any] = {}
    for policy in ("force", "skip"):
        key = new_id()
        for entity in (f"wallet_{policy}", f"entry_{policy}"):
            await world.committed(insert(entity, key, note="before"), insert(entity, key + "d"))
            operations += [setting(entity, key, note="x", state="y"), delete(entity, key + "d")]
            for each in (key, key + "d"):
                before[f"{entity} {each}"] = await stored(world, entity, each)
    outcome = await world.run(*operations, insert("account", new_number(), balance="950000"))
    assert outcome["status"] == "compensated"
    for name, was in before.items():
        assert await stored(world, *name.split()) == was
