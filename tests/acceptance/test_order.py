"""The order of operations, chains on one key, locks of references, events (F13 to F15, F34)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

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
from tests.acceptance.harness.outsider import accepted, holding
from tests.acceptance.harness.topics import Record
from tests.acceptance.harness.world import World, new_id, new_number


def _told(events: list[Record]) -> list[tuple[str, str]]:
    return [(event.json["source"]["entity"], event.json["op"]) for event in events]


async def test_f13_references_decide_the_order_else_it_stays_as_written(
    world: World, subtests: pytest.Subtests
) -> None:
    """F13, F9: `total_order` follows the plan, the outcome the written order."""
    old, i = new_number(), [new_id() for _ in range(12)]
    c = [new_number() for _ in range(12)]
    await world.committed(
        insert("customer", old, name="n"),
        insert("invoice", i[0], customer=old),
        insert("account", old),
    )
    cases: dict[str, tuple[list[Json], list[tuple[str, str]]]] = {
        "an insert after what it refers to": (
            [insert("invoice", i[1], customer=c[1]), insert("customer", c[1], name="n")],
            [("customer", "c"), ("invoice", "c")],
        ),
        "the key as text": (
            [insert("invoice", i[2], customer=str(c[2])), insert("customer", c[2], name="n")],
            [("customer", "c"), ("invoice", "c")],
        ),
        "upserts as well": (
            [upsert("invoice", i[3], customer=c[3]), upsert("customer", c[3], name="n")],
            [("customer", "c"), ("invoice", "c")],
        ),
        "a delete after those that refer to it": (
            [delete("customer", old), delete("invoice", i[0])],
            [("invoice", "d"), ("customer", "d")],
        ),
        "one key never swaps": (
            [
                insert("customer", c[4], name="n"),
                insert("invoice", i[4], customer=c[4]),
                delete("invoice", i[4]),
                delete("customer", c[4]),
                insert("customer", c[4], name="again"),
                insert("invoice", i[4], customer=c[4]),
            ],
            [
                *(("customer", "c"), ("invoice", "c"), ("invoice", "d")),
                *(("customer", "d"), ("customer", "c"), ("invoice", "c")),
            ],
        ),
        "a row that another refers to is left where it is": (
            [
                insert("account", c[5]),
                insert("invoice", i[5], customer=c[5]),
                setting("account", old, note="x"),
                insert("customer", c[5], name="n"),
            ],
            [],
        ),
        "unrelated ones stay": (
            [
                insert("sample", i[6]),
                insert("account", c[6]),
                insert("entry", i[6]),
                insert("customer", c[6], name="n"),
                insert("sample", i[7]),
            ],
            [(e, "c") for e in ("sample", "account", "entry", "customer", "sample")],
        ),
        "a self-reference stays": (
            [insert("part", c[7], whole=c[8]), insert("part", c[8])],
            [("part", "c"), ("part", "c")],
        ),
        "over two stores": (
            [insert("order", i[8], customer=c[9]), insert("customer", c[9], name="n")],
            [("customer", "c"), ("order", "c")],
        ),
    }
    ids = {name: await world.submit(*operations) for name, (operations, _) in cases.items()}
    for name, (operations, expected) in cases.items():
        with subtests.test(name):
            outcome = await world.result(ids[name], "any")
            assert outcome["status"] == "committed", outcome["error"]
            entries = [(e["op"], e["entity"], str(e["key"])) for e in outcome["operations"]]
            assert entries == [(o["op"], o["entity"], str(o["key"])) for o in operations]
            events = await world.topics.changes(ids[name], len(operations))
            if expected:
                assert _told(events) == expected
            else:
                told = [entity for entity, _ in _told(events)]
                assert told.index("customer") < told.index("invoice")
            if name == "a self-reference stays":
                assert [e.json["after"]["id"] for e in events] == [c[7], c[8]]


@pytest.mark.parametrize("entity", ["account", "entry", "wallet"])
async def test_f14_operations_on_one_key_are_chained(world: World, entity: str) -> None:
    """F14, F21, F34: each sees the former's result, bumps the version, is an event."""
    key: Any = new_number() if entity == "account" else new_id()
    amount = "amount" if entity == "entry" else "balance"
    outcome = await world.run(
        insert(entity, key, note="one", **{amount: "1.00"}),
        setting(entity, key, note="two"),
        update(entity, key, {"note": "two", "version": 2}, increment={amount: "2.50"}),
        check(entity, key, expect={amount: {"eq": "3.50"}}),
        delete(entity, key, expect={amount: "3.50"}),
        upsert(entity, key, note="again"),
        upsert(entity, key, note="again"),
        update(entity, key, unset=["note"]),
    )
    assert outcome["status"] == "committed", outcome["error"]
    assert [e.get("version") for e in outcome["operations"]][:4] == [1, 2, 3, 3]
    assert [e.get("version") for e in outcome["operations"]][5:] == [1, 2, 3]
    events = [e.json for e in await world.topics.changes(outcome["unit"], 7)]
    assert [e["op"] for e in events] == ["c", "u", "u", "d", "c", "u", "u"]
    assert [e["transaction"]["total_order"] for e in events] == list(range(1, 8))
    assert [e["transaction"]["data_collection_order"] for e in events] == list(range(1, 8))
    assert events[0]["before"] is None
    assert events[3]["after"] is None
    for former, later in pairwise(events):
        assert later["before"] == former["after"]
    images = [e["after"] or {} for e in events]
    assert [i.get("version") for i in images] == [1, 2, 3, None, 1, 2, 3]
    assert [i.get("note") for i in images] == [*("one", "two", "two", None, "again", "again", None)]
    assert float(images[2][amount]) == 3.5
    assert images[4][amount] is None


async def test_f34_the_event_is_a_debezium_envelope(world: World) -> None:
    """DESIGN 2.3, F34: envelope, headers and key of an event, to the letter."""
    number = new_number()
    traceparent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await world.committed(insert("account", number, balance="12.5", note="n"))
    unit_id, _ = await world.place(
        setting("account", str(number), note="m"),
        insert("sample", f"\u00e9{number}"),
        metadata={"who": "me"},
        headers=[("traceparent", traceparent)],
    )
    record, other = await world.topics.changes(unit_id, 2)
    event = record.json
    before = {
        "id": number,
        "balance": "12.50",
        "status": None,
        "note": "n",
        "code": None,
        "origin": "web",
        "opened": None,
        "version": 1,
    }
    assert event.pop("before") == before
    assert event.pop("after") == before | {"note": "m", "version": 2}
    source = event.pop("source")
    assert isinstance(source.pop("version"), str)
    assert isinstance(source.pop("name"), str)
    assert isinstance(source.pop("ts_ms"), int)
    assert source.pop("table") in {"accounts", "public.accounts"}
    assert source == {"connector": "coordinator", "store": "ledger", "entity": "account"}
    assert isinstance(event.pop("ts_ms"), int)
    assert event == {
        "op": "u",
        "transaction": {"id": unit_id, "total_order": 1, "data_collection_order": 1},
        "metadata": {"who": "me"},
    }
    assert record.topic == world.topics.changes_topic("account")
    assert record.key == str(number).encode()
    assert other.key == f'"\u00e9{number}"'.encode()
    assert record.header("ce_specversion") == "1.0"
    assert record.ce_id == f"{unit_id}/1"
    assert other.ce_id == f"{unit_id}/2"
    assert record.header("content-type") == "application/json"
    assert record.header("traceparent") == traceparent.decode()
    assert record.header("ce_subject") == str(number)
    for name in ("ce_type", "ce_source", "ce_time"):
        assert record.header(name), name


async def test_f34_an_update_that_changes_nothing_is_an_event(world: World) -> None:
    """F34: the version moves, so it is announced."""
    number = new_number()
    await world.committed(insert("account", number, note="same"))
    events = await world.committed(setting("account", number, note="same"))
    assert (events[0].json["op"], events[0].json["after"]["version"]) == ("u", 2)


async def test_i8_events_of_one_key_stand_in_commit_order(world: World) -> None:
    """DESIGN 2.3, I5, I8: over many units of one Kafka key, images are one chain."""
    number, count = new_number(), 60
    ids = [await world.submit(insert("account", number, balance="0"), key="chain")]
    ids += [
        await world.submit(adding("account", number, balance="1"), key="chain")
        for _ in range(count)
    ]
    assert {o["status"] for o in await world.results(ids)} == {"committed"}
    await world.topics.caught_up()
    wanted = str(number).encode()
    records = [r for r in world.topics.of(world.topics.changes_topic("account")) if r.key == wanted]
    assert len({r.partition for r in records}) == 1
    chain = list({r.ce_id: r.json for r in records}.values())
    assert len(chain) == count + 1
    for former, later in pairwise(chain):
        assert later["before"] == former["after"]
    assert [e["transaction"]["id"] for e in chain] == ids


@pytest.mark.parametrize("referrer", ["invoice", "order"])
async def test_f15_references_are_shared_and_hold_writers_off(world: World, referrer: str) -> None:
    """F15: referrers share; a writer of the referred key waits for them, and they for it."""
    c, a = new_number(), new_number()
    await world.committed(insert("customer", c, name="n"), insert("account", a))
    async with holding(world, "accounts", a):
        first = await world.submit(
            insert(referrer, new_id(), customer=c), setting("account", a, note="stuck")
        )
        await accepted(world, first)
        shared = await world.run(insert(referrer, new_id(), customer=c))
        assert shared["status"] == "committed"
        writer = await world.submit(setting("customer", c, status="written"))
        await accepted(world, writer)
        behind = await world.submit(insert(referrer, new_id(), customer=str(c)))
        await accepted(world, behind)
        unrelated = await world.run(setting("account", new_number(), note="x"))
        assert unrelated["error"]["code"] == "not_found"
        await world.settled()
        assert [world.topics.outcomes_so_far(u) for u in (first, writer, behind)] == [[], [], []]
    outcomes = await world.results([first, writer, behind])
    assert [o["status"] for o in outcomes] == ["committed"] * 3
    finished = [o["finished_at"] for o in outcomes]
    assert finished == sorted(finished)


async def test_f15_an_update_of_the_reference_field_locks_too(world: World) -> None:
    """F15: setting a declared reference by an update waits for the writer of the referred key."""
    c, a, order = new_number(), new_number(), new_id()
    await world.committed(insert("customer", c, name="n"), insert("account", a))
    await world.committed(insert("invoice", order))
    async with holding(world, "accounts", a):
        writer = await world.submit(
            setting("customer", c, status="w"), setting("account", a, note="stuck")
        )
        await accepted(world, writer)
        setter = await world.submit(setting("invoice", order, customer=c))
        await accepted(world, setter)
        amount = await world.submit(setting("invoice", order, amount="5"), timeout_ms=200)
        other = await world.result(amount)
        assert other["error"]["code"] == "deadline_exceeded"
        assert world.topics.outcomes_so_far(setter) == []
    assert [o["status"] for o in await world.results([writer, setter])] == ["committed"] * 2


@pytest.mark.parametrize("referrer", ["invoice", "order"])
async def test_f15_a_customer_and_then_its_order_in_two_units(world: World, referrer: str) -> None:
    """F15: safe with the same Kafka key, however fast they come."""
    pairs = [(new_number(), new_id()) for _ in range(40)]
    ids = []
    for c, o in pairs:
        key = str(c)
        ids.append(await world.submit(insert("customer", c, name="n"), key=key))
        ids.append(await world.submit(insert(referrer, o, customer=c), key=key))
        ids.append(await world.submit(delete(referrer, o), delete("customer", c), key=key))
    assert {o["status"] for o in await world.results(ids)} == {"committed"}
