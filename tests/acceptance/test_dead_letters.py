"""What cannot be read as a unit: F1, F2, F8, F12 and F42 (DESIGN 2.4)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from tests.acceptance.harness.canonical import digest_of
from tests.acceptance.harness.operations import insert
from tests.acceptance.harness.topics import Header, Place, Record
from tests.acceptance.harness.waiting import until
from tests.acceptance.harness.world import World, new_id

MAX_BYTES = 20_000
WORLD = {"units": {"max_bytes": MAX_BYTES}}

STRUCTURED = ("content-type", b"application/cloudevents+json")
ERROR_HEADERS = ("topic", "partition", "offset", "timestamp", "code", "message")
OPERATIONS = '"operations":[{"op":"insert","entity":"sample","key":"ID","values":{}}]'


@dataclass
class Letter:
    """A record that must become a dead letter. `ID` in the text is replaced by a fresh id."""

    name: str
    value: str | bytes | None
    answered: bool = False  # a `rejected` outcome is due as well
    code: str = "malformed"
    headers: tuple[Header, ...] = ()
    id: str = ""


def _nested(depth: int) -> str:
    """Give metadata so deep that the submission, which is 1, reaches `depth`."""
    return "[" * (depth - 1) + "]" * (depth - 1)


LETTERS = [
    Letter("null value", None),
    Letter("empty value", b""),
    Letter("white space", b"  \n"),
    Letter("not UTF-8", b'{"id":"ID","metadata":"\xff\xfe"}'),
    Letter("overlong UTF-8", b'{"id":"ID","metadata":"\xc0\xaf"}'),
    Letter("UTF-8 of a surrogate", b'{"id":"ID","metadata":"\xed\xa0\x80"}'),
    Letter("UTF-16", ('{"id":"ID",' + OPERATIONS + "}").encode("utf-16-le")),
    Letter("not JSON", "id=ID"),
    Letter("cut short", '{"id":"ID","operations":['),
    Letter("trailing bytes", '{"id":"ID",' + OPERATIONS + "} x"),
    Letter("two documents", '{"id":"ID"}{"id":"ID"}'),
    Letter("trailing comma", '{"id":"ID",' + OPERATIONS + ",}"),
    Letter("comment", '{"id":"ID",/* c */' + OPERATIONS + "}"),
    Letter("single quotes", "{'id':'ID'}"),
    Letter("raw line feed in a string", '{"id":"ID","metadata":"a\nb",' + OPERATIONS + "}"),
    Letter("leading zero", '{"id":"ID","metadata":01,' + OPERATIONS + "}"),
    Letter("bare fraction", '{"id":"ID","metadata":.5,' + OPERATIONS + "}"),
    Letter("dangling point", '{"id":"ID","metadata":1.,' + OPERATIONS + "}"),
    Letter("plus sign", '{"id":"ID","metadata":+1,' + OPERATIONS + "}"),
    Letter("bad escape", '{"id":"ID","metadata":"\\x41",' + OPERATIONS + "}"),
    Letter("lone surrogate", '{"id":"ID","metadata":"\\ud800",' + OPERATIONS + "}"),
    Letter("lone low surrogate", '{"id":"ID","metadata":"\\udc00x",' + OPERATIONS + "}"),
    Letter("swapped surrogates", '{"id":"ID","metadata":"\\udc00\\ud800",' + OPERATIONS + "}"),
    Letter("surrogate in a name", '{"id":"ID","metadata":{"\\ud800":1},' + OPERATIONS + "}"),
    Letter("array", '[{"id":"ID"}]'),
    Letter("string", '"ID"'),
    Letter("number", "12"),
    Letter("null", "null"),
    Letter("true", "true"),
    Letter("empty object", "{}"),
    Letter("no id", "{" + OPERATIONS + "}"),
    Letter("id null", '{"id":null,' + OPERATIONS + "}"),
    Letter("id number", '{"id":5,' + OPERATIONS + "}"),
    Letter("id empty", '{"id":"",' + OPERATIONS + "}"),
    Letter("id of 129", '{"id":"' + "x" * 129 + '",' + OPERATIONS + "}"),
    Letter("id with a space", '{"id":"a ID",' + OPERATIONS + "}"),
    Letter("id with DEL", '{"id":"a\\u007fID",' + OPERATIONS + "}"),
    Letter("id with a line feed at its end", '{"id":"ID\\n",' + OPERATIONS + "}"),
    Letter("id not ASCII", '{"id":"ID\u00e9",' + OPERATIONS + "}"),
    Letter("Id is not id", '{"Id":"ID",' + OPERATIONS + "}"),
    Letter("duplicate id", '{"id":"ID","id":"ID",' + OPERATIONS + "}"),
    Letter("duplicate id, escaped", '{"id":"ID","\\u0069d":"ID-2",' + OPERATIONS + "}"),
    Letter("NaN and no id", '{"metadata":NaN,' + OPERATIONS + "}"),
    Letter("NaN and a bad id", '{"id":"a b","metadata":NaN,' + OPERATIONS + "}"),
    Letter("NaN and an id below", '{"metadata":{"id":"ID","n":NaN},' + OPERATIONS + "}"),
    Letter("NaN and not UTF-8", b'{"id":"ID","metadata":[NaN,"\xff"]}'),
    Letter("NaN and cut short", '{"id":"ID","metadata":NaN'),
    Letter("duplicate member", '{"id":"ID",' + OPERATIONS + "," + OPERATIONS + "}", True),
    Letter("duplicate below", '{"id":"ID","metadata":{"a":1,"a":1},' + OPERATIONS + "}", True),
    Letter("duplicate, escaped", '{"id":"ID","metadata":{"a":1,"\\u0061":2}}', True),
    Letter("id after the break", '{"metadata":{"a":1,"a":1},"id":"ID"}', True),
    Letter("NaN", '{"id":"ID","metadata":NaN,' + OPERATIONS + "}", True),
    Letter("Infinity", '{"id":"ID","metadata":[Infinity],' + OPERATIONS + "}", True),
    Letter("-Infinity", '{"id":"ID","metadata":{"x":-Infinity},' + OPERATIONS + "}", True),
    Letter("depth 65", '{"id":"ID","metadata":' + _nested(65) + "," + OPERATIONS + "}", True),
    Letter("depth 5000", '{"id":"ID","metadata":' + _nested(5000) + "," + OPERATIONS + "}", True),
    Letter("NaN twice and duplicates", '{"id":"ID","metadata":[NaN,{"a":1,"a":NaN}]}', True),
    Letter("too large", '{"id":"ID",' + OPERATIONS + "}" + " " * MAX_BYTES, code="too_large"),
    Letter("too large, not JSON", b"\xff" * (MAX_BYTES + 1), code="too_large"),
    # What F8 and F42 say of cancels
    Letter("cancel empty", '{"cancel":""}'),
    Letter("cancel number", '{"cancel":5}'),
    Letter("cancel null", '{"cancel":null}'),
    Letter("cancel with a space", '{"cancel":"a b"}'),
    Letter("cancel, reason null", '{"cancel":"ID","reason":null}'),
    Letter("cancel, reason number", '{"cancel":"ID","reason":5}'),
    Letter("cancel with operations", '{"cancel":"ID",' + OPERATIONS + "}"),
    Letter("cancel with another member", '{"cancel":"ID","why":"x"}'),
    Letter("cancel with a bad id", '{"cancel":"ID","id":"a b"}'),
    Letter("cancel with NaN", '{"cancel":"ID","reason":NaN}'),
    # What F12 says of structured CloudEvents
    Letter(
        "no specversion", '{"id":"ID","data":{"id":"ID",' + OPERATIONS + "}}", headers=(STRUCTURED,)
    ),
    Letter(
        "specversion 0.3",
        '{"specversion":"0.3","id":"e","data":{"id":"ID",' + OPERATIONS + "}}",
        headers=(STRUCTURED,),
    ),
    Letter(
        "specversion 2.0",
        '{"specversion":"2.0","id":"e","data":{"id":"ID",' + OPERATIONS + "}}",
        headers=(STRUCTURED,),
    ),
    Letter(
        "specversion 10.0",
        '{"specversion":"10.0","id":"e","data":{"id":"ID",' + OPERATIONS + "}}",
        headers=(STRUCTURED,),
    ),
    Letter(
        "specversion number",
        '{"specversion":1.0,"id":"e","data":{"id":"ID",' + OPERATIONS + "}}",
        headers=(STRUCTURED,),
    ),
    Letter("no data", '{"specversion":"1.0","id":"ID"}', headers=(STRUCTURED,)),
    Letter("data null", '{"specversion":"1.0","id":"ID","data":null}', headers=(STRUCTURED,)),
    Letter("data string", '{"specversion":"1.0","id":"ID","data":"x"}', headers=(STRUCTURED,)),
    Letter("data array", '{"specversion":"1.0","id":"ID","data":[]}', headers=(STRUCTURED,)),
    Letter(
        "data_base64", '{"specversion":"1.0","id":"ID","data_base64":"e30="}', headers=(STRUCTURED,)
    ),
    Letter("data has no id", '{"specversion":"1.0","id":"ID","data":{}}', headers=(STRUCTURED,)),
    Letter("plain unit as structured", '{"id":"ID",' + OPERATIONS + "}", headers=(STRUCTURED,)),
    Letter(
        "a batch is no unit",
        '[{"specversion":"1.0","id":"e","data":{"id":"ID"}}]',
        headers=(("content-type", b"application/cloudevents-batch+json"),),
    ),
]


def _filled(letter: Letter) -> bytes | None:
    letter.id = new_id()
    if letter.value is None:
        return None
    raw = letter.value if isinstance(letter.value, bytes) else letter.value.encode()
    return raw.replace(b"ID", letter.id.encode())


def _errors_of(record: Record) -> dict[str, str]:
    return {
        name.removeprefix("coordinator.errors."): (content or b"").decode()
        for name, content in record.headers[-len(ERROR_HEADERS) :]
    }


def _judge(record: Record, place: Place, code: str, message_like: str = "") -> None:
    names = tuple(name for name, _ in record.headers[-len(ERROR_HEADERS) :])
    assert sorted(names) == sorted(f"coordinator.errors.{n}" for n in ERROR_HEADERS)
    errors = _errors_of(record)
    message = errors.pop("message")
    assert len(message) > 10, message
    assert errors == {
        "topic": place.topic,
        "partition": str(place.partition),
        "offset": str(place.offset),
        "timestamp": str(place.timestamp),
        "code": code,
    }


async def test_f1_what_cannot_be_read_goes_byte_for_byte_to_the_dead_letters(
    world: World, subtests: pytest.Subtests
) -> None:
    """F1, F2, F8, F12, F42; DESIGN 2.4: value, key and headers as they came, ours after them."""
    values = [_filled(letter) for letter in LETTERS]
    places = []
    for letter, value in zip(LETTERS, values, strict=True):
        headers = (*letter.headers, ("h", b"\x00\xff"), ("h", b""), ("none", None))
        key = b"\xfe" + letter.name.encode()
        places.append(await world.topics.submit(value, key=key, headers=headers))
    for letter, value, place in zip(LETTERS, values, places, strict=True):
        with subtests.test(letter.name):
            found = await world.topics.dead_letter(place, seconds=10)
            assert found.value == value
            assert found.key == b"\xfe" + letter.name.encode()
            given = (*letter.headers, ("h", b"\x00\xff"), ("h", b""), ("none", None))
            assert found.headers[: len(given)] == given
            _judge(found, place, letter.code)
    await world.settled()
    for letter, place in zip(LETTERS, places, strict=True):
        with subtests.test(f"{letter.name}: what else"):
            assert len(world.topics.dead_letters_so_far(place)) == 1
            outcomes = world.topics.outcomes_so_far(letter.id)
            assert len(outcomes) == int(letter.answered), [o.value for o in outcomes]
            assert not await world.journaled(letter.id)
            if letter.answered:
                outcome = outcomes[0].json
                assert outcomes[0].ce_id == f"{letter.id}/refused/{place}"
                assert (outcome["unit"], outcome["status"]) == (letter.id, "rejected")
                assert (outcome["error"]["code"], outcome["digest"]) == ("malformed", None)
                assert outcome["operations"] == []


async def test_f1_keys_and_headers_of_every_kind_survive(
    world: World, subtests: pytest.Subtests
) -> None:
    """F1: no key, an empty key, no headers, many, and our own from an earlier time."""
    variants: list[tuple[bytes | None, tuple[Header, ...]]] = [
        (None, ()),
        (b"", ()),
        (b"\x00", (("coordinator.errors.topic", b"an older one"), ("\u00e9", b"x"))),
        (b"k", tuple((f"n{n % 7}", bytes([n])) for n in range(50))),
    ]
    places = [await world.topics.submit(b"no json", key=k, headers=h) for k, h in variants]
    for (key, headers), place in zip(variants, places, strict=True):
        with subtests.test(repr(key)):
            found = await world.topics.dead_letter(place)
            assert (found.key, found.value) == (key, b"no json")
            assert found.headers[: len(headers)] == headers
            assert len(found.headers) == len(headers) + len(ERROR_HEADERS)
            _judge(found, place, "malformed")


async def test_f1_the_limits_themselves_are_allowed(world: World) -> None:
    """F1: depth 64, exactly `units.max_bytes`, an id of 128 and one of odd characters."""
    deep, long = new_id(), (new_id() + "!~\"'/\\{}%").ljust(128, "#")
    full = new_id()
    texts = {
        deep: f'{{"id":"{deep}","metadata":{_nested(64)},{OPERATIONS.replace("ID", deep)}}}',
        long: json.dumps({"id": long, "operations": [insert("sample", long)]}),
        full: f'{{"id":"{full}",{OPERATIONS.replace("ID", full)}}}'.ljust(MAX_BYTES),
    }
    for text in texts.values():
        await world.topics.submit(text)
    for unit_id, text in texts.items():
        outcome = await world.result(unit_id, "any")
        assert outcome["status"] == "committed", outcome
        assert outcome["digest"] == digest_of(text)


async def test_f1_the_depth_of_a_structured_unit_is_that_of_its_data(world: World) -> None:
    """F1, F12: the submission itself is 1, and `data` is the submission."""
    texts = {}
    for depth in (64, 65):
        unit_id = new_id()
        data = (
            f'{{"id":"{unit_id}","metadata":{_nested(depth)},{OPERATIONS.replace("ID", unit_id)}}}'
        )
        texts[depth] = (unit_id, f'{{"specversion":"1.0","id":"e","data":{data}}}')
    places = {d: await world.topics.submit(t, headers=[STRUCTURED]) for d, (_, t) in texts.items()}
    assert (await world.result(texts[64][0], "any"))["status"] == "committed"
    await world.topics.dead_letter(places[65])


async def test_f12_plain_binary_and_structured_units_are_the_same_unit(
    world: World, subtests: pytest.Subtests
) -> None:
    """F12, F3: the id in the JSON counts, `ce_id` is not read; other content types are ignored."""

    def body(unit_id: str) -> dict[str, Any]:
        return {"id": unit_id, "operations": [insert("sample", unit_id)], "metadata": {"z": 1.50}}

    def event(unit_id: str, version: str = "1.0") -> bytes:
        return json.dumps(
            {"specversion": version, "id": "other", "source": "/s", "type": "t"}
            | {"data": body(unit_id)}
        ).encode()

    binary = (
        ("ce_specversion", b"1.0"),
        ("ce_id", b"not the id"),
        ("ce_type", b"t"),
        ("ce_source", b"/s"),
        ("content-type", b"application/json"),
    )
    ways: dict[str, tuple[Any, tuple[Header, ...]]] = {
        "plain": (body, ()),
        "binary": (body, binary),
        "binary, ce_id not even text": (body, (("ce_specversion", b"1.0"), ("ce_id", b"\xff"))),
        "structured": (event, (STRUCTURED,)),
        "structured 1.1": (lambda unit_id: event(unit_id, "1.1"), (STRUCTURED,)),
        "structured, with a parameter": (
            event,
            (("content-type", b"Application/CloudEvents+JSON; charset=UTF-8"),),
        ),
        "text/plain": (body, (("content-type", b"text/plain"),)),
        "avro, it says": (body, (("content-type", b"application/cloudevents+avro"),)),
        "content type not text": (body, (("content-type", b"\xff\xfe"),)),
        "content type null": (body, (("content-type", None),)),
    }
    ids = {name: new_id() for name in ways}
    for name, (make, headers) in ways.items():
        await world.topics.submit(make(ids[name]), headers=headers)
    for name, unit_id in ids.items():
        with subtests.test(name):
            outcome = await world.result(unit_id, "any", seconds=10)
            assert outcome["status"] == "committed", outcome
            assert outcome["digest"] == digest_of(json.dumps(body(unit_id)))
    duplicates = [await world.topics.submit(body(each)) for each in ids.values()]
    for (name, unit_id), place in zip(ids.items(), duplicates, strict=True):
        with subtests.test(f"{name}, again as plain JSON"):
            answer = await world.topics.answer_to(place, "duplicate", unit_id)
            assert answer.json["status"] == "committed"


async def test_f8_a_cancel_with_a_valid_id_beside_it_is_invalid(world: World) -> None:
    """F8: with a valid `id` beside it: `invalid`, an outcome of that id, and no dead letter."""
    ids = [new_id() for _ in range(3)]
    operations = [insert("sample", "never")]
    places = [
        await world.topics.submit({"cancel": "some", "id": ids[0]}),
        await world.topics.submit({"cancel": "some", "id": ids[1], "operations": operations}),
        await world.topics.submit({"cancel": None, "id": ids[2], "operations": operations}),
    ]
    for unit_id, place in zip(ids, places, strict=True):
        answer = await world.topics.answer_to(place, "refused", unit_id)
        assert answer.json["status"] == "rejected"
        assert answer.json["error"]["code"] == "invalid"
    await world.settled()
    assert [world.topics.dead_letters_so_far(place) for place in places] == [[], [], []]


async def test_f8_cancelling_an_unknown_unit_is_logged_and_forgotten(world: World) -> None:
    """F8: no outcome, no dead letter, and a unit of that id may come later."""
    unit_id = new_id()
    place = await world.topics.submit({"cancel": unit_id, "reason": "too early"}, key="c")
    outcome = await world.run(insert("sample", unit_id), id=unit_id, key="c")
    assert outcome["status"] == "committed"

    async def is_logged() -> bool:
        return any(line["unit"] == unit_id for line in world.daemon.logs("unit.cancel_unknown"))

    await until(is_logged, "the cancel is logged", 5)
    await world.settled()
    assert world.topics.dead_letters_so_far(place) == []
    assert len(world.topics.outcomes_so_far(unit_id)) == 1
