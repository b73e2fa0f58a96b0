"""The outcome, member by member; late refusals and what they say (F6, F9, F10, F16 to F24, F33)."""

from __future__ import annotations

import json
from datetime import datetime
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
from tests.acceptance.harness.world import World, new_id, new_number

RETRYABLE = {
    *("expectation_failed", "deadline_exceeded", "cancelled", "store_refused"),
    *("not_found", "already_exists", "out_of_bounds"),
}
AT_THE_END_OF_THE_TRANSACTION = {"deferred UNIQUE"}  # PostgreSQL does not tell whose row it was
BREAKS_THE_CEILING = "950000"  # the CHECK of accounts; within max, so seen at the pivot only


async def test_the_outcome_of_a_committed_unit_has_exactly_these_members(world: World) -> None:
    """DESIGN 2.2, F3, F9: names, types and times of an outcome."""
    number = new_number()
    body: Json = {
        "id": new_id(),
        "operations": [insert("account", number, balance="1.00")],
        "metadata": {"trace": ["x", 1]},
    }
    text = json.dumps(body)
    await world.topics.submit(text)
    outcome = await world.result(body["id"])
    received, finished = (
        datetime.fromisoformat(outcome.pop(name)) for name in ("received_at", "finished_at")
    )
    duration_ms = outcome.pop("duration_ms")
    assert outcome == {
        "unit": body["id"],
        "digest": digest_of(text),
        "status": "committed",
        "duplicate": False,
        "error": None,
        "operations": [{"entity": "account", "key": number, "op": "insert", "version": 1}],
        "metadata": {"trace": ["x", 1]},
    }
    assert received.utcoffset() is not None
    assert finished.utcoffset() is not None
    took_ms = (finished - received).total_seconds() * 1000
    assert 0 <= duration_ms == pytest.approx(took_ms, abs=1)
    raw = (await world.topics.outcome(body["id"])).json
    assert raw["received_at"].endswith("Z")
    assert raw["finished_at"].endswith("Z")


async def test_metadata_is_echoed_whatever_json_it_is(
    world: World, subtests: pytest.Subtests
) -> None:
    """DESIGN 2.1, F34: any JSON, in the outcome and beside `transaction` in every event."""
    texts = [
        "0",
        "false",
        '""',
        "[]",
        "{}",
        '"\\u0000\\ud83d\\ude00"',
        "[1.50,1e2,12345678901234567890]",
    ]
    ids = [new_id() for _ in texts]
    for unit_id, metadata in zip(ids, texts, strict=True):
        operations = json.dumps([insert("sample", unit_id)])
        await world.topics.submit(
            f'{{"id":"{unit_id}","metadata":{metadata},"operations":{operations}}}'
        )
    for unit_id, metadata in zip(ids, texts, strict=True):
        with subtests.test(metadata):
            assert (await world.result(unit_id))["metadata"] == json.loads(metadata)
            event = (await world.topics.changes(unit_id, 1))[0]
            assert event.json["metadata"] == json.loads(metadata)


async def test_an_event_of_a_unit_without_metadata_has_none(world: World) -> None:
    """F34: metadata stands in the event *when given*."""
    event = (await world.committed(insert("sample", new_id())))[0]
    assert "metadata" not in event.json


async def test_f9_operations_of_a_committed_unit(world: World) -> None:
    """F9, F18, F19, F20: one entry per operation as submitted; versions, keys, what did nothing."""
    a, b, c, big = new_number(), new_number(), new_number(), 2**53
    await world.committed(insert("account", a), insert("account", b), insert("account", str(big)))
    outcome = await world.run(
        delete("account", b),
        check("account", str(a), expect={"version": 1}),
        update("account", a, set={"note": "x"}),
        update("account", a, set={"balance": "3"}),
        delete("account", c, if_missing="ignore"),
        upsert("account", c, note="made"),
        upsert("account", c, note="set"),
        check("account", new_number(), absent=True),
        setting("account", str(big), note="big"),
        insert("seat", new_number()),
        insert("ticket", title="t"),
    )
    assert outcome["status"] == "committed", outcome["error"]
    entries = outcome["operations"]
    assert [e["op"] for e in entries] == [
        *("delete", "check", "update", "update", "delete", "upsert", "upsert", "check", "update"),
        *("insert", "insert"),
    ]
    assert [e["key"] for e in entries[:7]] == [b, a, a, a, c, c, c]
    assert entries[8]["key"] == str(big)
    assert [n for n, e in enumerate(entries) if e.get("applied") is False] == [1, 4, 7]
    assert entries[1] == {
        **{"entity": "account", "key": a, "op": "check", "version": 1, "applied": False}
    }
    assert [entries[n]["version"] for n in (2, 3, 5, 6, 8)] == [2, 3, 1, 2, 2]
    assert "version" not in entries[9]
    ticket = entries[10]["key"]
    row = await world.row("tickets", ticket)
    assert row is not None
    assert (row["title"], str(row["id"])) == ("t", ticket)
    assert ticket[14] == "7"


@pytest.mark.parametrize("remote", ["entry", "wallet"])
async def test_f6_compensated_only_when_something_had_been_written(
    world: World, remote: str, subtests: pytest.Subtests
) -> None:
    """F6, F9, I2: `compensated` is a fact; a check or an ignored miss writes nothing."""
    there, missing = new_id(), new_id()
    await world.committed(insert(remote, there, note="kept"))
    breaking = [insert("account", new_number(), balance=BREAKS_THE_CEILING) for _ in range(7)]
    units = {
        "the journal's store only": (breaking[:1], "rejected"),
        "a check elsewhere": ([check(remote, there), breaking[1]], "rejected"),
        "an ignored miss elsewhere": (
            [delete(remote, missing, if_missing="ignore"), breaking[2]],
            "rejected",
        ),
        "an insert elsewhere": ([insert(remote, missing), breaking[3]], "compensated"),
        "an update elsewhere": ([breaking[4], setting(remote, there, note="x")], "compensated"),
        "a delete elsewhere": ([breaking[5], delete(remote, there)], "compensated"),
        "seen before anything is written": (
            [insert(remote, missing), setting("account", new_number(), note="x")],
            "rejected",
        ),
    }
    ids = {name: await world.submit(*unit[0]) for name, unit in units.items()}
    for name, (operations, status) in units.items():
        with subtests.test(name):
            outcome = await world.result(ids[name])
            assert outcome["status"] == status, outcome
            assert outcome["operations"] == []
            if "seen" not in name:
                at = operations.index(next(o for o in operations if o["entity"] == "account"))
                error = outcome["error"]
                assert (error["code"], error["operation"]) == ("constraint_violated", at)
                assert (error["entity"], error["key"]) == ("account", operations[at]["key"])
                assert error["path"].startswith(f"operations.{at}")
    await world.topics.caught_up()
    assert [world.topics.changes_so_far(each) for each in ids.values()] == [[]] * len(ids)
    table, of = ("entries", "archive") if remote == "entry" else ("wallets", "catalog")
    rows = [
        world.doc(table, key) if of == "catalog" else await world.row(table, key, of)
        for key in (there, missing)
    ]
    assert rows[0] is not None
    assert (rows[0]["note"], rows[0]["version"], rows[1]) == ("kept", 1, None)


async def test_late_refusals_say_what_and_where(world: World, subtests: pytest.Subtests) -> None:
    """F10, F16 to F23, F33: code, operation, entity, key, `retryable`; rejected; no event."""
    a, seat, gone = new_number(), new_number(), new_number()
    seated = [new_number(), new_number()]
    await world.committed(
        insert("account", a, balance="10.00", status="active"),
        insert("customer", seat, name="n", email=f"{seat}@x", tier=5),
        insert("seat", seated[0], place=seated[0]),
        insert("sample", f"s-{a}", small=32_000, text_="abc"),
        insert("guarded", a, note=f"note-{a}", size=1),
    )
    cases: dict[str, tuple[list[Json], str]] = {
        "insert of a key that is there": ([insert("account", a)], "already_exists"),
        "inserted twice in one unit": (
            [insert("account", gone), insert("account", gone)],
            "already_exists",
        ),
        "update of a missing key": ([setting("account", gone, note="x")], "not_found"),
        "delete of a missing key": ([delete("account", gone)], "not_found"),
        "fail, said aloud": ([delete("account", gone, if_missing="fail")], "not_found"),
        "update after its delete": (
            [delete("account", a), setting("account", a, note="x")],
            "not_found",
        ),
        "check of a missing key": ([check("account", gone)], "not_found"),
        "check with expect of a missing key": (
            [check("account", gone, expect={"note": None})],
            "not_found",
        ),
        "check of absence, but there": ([check("account", a, absent=True)], "already_exists"),
        "expect on a check": ([check("account", a, expect={"version": 2})], "expectation_failed"),
        "expect on an update": (
            [update("account", a, {"balance": {"gt": "10"}}, set={"note": "x"})],
            "expectation_failed",
        ),
        "expect on a delete": (
            [delete("account", a, expect={"status": {"in": ["closed", None]}})],
            "expectation_failed",
        ),
        "order with null": (
            [check("account", a, expect={"opened": {"lt": "2030-01-01T00:00:00Z"}})],
            "expectation_failed",
        ),
        "below min": ([adding("account", a, balance="-10.01")], "out_of_bounds"),
        "above max": ([adding("account", a, balance="999990.01")], "out_of_bounds"),
        "past the column": ([adding("sample", f"s-{a}", small=1000)], "out_of_bounds"),
        "increment of null": ([adding("sample", f"s-{a}", int_=1)], "type_mismatch"),
        "increment of a missing field after unset": (
            [
                update("sample", f"s-{a}", unset=["small"]),
                adding("sample", f"s-{a}", small=1),
            ],
            "type_mismatch",
        ),
        "CHECK at the pivot": (
            [setting("account", a, balance=BREAKS_THE_CEILING)],
            "constraint_violated",
        ),
        "UNIQUE": (
            [insert("customer", gone, name="n", email=f"{seat}@x")],
            "constraint_violated",
        ),
        "deferred UNIQUE": (
            [insert("seat", seated[1], place=seated[0])],
            "constraint_violated",
        ),
        "foreign key": ([insert("invoice", new_id(), customer=gone)], "constraint_violated"),
        "a referred row deleted": (
            [insert("invoice", new_id(), customer=seat), delete("customer", seat)],
            "constraint_violated",
        ),
        "CHECK of another store": ([insert("guarded", gone, size=0)], "constraint_violated"),
        "UNIQUE of another store": (
            [insert("guarded", gone, note=f"note-{a}")],
            "constraint_violated",
        ),
        "a trigger's exception": (
            [insert("guarded", gone, note="forbidden")],
            "constraint_violated",
        ),
        "upsert that creates, lacking a required field": (
            [upsert("customer", gone, email="e")],
            "constraint_violated",
        ),
    }
    ids = {name: await world.submit(*operations) for name, (operations, _) in cases.items()}
    for name, (operations, code) in cases.items():
        with subtests.test(name):
            outcome = await world.result(ids[name])
            error = outcome["error"]
            assert (outcome["status"], error["code"]) == ("rejected", code), outcome
            assert error["retryable"] is (code in RETRYABLE)
            assert error["details"][0] == {k: v for k, v in error.items() if k != "details"}
            assert outcome["operations"] == []
            at = len(operations) - 1
            if name not in AT_THE_END_OF_THE_TRANSACTION:
                assert (error["operation"], error["key"]) == (at, operations[at]["key"])
                assert error["entity"] == operations[at]["entity"]
                assert error["path"].startswith(f"operations.{at}")
            assert len(error["message"].split()) >= 4
    await world.topics.caught_up()
    assert not any(world.topics.changes_so_far(unit_id) for unit_id in ids.values())
    row = await world.row("accounts", a)
    assert row is not None
    assert (str(row["balance"]), row["version"], row["note"]) == ("10.00", 1, None)


async def test_f10_expectations_name_their_place(world: World) -> None:
    """DESIGN 2.2: `path` points into the submission, such as `operations.1.expect.balance`."""
    a = new_number()
    await world.committed(insert("account", a, balance="1", note="n"))
    outcome = await world.run(
        check("account", a),
        update("account", a, {"note": "n", "balance": {"gte": "5"}}, set={"note": "x"}),
    )
    error = outcome["error"]
    assert error["code"] == "expectation_failed"
    assert error["path"].startswith("operations.1.expect.balance")
    assert (error["operation"], error["entity"], error["key"]) == (1, "account", a)


async def test_f10_late_mistakes_are_listed_in_written_order(
    world: World, subtests: pytest.Subtests
) -> None:
    """F10: details lists all mistakes that were found, the first is the first written."""
    a, there, gone = new_number(), new_id(), new_number()
    await world.committed(insert("account", a, balance="1"), insert("entry", there))
    await world.committed(insert("customer", a, name="n"), insert("invoice", there, customer=a))
    failing = check("account", a, expect={"note": "other", "balance": "7"})
    cases = {
        "two expectations of one operation": ([failing], [(0, "expectation_failed")] * 2),
        "two operations in one store": (
            [setting("account", gone, note="x"), failing],
            [(0, "not_found"), (1, "expectation_failed"), (1, "expectation_failed")],
        ),
        "two stores": (
            [setting("account", gone, note="x"), insert("entry", there)],
            [(0, "not_found"), (1, "already_exists")],
        ),
        "two stores, the other order": (
            [insert("entry", there), setting("account", gone, note="x")],
            [(0, "already_exists"), (1, "not_found")],
        ),
        "planned otherwise than written": (
            [insert("invoice", there, customer=a), insert("customer", a, name="n")],
            [(0, "already_exists"), (1, "already_exists")],
        ),
    }
    ids = {name: await world.submit(*operations) for name, (operations, _) in cases.items()}
    for name, (_, expected) in cases.items():
        with subtests.test(name):
            error = (await world.result(ids[name]))["error"]
            assert (error["operation"], error["code"]) == expected[0]
            assert [(d["operation"], d["code"]) for d in error["details"]] == expected


async def test_f16_to_f22_what_commits_and_what_stands_in_the_stores(world: World) -> None:
    """F16 to F22: defaults, absent fields, misses, two-valued expectations, versions."""
    a, c = new_number(), new_number()
    await world.committed(insert("account", a, note=None), insert("customer", c, name="n"))
    row = await world.row("accounts", a)
    assert row is not None
    assert (row["origin"], row["hidden"], row["note"], row["version"]) == ("web", "kept", None, 1)
    outcome = await world.run(
        check("account", a, expect={"note": None, "status": {"ne": "active"}}),
        check("account", a, expect={"status": {"in": [None, "active"]}, "origin": "web"}),
        check("account", a, expect={"balance": {"eq": None}, "version": {"gte": 1, "lt": 2}}),
        update("account", new_number(), {"note": "any"}, if_missing="ignore", set={"note": "x"}),
        delete("account", a),
        insert("account", a, balance="0"),
        adding("account", a, balance="2.50"),
    )
    assert outcome["status"] == "committed", outcome["error"]
    row = await world.row("accounts", a)
    assert row is not None
    assert (str(row["balance"]), row["version"]) == ("2.50", 2)
    values: dict[str, Any] = dict(await world.row("customers", c) or {})
    assert (values["status"], values["email"], values["version"]) == ("active", None, 1)
