"""Strangers who write between apply and undo: what is foreign, and what each policy does (F28–29).

A unit stands still between its other stores and the pivot while the test holds an account's row;
then the CHECK of that account fails, or the deadline passes, and the unit is undone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from bson import Decimal128, Int64

from tests.acceptance.harness.operations import (
    Json,
    adding,
    delete,
    insert,
    setting,
    update,
    upsert,
)
from tests.acceptance.harness.outsider import overwrite, remove, stored
from tests.acceptance.harness.waiting import until
from tests.acceptance.harness.world import World, new_id, new_number

STORES = ["entry", "wallet"]
NUMBER = {"entry": "count", "wallet": "points"}
MONEY = {"entry": "amount", "wallet": "balance"}
COLLECTION = {"": "wallets", "_force": "wallets_force", "_skip": "wallets_skip"}


@dataclass
class Case:
    """A row, what the unit does to it, what a stranger does then, and how the row ends."""

    name: str
    operations: Callable[[str, str, str], list[Json]]  # entity, key, name of the number field
    stranger: Json | None  # what is set, past us; None: deletes the row; {} nothing
    ends: Json | None  # a subset of the row at the end; None: it is gone
    foreign: bool = True
    exists: bool = True


def _insert_again(row: Json) -> Json:
    return {"insert": row}


CASES = [
    Case(
        "a set field was changed",
        lambda e, k, n: [setting(e, k, note="ours", state="ours")],
        {"note": "theirs"},
        {"note": "theirs", "state": "ours", "version": 5},
    ),
    Case(
        "an unset field is there again",
        lambda e, k, n: [update(e, k, unset=["note"])],
        {"note": "theirs"},
        {"note": "theirs", "version": 5},
    ),
    Case(
        "an unset field has its old value again",
        lambda e, k, n: [update(e, k, unset=["note"])],
        {"note": "before"},
        {"note": "before", "version": 5},
    ),
    Case(
        "the version was changed",
        lambda e, k, n: [setting(e, k, note="ours")],
        {"version": 9},
        {"note": "ours", "version": 9},
    ),
    Case(
        "the version went back",
        lambda e, k, n: [setting(e, k, note="ours")],
        {"version": 4},
        {"note": "ours", "version": 4},
    ),
    Case(
        "the version changed beside an increment",
        lambda e, k, n: [adding(e, k, **{n: 2})],
        {"version": 6},
        {"NUMBER": 12, "version": 6},
    ),
    Case(
        "an updated row is gone",
        lambda e, k, n: [setting(e, k, note="ours")],
        None,
        None,
    ),
    Case(
        "a deleted row is there again",
        lambda e, k, n: [delete(e, k)],
        _insert_again({"note": "theirs", "version": 1}),
        {"note": "theirs", "version": 1},
    ),
    Case(
        "an inserted row was changed",
        lambda e, k, n: [insert(e, k, note="ours")],
        {"state": "theirs"},
        {"note": "ours", "state": "theirs", "version": 1},
        exists=False,
    ),
    Case(
        "an inserted row was changed in an unmapped field",
        lambda e, k, n: [insert(e, k, note="ours")],
        {"hidden": "theirs"},
        {"note": "ours", "hidden": "theirs"},
        exists=False,
    ),
    Case(
        "an upserted new row was changed",
        lambda e, k, n: [upsert(e, k, note="ours")],
        {"hidden": "theirs"},
        {"note": "ours", "hidden": "theirs"},
        exists=False,
    ),
    Case(
        "an upserted old row was changed",
        lambda e, k, n: [upsert(e, k, note="ours")],
        {"note": "theirs"},
        {"note": "theirs"},
    ),
    Case(
        "another field was changed",
        lambda e, k, n: [setting(e, k, note="ours")],
        {"state": "theirs", "hidden": "theirs"},
        {"note": "before", "state": "theirs", "hidden": "theirs", "version": 4},
        foreign=False,
    ),
    Case(
        "the same value was written",
        lambda e, k, n: [setting(e, k, note="ours")],
        {"note": "ours", "state": "theirs"},
        {"note": "before", "state": "theirs", "version": 4},
        foreign=False,
    ),
    Case(
        "a stranger's increment in between",
        lambda e, k, n: [adding(e, k, **{n: 3})],
        {"NUMBER": 113},
        {"NUMBER": 110, "note": "before", "version": 4},
        foreign=False,
    ),
    Case(
        "a stranger's increment of a decimal",
        lambda e, k, n: [adding(e, k, **{"balance" if n == "points" else "amount": "0.05"})],
        {"MONEY": "99.05"},
        {"MONEY": "99.00", "note": "before", "version": 4},
        foreign=False,
    ),
    Case(
        "a field set beside an increment with a stranger in between",
        lambda e, k, n: [update(e, k, set={"note": "ours"}, increment={n: -3})],
        {"NUMBER": 0, "state": "theirs"},
        {"NUMBER": 3, "note": "before", "state": "theirs", "version": 4},
        foreign=False,
    ),
    Case(
        "two increments of ours",
        lambda e, k, n: [adding(e, k, **{n: 3}), adding(e, k, **{n: 4})],
        {"NUMBER": 1017},
        {"NUMBER": 1010, "version": 4},
        foreign=False,
    ),
]

BEFORE: Json = {"note": "before", "state": "s", "hidden": "h", "version": 4}


async def seed(world: World, entity: str, key: str) -> None:
    """Put the row there as a stranger would, with version 4."""
    of = entity.partition("_")[0]
    row = BEFORE | {NUMBER[of]: 10}
    if of == "wallet":
        document = row | {"balance": Decimal128("10.00")}
        world.catalog[world.entities[entity]["collection"]].insert_one({"_id": key, **document})
        return
    row["amount"] = Decimal("10.00")
    await _sql_insert(world, entity, key, row)


async def _sql_insert(world: World, entity: str, key: str, row: Json) -> None:
    names = ", ".join(("id", *row))
    places = ", ".join(f"${n}" for n in range(1, len(row) + 2))
    table = world.entities[entity]["table"]
    await world.archive.execute(
        f"INSERT INTO {table} ({names}) VALUES ({places})", key, *row.values()
    )


async def interfere(world: World, entity: str, key: str, stranger: Json | None) -> None:
    """Do what the stranger does."""
    of = entity.partition("_")[0]
    if stranger is None:
        await remove(world, entity, key)
    elif "insert" in stranger:
        if of == "wallet":
            collection = world.entities[entity]["collection"]
            world.catalog[collection].insert_one({"_id": key, **stranger["insert"]})
        else:
            await _sql_insert(world, entity, key, stranger["insert"])
    elif stranger:
        await overwrite(world, entity, key, **_named(of, stranger))


def _named(of: str, values: Json) -> Json:
    named = {}
    for name, value in values.items():
        if name == "MONEY":
            money: Any = Decimal128(value) if of == "wallet" else Decimal(value)
            named[MONEY[of]] = money
        else:
            named[NUMBER[of] if name == "NUMBER" else name] = value
    return named


def subset(of: str, row: Json | None, ends: Json | None) -> tuple[Json | None, Json | None]:
    """Give the row's members that `ends` names, and `ends`, comparable."""
    if ends is None or row is None:
        return row, ends
    wanted = {name: str(value) for name, value in _named(of, ends).items()}
    return {name: str(row.get(name)) for name in wanted}, wanted


@asynccontextmanager
async def holding_all(world: World, numbers: list[int]) -> AsyncIterator[None]:
    """Hold many accounts at once."""
    connection = await world.connect("ledger")
    transaction = connection.transaction()
    await transaction.start()
    found = await connection.fetch("SELECT 1 FROM accounts WHERE id = ANY($1) FOR UPDATE", numbers)
    assert len(found) == len(numbers)
    try:
        yield
    finally:
        await transaction.rollback()


async def accounts(world: World, count: int) -> list[int]:
    """Make accounts."""
    numbers = [new_number() for _ in range(count)]
    await world.ledger.executemany(
        "INSERT INTO accounts (id, balance, version) VALUES ($1, 1, 1)", [(n,) for n in numbers]
    )
    return numbers


def breaking(number: int) -> Json:
    """What the CHECK of the held account refuses, once it is let go."""
    return setting("account", number, balance="950000")


async def changed(world: World, entity: str, key: str, before: Any) -> None:
    """Wait until the unit's write is there to be seen."""

    async def look() -> bool:
        is_there: bool = await stored(world, entity, key) != before
        return is_there

    await until(look, f"{entity} {key} was written", context=world.daemon.tail)


async def _play(world: World, cases: list[Case], suffix: str) -> list[tuple[Case, str, str, Json]]:
    """Run the cases in both stores, all at once; give case, entity, key and the outcome."""
    played: list[tuple[Case, str, str, str]] = []
    numbers = await accounts(world, len(cases) * len(STORES))
    free = iter(numbers)
    async with holding_all(world, numbers):
        befores = {}
        for case in cases:
            for of in STORES:
                entity, key = of + suffix, new_id()
                if case.exists:
                    await seed(world, entity, key)
                befores[entity, key] = await stored(world, entity, key)
                unit_id = await world.submit(
                    *case.operations(entity, key, NUMBER[of]), breaking(next(free))
                )
                played.append((case, entity, key, unit_id))
        for case, entity, key, _ in played:
            await changed(world, entity, key, befores[entity, key])
            await interfere(world, entity, key, case.stranger)
    return [
        (case, entity, key, await world.result(unit_id, "any"))
        for case, entity, key, unit_id in played
    ]


@pytest.fixture(autouse=True)
def parking_is_expected(world: World) -> None:
    world.daemon.expected_errors.add("unit.parked")


async def test_f28_what_is_foreign_parks_and_what_is_not_is_kept(
    world: World, subtests: pytest.Subtests
) -> None:
    """F11, F28, F29, I6: under `park` a stranger's write stands, else it is kept beside ours."""
    played = await _play(world, CASES, "")
    for case, entity, key, outcome in played:
        with subtests.test(f"{entity}: {case.name}"):
            status, code = (
                ("parked", "foreign_write")
                if case.foreign
                else ("compensated", "constraint_violated")
            )
            assert (outcome["status"], outcome["error"]["code"]) == (status, code), outcome
            now, ends = subset(entity, await stored(world, entity, key), case.ends)
            assert now == ends
            if case.foreign:
                error = outcome["error"]
                assert (error["entity"], error["key"], error["retryable"]) == (entity, key, False)
                assert "accounts_ceiling" in error["message"] or "CHECK" in error["message"].upper()
                shown = (await world.daemon.get(f"/v1/units/{outcome['unit']}"))[1]
                assert shown["status"] == "parked"
    await world.topics.caught_up()
    assert not any(world.topics.changes_so_far(outcome["unit"]) for *_, outcome in played)


FORCED: dict[str, Json | None] = {
    "a set field was changed": {"note": "before", "state": "s", "version": 6},
    "an unset field is there again": {"note": "before", "version": 6},
    "an unset field has its old value again": {"note": "before", "version": 6},
    "the version was changed": {"note": "before", "version": 10},
    "the version went back": {"note": "before", "version": 5},
    "the version changed beside an increment": {"NUMBER": 10, "version": 7},
    "a deleted row is there again": {"note": "before", "state": "s", "NUMBER": 10},
    "an inserted row was changed": None,
    "an inserted row was changed in an unmapped field": None,
    "an upserted new row was changed": None,
    "an upserted old row was changed": {"note": "before", "version": 6},
}


async def test_f29_force(world: World, subtests: pytest.Subtests) -> None:
    """F29: our before-values win, increments by delta, version plus one, rows come back or go."""
    cases = [case for case in CASES if case.name in FORCED or not case.foreign]
    assert len(cases) == len(FORCED) + sum(not case.foreign for case in CASES)
    for case, entity, key, outcome in await _play(world, cases, "_force"):
        with subtests.test(f"{entity}: {case.name}"):
            assert outcome["status"] == "compensated", outcome
            assert outcome["error"]["code"] == "constraint_violated"
            of = entity.partition("_")[0]
            wanted = FORCED.get(case.name, case.ends) if case.foreign else case.ends
            now, ends = subset(of, await stored(world, entity, key), wanted)
            assert now == ends


async def test_f29_skip(world: World, subtests: pytest.Subtests) -> None:
    """F29: that record stays as the stranger left it; `compensated`, the original error."""
    for case, entity, key, outcome in await _play(world, CASES, "_skip"):
        with subtests.test(f"{entity}: {case.name}"):
            assert outcome["status"] == "compensated", outcome
            assert outcome["error"]["code"] == "constraint_violated"
            of = entity.partition("_")[0]
            now, ends = subset(of, await stored(world, entity, key), case.ends)
            assert now == ends


@pytest.mark.parametrize("suffix", ["", "_force", "_skip"])
@pytest.mark.parametrize("entity", STORES)
async def test_f29_what_the_policy_does_to_the_rest_of_the_unit(
    world: World, entity: str, suffix: str
) -> None:
    """F29: park leaves this branch as a whole and undoes the others; skip leaves the record."""
    mine, beside, other = entity + suffix, new_id(), STORES[1 - STORES.index(entity)]
    touched, elsewhere = new_id(), new_id()
    for of, key in ((mine, touched), (mine, beside), (other, elsewhere)):
        await seed(world, of, key)
    befores = {key: await stored(world, mine, key) for key in (touched, beside)}
    before_elsewhere = await stored(world, other, elsewhere)
    [number] = await accounts(world, 1)
    async with holding_all(world, [number]):
        unit_id = await world.submit(
            setting(mine, touched, note="ours"),
            setting(mine, beside, note="ours"),
            setting(other, elsewhere, note="ours"),
            setting("account", number, note="x"),
            timeout_ms=1500,
        )
        await changed(world, mine, beside, befores[beside])
        await changed(world, other, elsewhere, before_elsewhere)
        await interfere(world, mine, touched, {"note": "theirs"})
        outcome = await world.result(unit_id, "any")
    parked = suffix == ""
    assert outcome["status"] == ("parked" if parked else "compensated")
    assert outcome["error"]["code"] == ("foreign_write" if parked else "deadline_exceeded")
    note = {"": "theirs", "_force": "before", "_skip": "theirs"}[suffix]
    assert (await stored(world, mine, touched) or {})["note"] == note
    assert await stored(world, other, elsewhere) == before_elsewhere
    if parked:
        assert (await stored(world, mine, beside) or {})["note"] == "ours"
    else:
        assert await stored(world, mine, beside) == befores[beside]
    row = await world.row("accounts", number)
    assert row is not None
    assert (row["note"], row["version"]) == (None, 1)


async def park(world: World, entity: str, *more: Json) -> tuple[str, str, Json]:
    """Park a unit by a stranger's note; give its id, the key and the parked outcome."""
    key = new_id()
    await seed(world, entity, key)
    before = await stored(world, entity, key)
    [number] = await accounts(world, 1)
    async with holding_all(world, [number]):
        unit_id = await world.submit(setting(entity, key, note="ours"), *more, breaking(number))
        await changed(world, entity, key, before)
        await interfere(world, entity, key, {"note": "theirs"})
    outcome = await world.result(unit_id, "any")
    assert outcome["status"] == "parked", outcome
    return unit_id, key, outcome


def _lines(text: str) -> list[Json]:
    return [json.loads(line) for line in text.splitlines() if line.strip()]


async def test_f11_f41_retry_after_the_stranger_made_way(world: World) -> None:
    """F5, F11, F38, F41: list, show, retry; parked again while in the way; then final, once."""
    entity = "entry"
    unit_id, key, parked = await park(world, entity)
    behind = await world.submit(setting(entity, key, note="behind"), timeout_ms=700)
    waited = await world.result(behind)
    assert (waited["status"], waited["error"]["code"]) == ("rejected", "deadline_exceeded")
    assert unit_id in waited["error"]["message"]
    listed, shown_by_cli = await asyncio.gather(
        world.cli("units", "list", "--status", "parked"), world.cli("units", "show", unit_id)
    )
    assert unit_id in str(_lines(listed.stdout))
    assert unit_id in shown_by_cli.stdout
    await world.cli("units", "retry", unit_id)

    async def parked_again() -> bool:
        shown = (await world.daemon.get(f"/v1/units/{unit_id}"))[1]
        return bool(shown["status"] == "parked")

    await until(parked_again, "it is parked again", context=world.daemon.tail)
    assert (await stored(world, entity, key) or {})["note"] == "theirs"
    await overwrite(world, entity, key, note="ours")
    await world.cli("units", "retry", unit_id)
    final = await world.result(unit_id)
    assert (final["status"], final["error"]["code"]) == ("compensated", "constraint_violated")
    now, before = subset(entity, await stored(world, entity, key), BEFORE | {"NUMBER": 10})
    assert now == before
    assert parked["digest"] == final["digest"]
    shown = (await world.daemon.get(f"/v1/units/{unit_id}"))[1]
    assert (shown["status"], shown["outcome"]) == ("compensated", final)
    after = await world.run(setting(entity, key, note="free"))
    assert after["status"] == "committed"
    again = await world.cli("units", "retry", unit_id, check=False)
    assert again.returncode != 0
    assert [r.ce_id for r in world.topics.outcomes_so_far(unit_id) if "outcome" in r.ce_id] == [
        f"{unit_id}/outcome"
    ]
    assert world.topics.changes_so_far(unit_id) == []


async def test_f11_f41_resolve_by_hand(world: World) -> None:
    """F11, F41: resolve as compensated leaves the stores alone; never as committed."""
    entity = "wallet"
    unit_id, key, _ = await park(world, entity)
    before = await stored(world, entity, key)
    for refused in await asyncio.gather(
        world.cli("units", "resolve", unit_id, "--as", "committed", "--reason", "no", check=False),
        world.cli("units", "resolve", unit_id, "--as", "compensated", check=False),
        world.cli("units", "retry", "no-such-unit", check=False),
    ):
        assert refused.returncode != 0
    assert (await world.daemon.get(f"/v1/units/{unit_id}"))[1]["status"] == "parked"
    await world.cli("units", "resolve", unit_id, "--as", "compensated", "--reason", "put right")
    final = await world.result(unit_id)
    assert final["status"] == "compensated"
    assert final["error"]["code"] == "constraint_violated"
    assert await stored(world, entity, key) == before
    assert (await world.run(setting(entity, key, note="free")))["status"] == "committed"
    listed = await world.cli("units", "list", "--status", "parked")
    assert unit_id not in listed.stdout


async def test_f11_a_cancel_of_a_parked_unit_is_ignored(world: World) -> None:
    """F8: compensating or parked: ignored, logged."""
    unit_id, _, _ = await park(world, "wallet")
    await world.topics.submit({"cancel": unit_id, "reason": "r"}, key=unit_id)
    await world.settled()
    shown = (await world.daemon.get(f"/v1/units/{unit_id}"))[1]
    assert shown["status"] == "parked"
    assert any(line.get("unit") == unit_id for line in world.daemon.logs("unit.cancel_ignored"))


async def test_f10_f33_an_undo_that_a_store_refuses_is_parked(world: World) -> None:
    """F10, F11: `undo_failed`; after the hindrance is gone, `units retry` undoes exactly."""
    taken, number = f"{new_id()}@x", new_number()
    world.catalog.members.insert_one({"_id": number, "email": taken, "age": 30, "more": 1.5})
    guarded = new_number()
    await world.archive.execute("INSERT INTO guarded VALUES ($1, $2, 5)", guarded, taken)
    befores = [world.doc("members", number), await world.row("guarded", guarded, "archive")]
    thieves = [new_number(), new_number()]
    first, second = await accounts(world, 2)
    async with holding_all(world, [first, second]):
        units = [
            await world.submit(delete("member", number), breaking(first)),
            await world.submit(delete("guarded", guarded), breaking(second)),
        ]
        await changed(world, "member", number, befores[0])  # type: ignore[arg-type]
        await changed(world, "guarded", guarded, befores[1])  # type: ignore[arg-type]
        world.catalog.members.insert_one({"_id": thieves[0], "email": taken})
        await world.archive.execute("INSERT INTO guarded VALUES ($1, $2, 5)", thieves[1], taken)
    for unit_id in units:
        outcome = await world.result(unit_id, "any")
        assert (outcome["status"], outcome["error"]["code"]) == ("parked", "undo_failed"), outcome
        assert outcome["error"]["retryable"] is False
    await remove(world, "member", thieves[0])
    await remove(world, "guarded", thieves[1])
    await asyncio.gather(*(world.cli("units", "retry", unit_id) for unit_id in units))
    for unit_id in units:
        assert (await world.result(unit_id))["status"] == "compensated"
    assert [world.doc("members", number), await world.row("guarded", guarded, "archive")] == befores


async def test_f28_numbers_keep_their_types_beside_a_stranger(world: World) -> None:
    """F27, F28: int32, int64, double and Decimal128 come back as what they were."""
    kinds: list[Any] = [7, Int64(7), 7.0]
    keys = [new_id() for _ in kinds]
    for key, value in zip(keys, kinds, strict=True):
        world.catalog.wallets.insert_one(
            {"_id": key, "points": value, "note": "before", "version": type(value)(4)}
        )
    befores = [world.doc("wallets", key) for key in keys]
    [number] = await accounts(world, 1)
    async with holding_all(world, [number]):
        unit_id = await world.submit(
            *(setting("wallet", key, points=9, note="ours") for key in keys), breaking(number)
        )
        for key, before in zip(keys, befores, strict=True):
            await changed(world, "wallet", key, before)
            await overwrite(world, "wallet", key, other="theirs")
    assert (await world.result(unit_id))["status"] == "compensated"
    for key, before in zip(keys, befores, strict=True):
        now = world.doc("wallets", key)
        assert now is not None
        assert before is not None
        assert now == before | {"other": "theirs"}
        assert [type(now[n]) for n in ("points", "version")] == [
            type(before[n]) for n in ("points", "version")
        ]
