"""Stored values that are not of the declared type: shown, never trusted, always deletable (F33)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bson import (
    Binary,
    Code,
    DatetimeMS,
    Decimal128,
    Int64,
    MaxKey,
    ObjectId,
    Regex,
    Timestamp,
)

from tests.acceptance.harness.operations import Json, adding, check, delete, setting, update
from tests.acceptance.harness.topics import Record
from tests.acceptance.harness.world import World, new_id

UUID = "0198c0de-0000-7000-8000-0000000000ab"

# field, what a stranger stored, and an operand of the declared type
ALIENS: list[tuple[str, Any, Any]] = [
    ("text_", 5, "5"),
    ("text_", ObjectId(), "x"),
    ("text_", {"a": 1}, "x"),
    ("text_", Code("f()"), "f()"),
    ("int_", "5", 5),
    ("int_", 1.5, 1),
    ("int_", float("nan"), 1),
    ("int_", float("inf"), 1),
    ("int_", True, 1),
    ("int_", [5], 5),
    ("int_", Timestamp(1, 2), 1),
    ("amount", "1.5", "1.5"),
    ("amount", Decimal128("NaN"), "1"),
    ("amount", Decimal128("Infinity"), "1"),
    ("double_", "1.5", 1.5),
    ("double_", {"x": float("nan")}, 1.5),
    ("flag", 1, True),
    ("flag", "true", True),
    ("at_", "2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z"),
    ("at_", 1577836800000, "2020-01-01T00:00:00Z"),
    ("at_", DatetimeMS(2**60), "2020-01-01T00:00:00Z"),
    ("at_", DatetimeMS(-(2**60)), "2020-01-01T00:00:00Z"),
    ("day", "2020-01-01", "2020-01-01"),
    ("day", DatetimeMS(2**60), "2020-01-01"),
    ("uid", UUID, UUID),
    ("uid", Binary(bytes(16), 3), UUID),
    ("uid", Binary(bytes(15), 4), UUID),
    ("bytes_", "AP8=", "AP8="),
    ("oid", "0123456789abcdef01234567", "0123456789abcdef01234567"),
    ("oid", 5, "0123456789abcdef01234567"),
]


def strict(record: Record) -> Json:
    """Read an event as strictly as a consumer in another language would."""

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    assert record.value is not None
    value: Json = json.loads(record.value, parse_constant=refuse)
    return value


async def test_f33_alien_documents(world: World, subtests: pytest.Subtests) -> None:
    """F33, F10: `type_mismatch` where a decision reads it; else shown as JSON, and deletable."""
    cases = [(field, value, operand, new_id()) for field, value, operand in ALIENS]
    world.catalog.documents.insert_many(
        [{"_id": key, field: value, "version": 1} for field, value, _, key in cases]
    )
    units = []
    for field, _, operand, key in cases:
        refused = {
            "expect": await world.submit(check("document", key, expect={field: operand}), key=key),
            "expect ne": await world.submit(
                update("document", key, {field: {"ne": operand}}, set={"flag": True}), key=key
            ),
        }
        if field in {"int_", "amount"}:
            refused["increment"] = await world.submit(
                adding("document", key, **{field: 1}), key=key
            )
        other = "text_" if field != "text_" else "flag"
        touched = await world.submit(
            setting("document", key, **{other: "x" if other == "text_" else True}), key=key
        )
        gone = await world.submit(delete("document", key), key=key)
        units.append((refused, touched, gone))
    for (field, value, _, _), (refused, touched, gone) in zip(cases, units, strict=True):
        name = f"{field} {value!r}"[:60]
        for how, unit_id in refused.items():
            with subtests.test(f"{name}: {how}"):
                outcome = await world.result(unit_id)
                assert outcome["status"] == "rejected", outcome
                assert outcome["error"]["code"] == "type_mismatch", outcome["error"]
                assert outcome["error"]["retryable"] is False
        with subtests.test(f"{name}: shown"):
            assert (await world.result(touched))["status"] == "committed"
            event = strict((await world.topics.changes(touched, 1))[0])
            assert event["after"][field] is not None
            assert event["after"][field] == event["before"][field]
        with subtests.test(f"{name}: deleted"):
            assert (await world.result(gone))["status"] == "committed"
            event = strict((await world.topics.changes(gone, 1))[0])
            assert event["before"][field] is not None
    assert world.catalog.documents.count_documents({"_id": {"$in": [c[3] for c in cases]}}) == 0


async def test_f33_an_alien_may_be_overwritten_and_comes_back(world: World) -> None:
    """F27, F33: set and unset do not read; undo restores the alien with its type."""
    keys = [new_id() for _ in ALIENS]
    for key, (field, value, _) in zip(keys, ALIENS, strict=True):
        world.catalog.documents.insert_one({"_id": key, field: value, "version": 1})
    befores = [str(_raw(world, key)) for key in keys]
    breaking = {"op": "insert", "entity": "account", "key": 77, "values": {"balance": "950000"}}
    overwriting = [
        setting("document", key, **{field: operand})
        for key, (field, _, operand) in zip(keys, ALIENS, strict=True)
    ]
    outcome = await world.run(*overwriting, breaking)
    assert outcome["status"] == "compensated", outcome
    assert [str(_raw(world, key)) for key in keys] == befores
    outcome = await world.run(*overwriting)
    assert outcome["status"] == "committed", outcome
    checks = [
        check("document", key, expect={field: operand})
        for key, (field, _, operand) in zip(keys, ALIENS, strict=True)
    ]
    outcome = await world.run(*checks)
    assert outcome["status"] == "committed", outcome


def _raw(world: World, key: str) -> Any:
    from bson.codec_options import CodecOptions, DatetimeConversion

    options: Any = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)
    return world.catalog.get_collection("documents", codec_options=options).find_one({"_id": key})


async def test_f33_integers_of_mongodb_in_their_three_types(world: World) -> None:
    """The table of values: int32, int64 and whole doubles are read; int64 is written."""
    for value in (5, Int64(5), 5.0):
        key = new_id()
        world.catalog.documents.insert_one({"_id": key, "int_": value, "version": 1})
        outcome = await world.run(
            check("document", key, expect={"int_": 5}),
            check("document", key, expect={"int_": {"gte": 5, "lt": 6, "in": [4, "5"]}}),
            adding("document", key, int_=2),
        )
        assert outcome["status"] == "committed", outcome["error"]
        event = (await world.topics.changes(outcome["unit"], 1))[0].json
        assert (event["before"]["int_"], event["after"]["int_"]) == (5, 7)
        found = world.doc("documents", key)
        assert found is not None
        assert isinstance(found["int_"], Int64)


async def test_f33_floats_that_are_no_numbers_are_shown_as_strings(world: World) -> None:
    """The table of values: a stored NaN or Infinity as string, in both kinds of store."""
    for value, shown in (("NaN", "NaN"), ("Infinity", "Infinity"), ("-Infinity", "-Infinity")):
        keys = [new_id(), new_id(), new_id()]
        world.catalog.documents.insert_one({"_id": keys[0], "double_": float(value), "version": 1})
        for key, table, connection in (
            (keys[1], "app.samples", world.ledger),
            (keys[2], "specimens", world.archive),
        ):
            await connection.execute(
                f"INSERT INTO {table} (id, double_, version) VALUES ($1, $2, 1)", key, float(value)
            )
        for key, entity in zip(keys, ("document", "sample", "specimen"), strict=True):
            records = await world.committed(setting(entity, key, text_="x"), delete(entity, key))
            for record in records:
                assert strict(record)["before"]["double_"] == shown


SQL_ALIENS = [
    ("free", "'NaN'", "1.5"),
    ("free", "'Infinity'", "1.5"),
    ("at_", "'infinity'", "2020-01-01T00:00:00Z"),
    ("at_", "'-infinity'", "2020-01-01T00:00:00Z"),
    ("at_", "'0044-03-15 12:00:00+00 BC'", "2020-01-01T00:00:00Z"),
    ("at_", "'20000-01-01 00:00:00+00'", "2020-01-01T00:00:00Z"),
    ("day", "'infinity'", "2020-01-01"),
    ("day", "'0044-03-15 BC'", "2020-01-01"),
    ("day", "'20000-01-01'", "2020-01-01"),
]


@pytest.mark.parametrize("entity", ["sample", "specimen"])
async def test_f33_alien_rows(world: World, entity: str, subtests: pytest.Subtests) -> None:
    """F33: what PostgreSQL holds and the declared type does not, in either PostgreSQL store."""
    table, connection = {
        "sample": ("app.samples", world.ledger),
        "specimen": ("specimens", world.archive),
    }[entity]
    for field, literal, operand in SQL_ALIENS:
        key = new_id()
        await connection.execute(
            f"INSERT INTO {table} (id, {field}, version) VALUES ($1, {literal}, 1)", key
        )
        expected = await world.submit(check(entity, key, expect={field: operand}), key=key)
        touched = await world.submit(setting(entity, key, text_="x"), key=key)
        gone = await world.submit(delete(entity, key), key=key)
        with subtests.test(f"{field} {literal}: expect"):
            outcome = await world.result(expected)
            assert (outcome["status"], outcome["error"] and outcome["error"]["code"]) == (
                "rejected",
                "type_mismatch",
            ), outcome
        with subtests.test(f"{field} {literal}: shown and deleted"):
            assert (await world.result(touched))["status"] == "committed"
            assert (await world.result(gone))["status"] == "committed"
            for unit_id in (touched, gone):
                event = strict((await world.topics.changes(unit_id, 1))[0])
                assert event["before"][field] is not None
            assert not await connection.fetch(f"SELECT 1 FROM {table} WHERE id = $1", key)


async def test_f33_json_of_strangers_is_shown_as_well_as_can_be(world: World) -> None:
    """F33: any BSON inside a json field; the event is JSON all the same."""
    key = new_id()
    world.catalog.documents.insert_one(
        {
            "_id": key,
            "version": 1,
            "data": {
                "oid": ObjectId(),
                "nan": float("nan"),
                "far": DatetimeMS(2**60),
                "decimal": Decimal128("1.50"),
                "long": Int64(2**62),
                "regex": Regex("a", "i"),
                "bytes": b"\xff",
                "max": MaxKey(),
                "$dollar": {"dot.ted": 1},
                "ok": [1, "2", None, True],
            },
        }
    )
    touched, gone = await world.committed(
        setting("document", key, text_="x"), delete("document", key)
    )
    for record in (touched, gone):
        shown = strict(record)["before"]["data"]
        assert shown["ok"] == [1, "2", None, True]
        assert set(shown) >= {"oid", "nan", "far", "decimal", "long", "regex", "bytes", "max"}


async def test_f33_a_version_that_is_no_number_does_not_keep_a_document_from_being_deleted(
    world: World,
) -> None:
    """F33, I10: a bad document can still be deleted; other units are not held up."""
    for version in ("seven", None, 1.5, [1]):
        key = new_id()
        world.catalog.documents.insert_one({"_id": key, "text_": "t", "version": version})
        outcome = await world.run(delete("document", key))
        assert outcome["status"] == "committed", (version, outcome["error"])
    missing = new_id()
    world.catalog.documents.insert_one({"_id": missing, "text_": "t"})
    outcome = await world.run(delete("document", missing))
    assert outcome["status"] == "committed", outcome["error"]
