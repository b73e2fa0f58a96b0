"""The sender's own undo: when it runs, what it does, and what happens when it cannot (F25)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.harness.operations import Json, delete, insert, setting, update, upsert
from tests.acceptance.harness.outsider import stored
from tests.acceptance.harness.world import World, new_id, new_number

STORES = ["entry", "wallet"]


@pytest.fixture(autouse=True)
def parking_is_expected(world: World) -> None:
    world.daemon.expected_errors |= {"unit.parked", "compensation.refused"}


def breaking() -> Json:
    return insert("account", new_number(), balance="950000")


@pytest.mark.parametrize("entity", STORES)
async def test_f25_it_replaces_the_undo_of_its_operation(
    world: World, entity: str, subtests: pytest.Subtests
) -> None:
    """F25: bumps the version, is not announced, and takes the place of the automatic undo."""
    void: Json = {"op": "update", "set": {"state": "void"}}
    first = {"note": "n", "state": "open"}
    cases: dict[str, tuple[bool, Any, Json | None]] = {
        "update by update": (
            True,
            lambda k: [update(entity, k, set={"state": "paid", "note": "x"}, compensate=void)],
            {"state": "void", "note": "x", "version": 3},
        ),
        "its entity and key written out": (
            True,
            lambda k: [
                setting(entity, k, state="paid")
                | {"compensate": void | {"entity": entity, "key": k}}
            ],
            {"state": "void", "note": "n", "version": 3},
        ),
        "insert by update": (
            False,
            lambda k: [insert(entity, k, note="n") | {"compensate": void}],
            {"state": "void", "note": "n", "version": 2},
        ),
        "insert by delete": (
            False,
            lambda k: [insert(entity, k, note="n") | {"compensate": {"op": "delete"}}],
            None,
        ),
        "delete by insert": (
            True,
            lambda k: [
                delete(entity, k, compensate={"op": "insert", "values": {"note": "back"}}),
            ],
            {"note": "back", "state": None},
        ),
        "delete by upsert": (
            True,
            lambda k: [
                delete(entity, k, compensate={"op": "upsert", "values": {"state": "void"}}),
            ],
            {"state": "void", "note": None},
        ),
        "upsert by delete": (
            False,
            lambda k: [upsert(entity, k, note="n") | {"compensate": {"op": "delete"}}],
            None,
        ),
        "one of two operations on a key": (
            True,
            lambda k: [
                setting(entity, k, note="second"),
                update(entity, k, set={"state": "paid"}, compensate=void),
            ],
            {"state": "void", "note": "n"},
        ),
        "unset and increment": (
            True,
            lambda k: [
                update(
                    entity,
                    k,
                    set={"state": "paid"},
                    compensate={"op": "update", "unset": ["note"], "set": {"state": "x"}},
                ),
            ],
            {"state": "x", "note": None, "version": 3},
        ),
    }
    keys = {name: new_id() for name in cases}
    await world.run(*(insert(entity, keys[n], **first) for n, case in cases.items() if case[0]))
    ids = {
        name: await world.submit(*operations(keys[name]), breaking())
        for name, (_, operations, _) in cases.items()
    }
    for name, (_, _, ends) in cases.items():
        with subtests.test(name):
            outcome = await world.result(ids[name])
            assert outcome["status"] == "compensated", outcome
            assert outcome["error"]["code"] == "constraint_violated"
            now = await stored(world, entity, keys[name])
            if ends is None:
                assert now is None
            else:
                assert now is not None
                assert {field: now.get(field) for field in ends} == ends
    await world.settled()
    assert not any(world.topics.changes_so_far(unit_id) for unit_id in ids.values())


@pytest.mark.parametrize("entity", STORES)
async def test_f25_it_is_not_used_where_nothing_was_applied(world: World, entity: str) -> None:
    """F25: not when the unit commits, is refused before it is applied, nor in the pivot."""
    void: Json = {"op": "update", "set": {"state": "void", "note": "void"}}
    key, number, gone = new_id(), new_number(), new_number()
    await world.committed(insert(entity, key, state="open"), insert("account", number, note="n"))
    before = await stored(world, entity, key)
    own = setting(entity, key, state="paid") | {"compensate": void}
    refused = await world.run(own, setting("account", gone, note="x"))
    assert (refused["status"], refused["error"]["code"]) == ("rejected", "not_found")
    assert await stored(world, entity, key) == before
    refused = await world.run(
        setting("account", number, balance="950000")
        | {"compensate": {"op": "update", "set": {"note": "void"}}}
    )
    assert (refused["status"], refused["error"]["code"]) == ("rejected", "constraint_violated")
    row = await world.row("accounts", number)
    assert row is not None
    assert (row["note"], row["version"]) == ("n", 1)
    await world.committed(own)
    now = await stored(world, entity, key)
    assert now is not None
    assert (now["state"], now["version"]) == ("paid", 2)


async def test_f25_refused_by_the_store_is_parked_and_can_be_retried(
    world: World, subtests: pytest.Subtests
) -> None:
    """F10, F11, F25: CHECK, validator or unique index: `undo_failed`; the branch stays."""
    number, other = new_number(), new_number()
    await world.committed(insert("guarded", number, size=5, note=f"g{number}"))
    await world.committed(insert("member", number, age=30, email=f"{number}@x"))
    await world.committed(insert("member", other, email=f"{other}@x"))
    cases = {
        "CHECK": ("guarded", {"op": "update", "set": {"size": -1}}),
        "trigger": ("guarded", {"op": "update", "set": {"note": "forbidden"}}),
        "validator": ("member", {"op": "update", "set": {"age": 3}}),
        "unique index": ("member", {"op": "update", "set": {"email": f"{other}@x"}}),
    }
    for name, (entity, compensate) in cases.items():
        with subtests.test(name):
            field = "size" if entity == "guarded" else "age"
            before = await stored(world, entity, number)
            outcome = await world.run(
                update(entity, number, set={field: 77}, compensate=compensate), breaking()
            )
            assert outcome["status"] == "parked", outcome
            error = outcome["error"]
            assert (error["code"], error["retryable"]) == ("undo_failed", False)
            now = await stored(world, entity, number)
            assert now == (before or {}) | {field: 77}
            unit_id = outcome["unit"]
            await world.cli(
                *("units", "resolve", unit_id, "--as", "compensated", "--reason", "by hand")
            )
            final = await world.result(unit_id)
            assert (final["status"], final["error"]["code"]) == (
                "compensated",
                "constraint_violated",
            )


@pytest.mark.parametrize("entity", STORES)
async def test_f25_what_is_checked_before_admission(
    world: World, entity: str, subtests: pytest.Subtests
) -> None:
    """F25: `invalid`, early: other entity or key, expect, if_missing, $ref, compensate, check."""
    key = new_id()
    wrong: dict[str, Any] = {
        "another key": {"op": "delete", "key": "other"},
        "another entity": {"op": "delete", "entity": "sample"},
        "expect": {"op": "delete", "expect": {"note": "n"}},
        "if_missing": {"op": "delete", "if_missing": "ignore"},
        "compensate": {"op": "delete", "compensate": {"op": "delete"}},
        "check": {"op": "check"},
        "$ref": {"op": "update", "set": {"note": {"$ref": "0.key"}}},
        "unknown field": {"op": "update", "set": {"nope": 1}},
        "wrong type": {"op": "update", "set": {"note": 5}},
        "writes nothing": {"op": "update"},
        "unknown member": {"op": "delete", "bogus": 1},
        "a list": [],
        "version": {"op": "update", "set": {"version": 1}},
    }
    ids = {
        name: await world.submit(insert(entity, key) | {"compensate": compensate})
        for name, compensate in wrong.items()
    }
    for name, unit_id in ids.items():
        with subtests.test(name):
            outcome = await world.result(unit_id, "any")
            assert (outcome["status"], outcome["error"]["code"]) == ("rejected", "invalid"), outcome
            assert outcome["error"]["path"].startswith("operations.0.compensate")
