"""Every type in every store: what goes in, what is stored, what comes out (F32, the table).

Values are JSON text, so that a number is sent as it is written here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import Binary, Decimal128, Int64, ObjectId

from tests.acceptance.harness.world import World, new_id

ENTITIES = ["sample", "specimen", "document"]
TABLES = {"sample": "app.samples", "specimen": "specimens"}
PG = ("sample", "specimen")
MONGO = ("document",)
ALL = (*PG, *MONGO)
NO_BSON: Any = object()
UUID = "0198c0de-0000-7000-8000-0000000000ab"
TEN_EMOJI = "\U0001f600" * 10


@dataclass
class Value:
    """A field's value: as it is sent, as it comes out, and how the stores hold it."""

    field: str
    given: str
    out: Any
    text: str | None = None  # in PostgreSQL, cast to text; None: not judged
    bson: Any = NO_BSON
    where: tuple[str, ...] = ALL


def _same(field: str, values: Iterable[Any], where: tuple[str, ...] = ALL) -> list[Value]:
    return [
        Value(
            field,
            json.dumps(value),
            value,
            str(value) if isinstance(value, str) else None,
            value,
            where,
        )
        for value in values
    ]


def _int(field: str, value: int, where: tuple[str, ...] = PG) -> list[Value]:
    """Give an integer sent as a number and as a string."""
    out: Any = value if abs(value) < 2**53 else str(value)
    bson: Any = Int64(value) if -(2**63) <= value < 2**63 else None
    return [Value(field, form, out, str(value), bson, where) for form in (str(value), f'"{value}"')]


def _when(given: str, out: str, where: tuple[str, ...] = ALL) -> Value:
    at = datetime.fromisoformat(out)
    return Value("at_", f'"{given}"', at, None, at, where)


VALUES = [
    *_same(
        "text_",
        ["", " ", "a", "\u00e9", "e\u0301", TEN_EMOJI, " pad\t\n", "\\x41", "'\"$1;--", "{}"],
    ),
    *_same(
        "text_",
        ["null"],
    ),
    Value("text_", '"a\\u0000b"', "a\0b", None, "a\0b", MONGO),
    Value("text_", json.dumps("\u00e9" * 15_000), "\u00e9" * 15_000, None, "\u00e9" * 15_000),
    *_same("word", ["\U0001f600" * 5, "abcde"], PG),
    *_same("fixed", ["abc", "a", " a", "", "\t"], PG),
    *(v for n in (0, 1, -1, 2**15 - 1, -(2**15)) for v in _int("small", n)),
    *(v for n in (0, 2**31 - 1, -(2**31)) for v in _int("int_", n)),
    *(
        v
        for n in (0, 2**53 - 1, -(2**53) + 1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63))
        for v in (*_int("big", n), *_int("int_", n, MONGO))
    ),
    *(v for n in (10**20 - 1, -(10**20) + 1, 2**63) for v in _int("huge", n)),
    Value("amount", '"1.5"', "1.5000", "1.5000", where=PG),
    Value("amount", "-5", "-5.0000", "-5.0000", where=PG),
    Value("amount", '"99999999.9999"', "99999999.9999", "99999999.9999", where=PG),
    Value("amount", '"1.50000"', "1.5000", "1.5000", where=PG),
    Value("free", '"1.500"', "1.500", "1.500", where=PG),
    Value("free", '"0.00000000000000000001"', "0.00000000000000000001", where=PG),
    Value("free", f'"{"9" * 40}.{"9" * 40}"', f"{'9' * 40}.{'9' * 40}", where=PG),
    Value("free", str(10**40), str(10**40), where=PG),
    Value("amount", '"1.500"', "1.500", bson=Decimal128("1.500"), where=MONGO),
    Value("amount", '"-0.0001"', "-0.0001", bson=Decimal128("-0.0001"), where=MONGO),
    Value("amount", "5", "5", bson=Decimal128("5"), where=MONGO),
    Value("amount", f'"{"9" * 34}"', "9" * 34, bson=Decimal128("9" * 34), where=MONGO),
    Value("amount", f'"0.{"1" * 34}"', f"0.{'1' * 34}", where=MONGO),
    *_same("double_", [0.1, 1e308, -1e-308, 5e-324, 1.0, 1e21, 0.30000000000000004, -2.5]),
    Value("double_", "1", 1.0, "1", 1.0),
    Value("double_", "-0.0", -0.0, "-0", -0.0),
    Value("double_", "1E2", 100.0, "100", 100.0),
    *_same("real_", [0.5, -1.25, 16777216.0], PG),
    *_same("flag", [True, False]),
    _when("2020-02-29T12:34:56Z", "2020-02-29T12:34:56+00:00"),
    _when("2020-01-01T00:00:00.123+02:00", "2019-12-31T22:00:00.123+00:00"),
    _when("2020-01-01T00:00:00.5-00:30", "2020-01-01T00:30:00.5+00:00"),
    _when("2020-01-01T00:00:00.120000000Z", "2020-01-01T00:00:00.12+00:00"),
    _when("1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999+00:00"),
    _when("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00"),
    _when("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999+00:00"),
    _when("2020-01-01T00:00:00.123456Z", "2020-01-01T00:00:00.123456+00:00", PG),
    *(
        Value("day", f'"{day}"', day, day, datetime.fromisoformat(f"{day}T00:00:00+00:00"))
        for day in ("2020-02-29", "1969-12-31", "0001-01-01", "9999-12-31")
    ),
    Value("uid", f'"{UUID.upper()}"', UUID, UUID, Binary(bytes.fromhex(UUID.replace("-", "")), 4)),
    Value("uid", f'"{UUID}"', UUID, UUID),
    Value("uid", '"00000000-0000-0000-0000-000000000000"', "00000000-0000-0000-0000-000000000000"),
    Value("bytes_", '""', "", "\\x", b""),
    Value("bytes_", '"AP8="', "AP8=", "\\x00ff", b"\x00\xff"),
    Value("bytes_", '"+/+/"', "+/+/", "\\xfbffbf", b"\xfb\xff\xbf"),
    Value("oid", '"0123456789ABCDEF01234567"', "0123456789abcdef01234567", where=MONGO),
    Value(
        "oid",
        '"0123456789abcdef01234567"',
        "0123456789abcdef01234567",
        bson=ObjectId("0123456789abcdef01234567"),
        where=MONGO,
    ),
    *_same("data", [{}, [], "", "text", 0, True, False, [None], {"a": {"b": [1, "2", None]}}]),
    *_same("data", [{"\u00e9": 1, "with space": "\U0001f600", "": 1, "a\"b": 2}, [[[[]]]]]),
    *_same("data", [{"$ref": "0.key", "a.b": 1, "$or": []}, {"$ref": "0.key"}], PG),
    *_same("raw", [{}, [], "", 5, {"b": 1, "a": [1.5, None]}], PG),
    Value("data", "[0.1, 1e2, -1.50, 1E-7, 9223372036854775807, -9223372036854775808]",
          [0.1, 100, -1.5, 1e-7, 2**63 - 1, -(2**63)]),
    Value("data", '{"z": 1, "a": 2}', {"z": 1, "a": 2}, None, {"z": 1, "a": 2}),
    Value("data", "9223372036854775809", 2**63 + 1, "9223372036854775809", where=PG),
    Value("data", "12345678901234567890.123456789012345678901",
          12345678901234567890.123456789012345678901, "12345678901234567890.123456789012345678901",
          where=PG),
    Value("raw", '{"n": 1.500}', {"n": 1.5}, where=PG),
    *(
        Value(field, "null", None, None, None, where)
        for field, where in (
            *((f, ALL) for f in ("text_", "int_", "amount", "double_", "flag", "at_", "day")),
            *((f, ALL) for f in ("uid",)),
            *((f, ALL) for f in ("bytes_", "data")),
            *((f, PG) for f in ("word", "fixed", "small", "big", "huge", "real_", "raw")),
            ("oid", MONGO),
        )
    ),
]  # fmt: skip


def _unit(unit_id: str, entity: str, *bodies: str) -> str:
    operations = ", ".join(f'{{"entity": "{entity}", "key": "{unit_id}", {b}}}' for b in bodies)
    return f'{{"id": "{unit_id}", "operations": [{operations}]}}'


def _expectation(value: Value, text: str) -> str:
    literal = f'{{"eq": {text}}}' if value.field in {"data", "raw"} else text
    return f'"op": "check", "expect": {{"{value.field}": {literal}}}'


def _matches(shown: Any, out: Any) -> bool:
    if isinstance(out, datetime):
        return (
            isinstance(shown, str) and shown.endswith("Z") and datetime.fromisoformat(shown) == out
        )
    if isinstance(out, bool) or out is None:
        return shown is out
    if isinstance(out, float) and not isinstance(shown, bool):
        return isinstance(shown, int | float) and repr(float(shown)) == repr(out)
    return type(shown) is type(out) and bool(shown == out)


@pytest.mark.parametrize("entity", ENTITIES)
async def test_f32_round_trips_are_exact_in_the_store_and_in_events(
    world: World, entity: str, subtests: pytest.Subtests
) -> None:
    """F32, F34, F22: insert, expect what was given and what is shown, set again, delete."""
    values = [(value, new_id()) for value in VALUES if entity in value.where]
    await world.topics.submit_all(
        _unit(
            unit_id,
            entity,
            f'"op": "insert", "values": {{"{value.field}": {value.given}}}',
            _expectation(value, value.given),
        )
        for value, unit_id in values
    )
    seconds: list[tuple[Value, str, Any]] = []
    for value, unit_id in values:
        with subtests.test(f"{value.field} {value.given[:60]}"):
            outcome = await world.result(unit_id)
            assert outcome["status"] == "committed", outcome["error"]
            event = (await world.topics.changes(unit_id, 1))[0].json
            shown = event["after"][value.field]
            assert _matches(shown, value.out), f"{shown!r} is not {value.out!r}"
            assert all(
                event["after"][name] is None
                for name in world.entities[entity]["fields"]
                if name not in {value.field, "id", "_id"}
            )
            await _judge_stored(world, entity, unit_id, value)
            seconds.append((value, unit_id, shown))
    ids = [new_id() for _ in seconds]
    await world.topics.submit_all(
        _unit(
            unit_id,
            entity,
            _expectation(value, json.dumps(shown)),
            f'"op": "update", "set": {{"{value.field}": {json.dumps(shown)}}}',
            '"op": "delete"',
        ).replace(f'"key": "{unit_id}"', f'"key": "{key}"')
        for unit_id, (value, key, shown) in zip(ids, seconds, strict=True)
        if not isinstance(shown, float) or value.field not in {"data"}
    )
    for unit_id, (value, _, shown) in zip(ids, seconds, strict=True):
        if isinstance(shown, float) and value.field == "data":
            continue  # Python has rounded it
        with subtests.test(f"again: {value.field} {value.given[:60]}"):
            outcome = await world.result(unit_id)
            assert outcome["status"] == "committed", outcome["error"]
            set_, deleted = [e.json for e in await world.topics.changes(unit_id, 2)]
            for image in (set_["before"], set_["after"], deleted["before"]):
                assert image[value.field] == shown
            assert deleted["after"] is None


async def _judge_stored(world: World, entity: str, key: str, value: Value) -> None:
    if entity in PG:
        connection = world.ledger if entity == "sample" else world.archive
        text = await connection.fetchval(
            f"SELECT {value.field}::text FROM {TABLES[entity]} WHERE id = $1", key
        )
        if value.out is None:
            assert text is None
        elif value.text is not None and value.field not in {"data", "raw"}:
            assert text == value.text
        elif value.field in {"data", "raw"}:
            assert json.loads(text) == json.loads(value.given)
            assert (
                value.text is None
                or value.field == "raw"
                or isinstance(value.out, str)
                or (text == value.text)
            )
        return
    found = world.doc("documents", key)
    assert found is not None
    if value.bson is NO_BSON:
        return
    stored = found.get(value.field)
    if isinstance(value.bson, datetime):
        assert isinstance(stored, datetime)
        assert stored.replace(tzinfo=UTC) == value.bson
    elif isinstance(value.bson, Decimal128 | Int64 | float):
        assert type(stored) is type(value.bson)
        assert str(stored) == str(value.bson)
    elif value.field == "data":
        assert stored == value.bson
        assert type(stored) is type(value.bson) or isinstance(stored, int)
        if isinstance(stored, dict):
            assert list(stored) == list(value.bson)
    else:
        assert stored == value.bson


async def test_f32_a_missing_field_stays_missing_in_mongodb(world: World) -> None:
    """F16, F22: absent is not null in the store; both are null in images and expectations."""
    absent, null = new_id(), new_id()
    await world.topics.submit_all(
        [
            _unit(absent, "document", '"op": "insert", "values": {}'),
            _unit(null, "document", '"op": "insert", "values": {"text_": null}'),
        ]
    )
    for unit_id in (absent, null):
        assert (await world.result(unit_id))["status"] == "committed"
        assert (await world.topics.changes(unit_id, 1))[0].json["after"]["text_"] is None
    assert world.doc("documents", absent) == {"_id": absent, "version": 1}
    found = world.doc("documents", null)
    assert found is not None
    assert found.get("text_") is None


DEEP = '{"a": [{"b": %s}]}'

UNSTORABLE: list[tuple[str, str, tuple[str, ...]]] = [
    *(("text_", text, PG) for text in ('"\\u0000"', '"a\\u0000"')),
    *(("text_", text, ALL) for text in ("5", "true", "[]", "{}", "1.5")),
    *(("word", text, PG) for text in ('"abcdef"', json.dumps("\U0001f600" * 6))),
    *(("fixed", text, PG) for text in ('"abcd"', '"a "', '" "', '"abc "')),
    *(("small", str(n), PG) for n in (2**15, -(2**15) - 1, 2**63, 10**30)),
    *(("int_", str(n), PG) for n in (2**31, -(2**31) - 1)),
    *(("big", form, PG) for form in (str(2**63), f'"{2**63}"', str(-(2**63) - 1))),
    *(("int_", form, MONGO) for form in (str(2**63), f'"{2**63}"', str(-(2**63) - 1), str(10**40))),
    *(("huge", form, PG) for form in (str(10**20), f'"{-(10**20)}"')),
    *(
        ("int_", text, ALL)
        for text in ('"1.5"', "1.5", '"abc"', '""', "true", '"0x10"', '"1e2"', '"\u0661"')
    ),
    *(("int_", text, ALL) for text in ('" 1"', "[]")),
    *(("amount", text, PG) for text in ('"1.00001"', '"100000000"', '"123456789.0"', "100000000")),
    *(("free", text, PG) for text in ('"NaN"', '"Infinity"', "1.5", '"abc"', '""', '"1,5"')),
    *(
        ("amount", text, ALL)
        for text in ("1.5", "1e2", '"NaN"', '"Infinity"', '"-Infinity"', '"abc"', '""', "true")
    ),
    ("amount", '" 1"', ALL),
    *(("amount", f'"{text}"', MONGO) for text in ("1" * 35, f"1.{'1' * 34}", "1" + "0" * 34 + "1")),
    *(("double_", text, ALL) for text in ("1e309", "-1e400", '"1.5"', '"NaN"', "true", "{}")),
    *(("real_", text, PG) for text in ("1e39", "16777217", "1e-60")),
    *(("flag", text, ALL) for text in ("0", "1", '"true"', '"f"', "[]")),
    *(
        ("at_", f'"{text}"', ALL)
        for text in (
            *("2020-01-01T00:00:00", "2020-01-01", "2021-02-29T00:00:00Z", "2020-13-01T00:00:00Z"),
            *("2020-01-01T24:00:00Z", "2020-01-01T00:00:00+25:00", "2020-01-01T00:00Z", "now", ""),
            *("2020-01-01T00:00:00.Z", "20200101T000000Z", "2020-01-01T00:00:00+0100"),
            *("2020-01-01T00:00:00.1234567Z", "infinity", "-2020-01-01T00:00:00Z"),
            "0001-01-01T00:00:00+01:00",
        )
    ),
    *(("at_", text, ALL) for text in ("1577836800", "1577836800.5", "null ,  \"nope\": 1", "[]")),
    *(("at_", f'"2020-01-01T00:00:00.{text}Z"', MONGO) for text in ("1234", "123456", "0001")),
    *(
        ("day", f'"{text}"', ALL)
        for text in ("2021-02-29", "2020-2-9", "20200209", "2020-02-09T00:00:00Z", "0000-01-01", "")
    ),
    *(("day", "20200209", ALL),),
    *(
        ("uid", f'"{text}"', ALL)
        for text in (UUID.replace("-", ""), f"{{{UUID}}}", f"urn:uuid:{UUID}", UUID[:-1])
    ),
    *(("uid", f'"{text}"', ALL) for text in (UUID + "0", "")),
    *(("bytes_", f'"{t}"', ALL) for t in ("AP8", "AP8==", "A", "AP-_", "AP8=\\n", "A P8=", "=")),
    ("bytes_", '"é"', ALL),
    *(("bytes_", text, ALL) for text in ("5", "[]")),
    *(("oid", f'"{t}"', MONGO) for t in ("0" * 23, "0" * 25, "g" * 24, "")),
    *(
        ("data", text, MONGO)
        for text in (
            *('{"$a": 1}', '{"a.b": 1}', '{"a\\u0000b": 1}', '[{"$a": 1}]', DEEP % '{"x.y": 1}'),
            *("9223372036854775808", "9223372036854775809", "-9223372036854775809", "1e400"),
            *("0.1000000000000000055511151231257827", DEEP % "12345678901234567890123"),
            *("1.00000000000000001", "1e-400", DEEP % '{"$ref": "0.key"}'),
        )
    ),
    *(("data", text, PG) for text in ('"\\u0000"', '{"a\\u0000": 1}', DEEP % '"\\u0000"')),
]  # fmt: skip


@pytest.mark.parametrize("entity", ENTITIES)
@pytest.mark.parametrize("how", ["values", "set"])
async def test_f32_what_a_store_cannot_hold_is_invalid(
    world: World, entity: str, how: str, subtests: pytest.Subtests
) -> None:
    """F32, F2, F10: `invalid` with its path, on insert and on update alike; never stored."""
    op = "insert" if how == "values" else "update"
    cases = [(f, text, new_id()) for f, text, where in UNSTORABLE if entity in where]
    await world.topics.submit_all(
        _unit(unit_id, entity, f'"op": "{op}", "{how}": {{"{f}": {text}}}')
        for f, text, unit_id in cases
    )
    for field, text, unit_id in cases:
        with subtests.test(f"{field} {text[:60]}"):
            outcome = await world.result(unit_id, "any")
            assert (outcome["status"], outcome["error"]["code"]) == ("rejected", "invalid"), outcome
            if "nope" not in text:
                assert outcome["error"]["path"].startswith(f"operations.0.{how}.{field}")


async def test_f32_json_for_postgresql_takes_any_number_or_says_no_at_once(world: World) -> None:
    """F32, I10: a number past the store's own limits ends its own unit only."""
    ids = {}
    for field, number in (("data", "1e200000"), ("data", "-1e-20000"), ("raw", "1e200000")):
        ids[f"{field} {number}"] = unit_id = new_id()
        body = f'"op": "insert", "values": {{"{field}": [{number}]}}'
        await world.topics.submit(_unit(unit_id, "specimen", body))
    for name, unit_id in ids.items():
        outcome = await world.result(unit_id, "any")
        assert outcome["status"] == "committed" or outcome["error"]["code"] == "invalid", name


async def test_f32_42_and_its_text_are_one_key(world: World) -> None:
    """F32, F34, I5: one lock, one row, one event key; past 2^53 a string."""
    small = int(new_id()[2:10], 16) + 10
    big = 2**60 + small
    for number, shown in ((small, small), (big, str(big))):
        ids = [
            await world.submit(
                {"op": "upsert", "entity": "account", "key": form, "values": {"note": str(n)}},
                key=str(number),
            )
            for n, form in enumerate((number, str(number), number, str(number)))
        ]
        for n, (unit_id, outcome) in enumerate(zip(ids, await world.results(ids), strict=True)):
            assert outcome["operations"][0]["version"] == n + 1
            assert outcome["operations"][0]["key"] == shown
            event = (await world.topics.changes(unit_id, 1))[0]
            assert event.key == json.dumps(shown).encode()
            assert event.json["after"]["id"] == shown
