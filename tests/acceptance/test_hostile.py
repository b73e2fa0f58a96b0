"""Input that means harm: nothing stops the daemon, or holds up anybody else (I10, I12)."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tests.acceptance.harness.canonical import digest_of
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
from tests.acceptance.harness.outsider import accepted, holding, stored
from tests.acceptance.harness.topics import Place
from tests.acceptance.harness.world import World, new_id, new_number

NUL = "a\x00b"
KAFKA_DEFAULT_BYTES = 1_048_588  # message.max.bytes, of a whole batch


def _noise(length: int) -> str:
    """Give text that no index can compress, the same in every run."""
    return "".join(random.Random(7).choices("0123456789abcdefghijklmnopqrstuvwxyz", k=length))


STRANGE: dict[str, list[Json]] = {
    "a long key, PostgreSQL": [insert("sample", _noise(9000))],
    "a long key, MongoDB": [insert("wallet", _noise(9000))],
    "a very long key, MongoDB": [insert("wallet", _noise(150_000))],
    "a check of a long key": [check("sample", _noise(9000), absent=True)],
    "a long ignored miss": [delete("entry", _noise(9000), if_missing="ignore")],
    "a NUL in a key, MongoDB": [insert("wallet", NUL + new_id(), note="x")],
    "a NUL in a missing key, MongoDB": [setting("wallet", NUL, note="x")],
    "a NUL in a missing key, PostgreSQL": [setting("entry", NUL, note="x")],
    "a NUL in an operand": [
        insert("sample", new_id()),
        check("sample", "n", expect={"text_": NUL}),
    ],
    "a NUL in json, jsonb": [insert("sample", new_id(), data={"a": NUL})],
    "a NUL in json, json": [insert("sample", new_id(), raw={NUL: 1})],
    "a NUL in json, MongoDB": [insert("document", new_id(), data={"a": NUL})],
    "a key of MongoDB's own": [insert("wallet", "$where", note="$where")],
    "operators as data": [insert("document", new_id(), data=[{"x": "$set"}], text_="$$ROOT")],
    "an expression as data": [
        insert("document", "expr", text_="x"),
        setting("document", "expr", text_="$amount"),
    ],
    "a time before year 1": [insert("sample", new_id(), at_="0001-01-01T00:00:00+14:00")],
    "a time after year 9999": [insert("sample", new_id(), at_="9999-12-31T23:59:59-14:00")],
    "the first time, MongoDB": [insert("document", new_id(), at_="0001-01-01T00:00:00Z")],
    "the last time, MongoDB": [insert("document", new_id(), at_="9999-12-31T23:59:59.999Z")],
    "a leap second": [insert("sample", new_id(), at_="2016-12-31T23:59:60Z")],
    "an offset of 24 hours": [insert("sample", new_id(), at_="2016-12-31T23:59:59+24:00")],
    "year zero": [insert("sample", new_id(), day="0000-01-01")],
    "a huge exponent": [insert("sample", new_id(), free="1e1000000000")],
    "a tiny exponent": [insert("sample", new_id(), free="1e-1000000000")],
    "an exponent past int": [insert("sample", new_id(), free="1e99999999999999999999")],
    "a huge exponent, MongoDB": [insert("document", new_id(), amount="1e1000000000")],
    "a decimal of 140,000 digits": [insert("sample", new_id(), free="9" * 140_000)],
    "a NaN as decimal": [insert("sample", new_id(), free="NaN")],
    "an infinite decimal": [insert("sample", new_id(), free="-Infinity")],
    "a decimal of other digits": [insert("sample", new_id(), free="\u0661\u0662")],
    "an infinite increment": [adding("account", 1, balance="Infinity")],
    "a huge increment": [adding("account", 1, balance="1e1000")],
    "an increment of -0": [adding("account", 1, balance="-0")],
    "a pattern that takes long": [insert("account", new_number(), code="A" * 20_000)],
    "names of code": [insert("sample", "'; DROP TABLE accounts; --", text_="$1 %s {} \\")],
    "a deep json field": [insert("sample", new_id(), data=json.loads("[" * 58 + "]" * 58))],
    "a name that is no name": [insert("__class__", 1, __init__=1)],
    "many conditions": [
        check("sample", "k", expect={"int_": {"in": list(range(20_000))}}),
    ],
    "surrogate pair in a key": [insert("sample", f"\U0001f600{new_id()}")],
    "no-break spaces and marks": [insert("sample", f"\u00a0\u202e\ufeff{new_id()}", text_="")],
    "upsert of a NUL": [upsert("wallet", NUL, note=NUL)],
    "expectation of a missing document": [update("wallet", NUL, {"note": NUL}, set={"note": "x"})],
    "increment of a NUL key": [adding("wallet", NUL + "x", points=1)],
}

RAW = {
    "an integer of 100,000 digits as key": '"operations":[{"op":"delete","entity":"account",'
    '"key":N}]',
    "an integer of 100,000 digits as timeout": '"timeout_ms":N,"operations":[]',
    "an integer of 100,000 digits as value": '"operations":[{"op":"insert","entity":"sample",'
    '"key":"k","values":{"int_":N}}]',
    "a float of 100,000 digits": '"operations":[{"op":"insert","entity":"sample",'
    '"key":"k","values":{"double_":0.N}}]',
    "a float past the last": '"operations":[{"op":"insert","entity":"sample",'
    '"key":"k","values":{"double_":1e999}}]',
    "a number in json past every type": '"operations":[{"op":"insert","entity":"document",'
    '"key":"k","values":{"data":N}}]',
    "an integer of 100,000 digits as metadata": '"metadata":N,"operations":[]',
    "forty thousand mistakes": ",".join(f'"m{n}":0' for n in range(20_000)),
    "a hundred operations of many mistakes": '"operations":['
    + ",".join(
        '{"op":"x","entity":"y",' + ",".join(f'"z{n}":0' for n in range(200)) + "}"
        for _ in range(100)
    )
    + "]",
    "an entity of 200,000 characters": '"operations":[{"op":"delete","key":1,"entity":"'
    + "\\u0001" * 30_000
    + '"}]',
}


async def test_i10_every_strange_unit_has_one_outcome_and_nobody_waits_for_it(
    world: World, subtests: pytest.Subtests
) -> None:
    """I7, I10, I12: each ends, at once, and good units before and behind it commit."""
    ids: dict[str, str] = {}
    texts: dict[str, str] = {}
    for name, operations in STRANGE.items():
        ids[name] = new_id()
        texts[name] = json.dumps({"id": ids[name], "operations": operations})
    for name, body in RAW.items():
        ids[name] = new_id()
        number = "7" * 100_000
        texts[name] = f'{{"id":"{ids[name]}",{body.replace("N", number) if "N" in body else body}}}'
    good = []
    for name in ids:
        good.append(await world.submit(insert("sample", new_id()), insert("wallet", new_id())))
        await world.topics.submit(texts[name])
    for name, unit_id in ids.items():
        with subtests.test(name):
            outcome = await world.result(unit_id, "any", seconds=12)
            assert outcome["status"] in {"committed", "rejected", "compensated"}
            assert outcome["digest"] == digest_of(texts[name])
            if outcome["status"] != "committed":
                assert outcome["error"]["code"] not in {"deadline_exceeded", "store_refused"}
    assert {o["status"] for o in await world.results(good)} == {"committed"}


async def test_i10_a_nul_in_a_reason_or_an_error_is_carried(
    world: World, subtests: pytest.Subtests
) -> None:
    """I10, F8: texts that PostgreSQL's text and jsonb cannot hold come through all the same."""
    a, key = new_number(), NUL + new_id()
    await world.committed(insert("account", a), insert("wallet", key, note="before"))
    async with holding(world, "accounts", a):
        unit_id = await world.submit(
            setting("account", a, note="x"), setting("wallet", key, note="y"), key="k"
        )
        await accepted(world, unit_id)
        await world.topics.submit({"cancel": unit_id, "reason": f"why {NUL} \u2028"}, key="k")
        outcome = await world.result(unit_id)
    with subtests.test("reason"):
        assert outcome["error"]["code"] == "cancelled"
        assert "why" in outcome["error"]["message"]
    row = await stored(world, "wallet", key)
    assert row is not None
    assert (row["note"], row["version"]) == ("before", 1)
    cases = {
        "already_exists": [insert("wallet", key)],
        "expectation_failed": [check("wallet", key, expect={"note": NUL})],
        "constraint_violated": [
            setting("wallet", key, note="z"),
            insert("account", new_number(), balance="950000"),
        ],
    }
    for code, operations in cases.items():
        with subtests.test(code):
            outcome = await world.run(*operations, metadata={"nul": NUL})
            assert outcome["error"]["code"] == code
            assert outcome["metadata"] == {"nul": NUL}


async def test_i10_the_largest_records_become_dead_letters_too(
    world: World, subtests: pytest.Subtests
) -> None:
    """F1, I12: with our headers added it must still fit the dead letters' topic."""
    places: list[tuple[int, Place]] = []
    for spare in (100, 300, 2000):
        value = b"x" * (KAFKA_DEFAULT_BYTES - spare)
        places.append((len(value), await world.topics.submit(value, key=b"large")))
    after = await world.topics.submit(b"no json", key=b"large")
    for length, place in places:
        with subtests.test(str(length)):
            found = await world.topics.dead_letter(place, seconds=8)
            assert found.value is not None
            assert len(found.value) == length
            assert dict(found.headers)["coordinator.errors.code"] == b"too_large"
    assert (await world.topics.dead_letter(after, seconds=8)).value == b"no json"


async def test_i10_a_flood_of_rubbish_does_not_delay_a_good_unit_for_long(world: World) -> None:
    """I10: thousands of dead letters around one unit."""
    rubbish: list[Any] = [b"{"] * 1500
    unit: Json = {"id": new_id(), "operations": [insert("sample", new_id())]}
    places = await world.topics.submit_all([*rubbish, unit, *rubbish], key="flood")
    assert (await world.result(unit["id"]))["status"] == "committed"
    await world.topics.dead_letter(places[-1])
    await world.topics.caught_up()
    wanted = {str(p.offset) for p in places if p != places[len(rubbish)]}
    found = {
        (content or b"").decode()
        for record in world.topics.of(world.topics.dead_letters_topic)
        if record.key == b"flood"
        for name, content in record.headers
        if name == "coordinator.errors.offset"
    }
    assert found == wanted
