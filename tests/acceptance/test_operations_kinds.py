"""Each kind of operation on each kind of store: what it does, refuses and announces (F16 to F24).

The same cases run on an entity of the journal's store, of a second PostgreSQL store and of MongoDB.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from decimal import Decimal

import pytest
import pytest_asyncio
from bson import Decimal128

from tests.acceptance.harness.operations import (
    Json,
    adding,
    check,
    delete,
    insert,
    setting,
    update,
    upsert,
)
from tests.acceptance.harness.outsider import stored
from tests.acceptance.harness.world import World, new_id
from tests.servers import Servers

STORES = ["ledger", "archive", "catalog"]
THINGS_SQL = """
CREATE TABLE things (
    id text PRIMARY KEY, name text NOT NULL, kind text, qty integer, small smallint,
    price numeric(8,2), code text UNIQUE, origin text, made timestamptz,
    given text DEFAULT 'by the column', data jsonb, size double precision, version bigint NOT NULL,
    CONSTRAINT no_thirteen CHECK (price <> 13)
);
"""


def _thing(store: str) -> Json:
    key = "_id" if store == "catalog" else "id"
    optional: Json = {"nullable": True}
    return {
        "store": store,
        ("collection" if store == "catalog" else "table"): "things",
        "key": key,
        "version": "version",
        "fields": {
            key: {"type": "string"},
            "name": {"type": "string"},
            "kind": {"type": "string", "default": "a", "enum": ["a", "b"]},
            "qty": {"type": "integer", "min": 0, "max": 100} | optional,
            "small": {"type": "integer"} | optional,
            "price": {"type": "decimal", "min": "0"} | optional,
            "code": {"type": "string"} | optional,
            "origin": {"type": "string", "read_only": True, "default": "web"},
            "made": {"type": "timestamp", "default": "now"},
            "given": {"type": "string"} | optional,
            "data": {"type": "json"} | optional,
            "size": {"type": "float"} | optional,
        },
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    all_servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    made = World(all_servers, tmp_path_factory.mktemp("world"))
    for store in STORES:
        made.entities[f"thing_{store}"] = _thing(store)
    try:
        await made.prepare()
        await made.ledger.execute(THINGS_SQL)
        await made.archive.execute(THINGS_SQL)
        made.catalog.create_collection("things", validator={"price": {"$ne": Decimal128("13")}})
        made.catalog.things.create_index(
            "code", unique=True, partialFilterExpression={"code": {"$exists": True}}
        )
        await made.start()
        yield made
    finally:
        await made.close()


@dataclass
class Case:
    """A row, the operations, and how it ends: a refusal's code and operation, or events."""

    name: str
    operations: Callable[[str, str], list[Json]]  # entity, key
    code: str | None = None
    at: int = 0
    events: str = ""  # the `op` of each
    versions: tuple[int | None, ...] = ()  # per operation; None: none was there
    after: Json | None = None  # a subset of the last image; None: gone, or not judged if no event
    before: Json | None = None  # what the row holds; None: it is not there


def _expecting(expect: Json) -> Callable[[str, str], list[Json]]:
    return lambda entity, key: [check(entity, key, expect=expect)]


ROW: Json = {"name": "n", "qty": 5, "price": "10.50", "small": 7, "size": 1.5, "data": {"a": [1]}}

CASES = [
    # F16
    Case("insert", lambda e, k: [insert(e, k, name="n")], events="c", versions=(1,),
         after={"name": "n", "kind": "a", "origin": "web", "qty": None, "version": 1}),
    Case("insert of an existing key", lambda e, k: [insert(e, k, name="n")], "already_exists",
         before=ROW),
    Case("insert twice", lambda e, k: [insert(e, k, name="n"), insert(e, k, name="n")],
         "already_exists", at=1),
    Case("insert after a delete", lambda e, k: [delete(e, k), insert(e, k, name="x")],
         events="dc", versions=(None, 1), after={"name": "x", "version": 1, "qty": None},
         before=ROW),
    Case("insert with null for a default", lambda e, k: [insert(e, k, name="n", qty=None)],
         events="c", after={"qty": None}),
    # F17
    Case("update", lambda e, k: [update(e, k, set={"name": "x"}, unset=["qty"],
                                        increment={"price": "-0.50"})],
         events="u", versions=(2,), after={"name": "x", "qty": None, "price": "10.00",
                                           "version": 2}, before=ROW),
    Case("update that changes nothing", lambda e, k: [setting(e, k, name="n")], events="u",
         versions=(2,), after={"name": "n", "version": 2}, before=ROW),
    Case("update of a missing key", lambda e, k: [setting(e, k, name="x")], "not_found"),
    Case("update of a missing key, expect", lambda e, k: [update(e, k, {"qty": 5}, set={"qty": 1})],
         "not_found"),
    Case("update ignored", lambda e, k: [update(e, k, {"qty": 5}, set={"qty": 1},
                                                if_missing="ignore")], versions=(None,)),
    Case("if_missing does not ignore expect", lambda e, k: [
        update(e, k, {"qty": 6}, set={"qty": 1}, if_missing="ignore")], "expectation_failed",
        before=ROW),
    Case("delete", lambda e, k: [delete(e, k, expect={"qty": 5})], events="d", before=ROW),
    Case("delete of a missing key", lambda e, k: [delete(e, k)], "not_found"),
    Case("delete ignored", lambda e, k: [delete(e, k, if_missing="ignore")], versions=(None,)),
    Case("delete twice", lambda e, k: [delete(e, k), delete(e, k)], "not_found", at=1, before=ROW),
    Case("delete, expect", lambda e, k: [delete(e, k, expect={"qty": 6})], "expectation_failed",
         before=ROW),
    # F18
    Case("upsert creates", lambda e, k: [upsert(e, k, name="n")], events="c", versions=(1,),
         after={"name": "n", "kind": "a", "origin": "web", "version": 1}),
    Case("upsert sets", lambda e, k: [upsert(e, k, qty=6)], events="u", versions=(2,),
         after={"name": "n", "qty": 6, "price": "10.50", "version": 2}, before=ROW),
    Case("upsert lacks a required field", lambda e, k: [upsert(e, k, qty=6)],
         "constraint_violated"),
    Case("upsert does not reset defaults", lambda e, k: [
        setting(e, k, kind="b"), upsert(e, k, qty=6)], events="uu", versions=(2, 3),
        after={"kind": "b"}, before=ROW),
    # F19
    Case("check", lambda e, k: [check(e, k)], versions=(1,), before=ROW),
    Case("check of a missing key", lambda e, k: [check(e, k)], "not_found"),
    Case("check of absence", lambda e, k: [check(e, k, absent=True)], versions=(None,)),
    Case("check of absence, but there", lambda e, k: [check(e, k, absent=True)], "already_exists",
         before=ROW),
    Case("absent false", lambda e, k: [check(e, k, absent=False)], versions=(1,), before=ROW),
    Case("check sees its own unit's writes", lambda e, k: [
        check(e, k, absent=True), insert(e, k, name="n"), check(e, k, expect={"name": "n"}),
        delete(e, k), check(e, k, absent=True)], events="cd"),
    # F14, F21
    Case("a chain", lambda e, k: [
        insert(e, k, name="1"), setting(e, k, name="2"), upsert(e, k, name="3"),
        setting(e, k, qty=1), adding(e, k, qty=2)],
        events="cuuuu", versions=(1, 2, 3, 4, 5), after={"name": "3", "qty": 3, "version": 5}),
    Case("a chain that fails late", lambda e, k: [
        setting(e, k, name="2"), delete(e, k), setting(e, k, name="3")], "not_found", at=2,
        before=ROW),
    # F22
    *(Case(f"expect {expect}", _expecting(expect), versions=(1,),
           before=ROW)
      for expect in (
          {"qty": 5}, {"qty": "5"}, {"qty": {"gt": 4, "lt": 6, "ne": 7}}, {"qty": {"in": [1, 5]}},
          {"qty": {"gte": 5, "lte": 5}}, {"price": "10.5"}, {"price": {"gt": "9.5"}},
          {"price": {"in": ["1", "10.500"]}}, {"name": {"gt": "Z", "lt": "\u00e9"}},
          {"name": {"lt": "\uffff"}}, {"code": None}, {"code": {"eq": None}},
          {"code": {"ne": "x"}}, {"code": {"in": ["x", None]}}, {"qty": {"ne": None}},
          {"size": 1.5}, {"size": {"gt": 1, "lt": 2}}, {"version": 1}, {"version": {"lt": 2}},
          {"kind": {"in": ["a", "unheard of"]}}, {"kind": {"ne": "unheard of"}},
          {"data": {"eq": {"a": [1]}}}, {"data": {"ne": {"a": [1, 2]}}}, {"data": {"ne": None}},
          {"qty": {"ne": 1000}}, {"origin": "web"}, {"made": {"gt": "2020-01-01T00:00:00+02:00"}},
      )),
    *(Case(f"expect fails {expect}", _expecting(expect),
           "expectation_failed", before=ROW)
      for expect in (
          {"qty": 6}, {"qty": {"gt": 5}}, {"qty": {"lt": 5}}, {"qty": {"gt": 4, "lt": 5}},
          {"qty": None}, {"qty": {"eq": None}}, {"qty": {"in": [None, 6]}}, {"qty": {"ne": 5}},
          {"code": {"ne": None}}, {"code": {"lt": "x"}}, {"code": {"gte": ""}},
          {"code": {"in": ["x"]}}, {"name": {"lt": "Z"}}, {"name": "N"}, {"name": "n "},
          {"price": "10.51"}, {"version": 2}, {"data": {"eq": {"a": [2]}}}, {"data": {"eq": None}},
          {"data": {"ne": {"a": [1]}}}, {"kind": "unheard of"}, {"name": "n", "qty": 4},
      )),
    # F23
    Case("increment of null", lambda e, k: [setting(e, k, qty=None), adding(e, k, qty=1)],
         "type_mismatch", at=1, before=ROW),
    Case("increment of unset", lambda e, k: [update(e, k, unset=["qty"]), adding(e, k, qty=1)],
         "type_mismatch", at=1, before=ROW),
    Case("increment below min", lambda e, k: [adding(e, k, qty=-6)], "out_of_bounds", before=ROW),
    Case("increment to min", lambda e, k: [adding(e, k, qty=-5)], events="u", after={"qty": 0},
         before=ROW),
    Case("increment to max", lambda e, k: [adding(e, k, qty="95")], events="u",
         after={"qty": 100}, before=ROW),
    Case("increment above max", lambda e, k: [adding(e, k, qty=96)], "out_of_bounds", before=ROW),
    Case("decimal below min", lambda e, k: [adding(e, k, price="-10.51")], "out_of_bounds",
         before=ROW),
    Case("increment of a float", lambda e, k: [adding(e, k, size=0.25)], events="u",
         after={"size": 1.75}, before=ROW),
    Case("a bound that is passed on the way", lambda e, k: [adding(e, k, qty=99),
                                                           adding(e, k, qty=-99)],
         "out_of_bounds", before=ROW),
    # F33
    Case("CHECK or validator", lambda e, k: [setting(e, k, price="13")], "constraint_violated",
         before=ROW),
    Case("UNIQUE in one unit", lambda e, k: [
        insert(e, k, name="n", code=k), insert(e, k + "2", name="n", code=k)],
        "constraint_violated", at=1),
]  # fmt: skip


def _image(entity: str, row: Json | None) -> Json | None:
    """Give a stored row in the shape of an image, as far as the cases look."""
    if row is None:
        return None
    shown: Json = {}
    for name, value in row.items():
        is_decimal = isinstance(value, Decimal128 | Decimal)
        shown[name] = str(value) if is_decimal else value
    return shown


@pytest.mark.parametrize("store", STORES)
async def test_f16_to_f23_every_kind_of_operation(
    world: World, store: str, subtests: pytest.Subtests
) -> None:
    """F9, F14, F16 to F23, F33, F34: outcome, events, chained images and what is stored."""
    entity = f"thing_{store}"
    keys = [new_id() for _ in CASES]
    seeds: list[Json] = [
        {"id": new_id(), "operations": [insert(entity, key, **case.before)]}
        for key, case in zip(keys, CASES, strict=True)
        if case.before is not None
    ]
    await world.topics.submit_all(seeds)
    for seed in seeds:
        assert (await world.result(seed["id"]))["status"] == "committed"
    befores = [await stored(world, entity, key) for key in keys]
    ids = [new_id() for _ in CASES]
    await world.topics.submit_all(
        {"id": unit_id, "operations": case.operations(entity, key)}
        for unit_id, key, case in zip(ids, keys, CASES, strict=True)
    )
    for case, key, unit_id, before in zip(CASES, keys, ids, befores, strict=True):
        with subtests.test(case.name):
            outcome = await world.result(unit_id)
            now = await stored(world, entity, key)
            if case.code is not None:
                error = outcome["error"]
                assert (outcome["status"], error and error["code"]) == ("rejected", case.code)
                if case.name != "UNIQUE in one unit":  # a set-based INSERT does not tell which
                    assert (error["operation"], error["entity"]) == (case.at, entity)
                assert now == before
                continue
            assert outcome["status"] == "committed", outcome["error"]
            records = case.events and await world.topics.changes(unit_id, len(case.events))
            written = [record.json for record in records or ()]
            assert "".join(event["op"] for event in written) == case.events
            _judge_chain(written, entity)
            entries = outcome["operations"]
            for version, entry in zip(case.versions, entries, strict=False):
                if version is not None:
                    assert entry.get("version") == version
            assert [e.get("applied", True) for e in entries].count(True) == len(case.events)
            if not written:
                assert now == before
            elif written[-1]["after"] is None:
                assert now is None
            else:
                last = written[-1]["after"]
                assert last | (case.after or {}) == last
                shown = _image(entity, now)
                assert shown is not None
                for name in ("name", "qty", "price", "version", "kind"):
                    assert shown.get(name) == last[name]
    await world.topics.caught_up()
    silent = [i for i, case in zip(ids, CASES, strict=True) if case.code or not case.events]
    assert not any(world.topics.changes_so_far(unit_id) for unit_id in silent)


def _judge_chain(events: list[Json], entity: str) -> None:
    """F34, F14: counters from 1; each `before` is the former's `after`."""
    for n, event in enumerate(events, 1):
        transaction = event["transaction"]
        assert (transaction["total_order"], transaction["data_collection_order"]) == (n, n)
        assert event["source"]["entity"] == entity
        assert (event["before"] is None) == (event["op"] == "c")
        assert (event["after"] is None) == (event["op"] == "d")
        if n > 1:
            assert event["before"] == events[n - 2]["after"]


async def test_f16_missing_fields_and_the_columns_own_default(world: World) -> None:
    """F16: left out: the column's own default acts; absent in MongoDB; null in the image."""
    key = new_id()
    for store in STORES:
        entity = f"thing_{store}"
        event = (await world.committed(insert(entity, key, name="n")))[0].json
        row = await stored(world, entity, key)
        assert row is not None
        if store == "catalog":
            assert "given" not in row
            assert "qty" not in row
            assert event["after"]["given"] is None
        else:
            assert row["given"] == "by the column"
        assert row["qty"] is None if store != "catalog" else True
        assert event["after"]["made"].endswith("Z")
        assert row["made"] is not None


@pytest.mark.parametrize("store", STORES)
async def test_f23_bounds_are_judged_only_where_an_operation_writes(
    world: World, store: str
) -> None:
    """F23: a stranger's value past the bounds does not hold up writes to other fields."""
    entity, key = f"thing_{store}", new_id()
    await world.committed(insert(entity, key, name="n", qty=5))
    if store == "catalog":
        world.catalog.things.update_one({"_id": key}, {"$set": {"qty": 500}})
    else:
        connection = world.ledger if store == "ledger" else world.archive
        await connection.execute("UPDATE things SET qty = 500 WHERE id = $1", key)
    await world.committed(setting(entity, key, name="x"), upsert(entity, key, name="y"))
    outcome = await world.run(adding(entity, key, qty=-1))
    assert outcome["error"]["code"] == "out_of_bounds"
    await world.committed(adding(entity, key, qty=-450))


async def test_f23_past_what_the_store_holds(world: World, subtests: pytest.Subtests) -> None:
    """F23: the column's own range and precision, int64 and 34 digits in MongoDB."""
    cases: list[tuple[str, Json, Json]] = [
        ("thing_ledger", {"small": 2**15 - 1}, {"small": 1}),
        ("thing_archive", {"small": -(2**15)}, {"small": -1}),
        ("thing_catalog", {"small": str(2**63 - 1)}, {"small": 1}),
        ("thing_catalog", {"small": str(-(2**63))}, {"small": -1}),
        ("thing_ledger", {"price": "999999.99"}, {"price": "0.01"}),
        ("thing_archive", {"price": "999999.99"}, {"price": "0.01"}),
        ("thing_catalog", {"price": "9" * 34}, {"price": "0.1"}),
        ("thing_ledger", {"size": 1.7e308}, {"size": 1.7e308}),
        ("thing_archive", {"size": 1.7e308}, {"size": 1.7e308}),
        ("thing_catalog", {"size": -1.7e308}, {"size": -1.7e308}),
    ]
    for entity, row, delta in cases:
        with subtests.test(f"{entity} {row}"):
            key = new_id()
            await world.committed(insert(entity, key, name="n", **row))
            before = await stored(world, entity, key)
            outcome = await world.run(adding(entity, key, **delta))
            assert (outcome["status"], outcome["error"] and outcome["error"]["code"]) == (
                "rejected",
                "out_of_bounds",
            )
            assert await stored(world, entity, key) == before


async def test_f22_strings_are_ordered_by_code_point_in_every_store(
    world: World, subtests: pytest.Subtests
) -> None:
    """F22: neither by collation nor by UTF-16."""
    ordered = ["", "A", "Z", "_", "a", "ab", "a\u0301", "b", "\u00e9", "\uffee", "\U0001f600"]
    for store in STORES:
        entity = f"thing_{store}"
        for lower, higher in itertools.pairwise(ordered):
            with subtests.test(f"{entity} {lower!r} < {higher!r}"):
                key = new_id()
                outcome = await world.run(
                    insert(entity, key, name=lower),
                    check(entity, key, expect={"name": {"lt": higher, "gte": lower}}),
                    setting(entity, key, name=higher),
                    check(entity, key, expect={"name": {"gt": lower}}),
                )
                assert outcome["status"] == "committed", outcome["error"]


async def test_f24_references_to_keys_that_are_drawn(world: World) -> None:
    """F24: at any index, as key or value, over stores; data inside json; kept for duplicates."""
    unit_id, text = new_id(), {"$ref": "3.key"}
    operations = [
        insert("order", unit_id, parcel={"$ref": "3.key"}, customer=None),
        check("sample", unit_id, absent=True),
        insert("ticket", title="a", parent={"$ref": "4.key"}),
        insert("parcel", label="p"),
        insert("ticket", title="b"),
        setting("parcel", {"$ref": "3.key"}, label="set"),
        insert("thing_ledger", unit_id, name="n", data={"x": text}),
        check("ticket", {"$ref": "2.key"}, expect={"title": "a"}),
    ]
    await world.topics.submit_all([{"id": unit_id, "operations": operations}] * 2)
    outcome = await world.result(unit_id)
    assert outcome["status"] == "committed", outcome["error"]
    keys = [each["key"] for each in outcome["operations"]]
    assert keys[5] == keys[3]
    assert keys[7] == keys[2] != keys[4]
    order = (await stored(world, "order", unit_id)) or {}
    assert str(order["parcel"].as_uuid()) == keys[3]
    ticket = await world.ledger.fetchrow("SELECT * FROM tickets WHERE id = $1", keys[2])
    assert str(ticket["parent"]) == keys[4]
    thing = await world.ledger.fetchval("SELECT data::text FROM things WHERE id = $1", unit_id)
    assert thing == '{"x": {"$ref": "3.key"}}'
    assert (await world.result(unit_id, "duplicate")) == outcome | {"duplicate": True}
    assert [each["label"] for each in world.catalog.parcels.find()] == ["set"]


async def test_f26_a_hundred_operations_over_three_stores(world: World) -> None:
    """F26, F34: 100 operations; `total_order` over all, `data_collection_order` per entity."""
    key = new_id()
    operations = [insert(f"thing_{STORES[n % 3]}", f"{key}-{n}", name=str(n)) for n in range(100)]
    events = [event.json for event in await world.committed(*operations, timeout_ms=60_000)]
    assert [event["transaction"]["total_order"] for event in events] == list(range(1, 101))
    counts: dict[str, int] = {}
    for n, event in enumerate(events):
        entity = event["source"]["entity"]
        assert entity == f"thing_{STORES[n % 3]}"
        counts[entity] = counts.get(entity, 0) + 1
        assert event["transaction"]["data_collection_order"] == counts[entity]
        assert event["after"]["name"] == str(n)
