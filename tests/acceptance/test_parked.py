"""Parked units: announced, shown, kept, and ended by a person (F11, F28, F29, F41)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from tests.acceptance.harness.operations import Json, adding, delete, insert, setting
from tests.acceptance.harness.outsider import holding, holds, overwrite, remove, stored
from tests.acceptance.harness.topics import Header
from tests.acceptance.harness.waiting import until
from tests.acceptance.harness.world import World, new_id, new_number

REMOTE = ["entry", "wallet"]
CAUSE = "the cause of it all"


@pytest.fixture(autouse=True)
def parking_is_expected(world: World) -> None:
    """Each parked unit is an error in the log, for whoever is on call."""
    world.daemon.expected_errors |= {"unit.parked", "compensation.refused"}


async def _cancelled_midway(
    world: World, *operations: Json, strangers: Any, headers: Sequence[Header] = ()
) -> str:
    """Let a unit apply its operations, let strangers write, then cancel it; give its id."""
    a, key = new_number(), new_id()
    await world.committed(insert("account", a))
    async with holding(world, "accounts", a):
        unit_id, _ = await world.place(
            *operations, setting("account", a, note="x"), key=key, headers=headers
        )
        await strangers()
        await world.topics.submit({"cancel": unit_id, "reason": CAUSE}, key=key)
        await world.topics.outcome(unit_id, "any")
    return unit_id


async def park_one(world: World, remote: str) -> tuple[str, str]:
    """Park a unit that has set a note, which a stranger has changed since; give id and key."""
    key = new_id()
    await world.committed(insert(remote, key, note="before"))

    async def strangers() -> None:
        await holds(world, remote, key, note="ours")
        await overwrite(world, remote, key, note="theirs")

    unit_id = await _cancelled_midway(
        world,
        setting(remote, key, note="ours"),
        strangers=strangers,
        headers=[("reply-to", world.topics.replies_topic.encode())],
    )
    return unit_id, key


@pytest.mark.parametrize("remote", REMOTE)
async def test_f11_a_parked_unit_from_its_announcement_to_its_end(
    world: World, remote: str
) -> None:
    """F11, F8, F4, F38, F41: announced; locks kept; retried in vain, then in earnest."""
    unit_id, key = await park_one(world, remote)
    record = await world.topics.outcome(unit_id, "parked")
    parked = record.json
    assert (parked["status"], parked["error"]["code"]) == ("parked", "foreign_write")
    assert CAUSE in parked["error"]["message"]
    assert (parked["error"]["entity"], parked["error"]["key"]) == (remote, key)
    assert (parked["operations"], parked["duplicate"]) == ([], False)
    assert parked["error"]["retryable"] is False
    kept = await stored(world, remote, key)
    assert kept is not None
    assert (kept["note"], kept["version"]) == ("theirs", 2)
    shown = (await world.daemon.get(f"/v1/units/{unit_id}"))[1]
    assert (shown["status"], shown["outcome"]["status"]) == ("parked", "parked")

    behind = await world.run(setting(remote, key, note="behind"), timeout_ms=300)
    assert behind["error"]["code"] == "deadline_exceeded"
    assert unit_id in behind["error"]["message"]

    listed = (await world.cli("units", "list", "--status", "parked")).stdout
    units = [json.loads(line) for line in listed.splitlines()]
    assert unit_id in [unit["unit"] for unit in units]
    assert unit_id in (await world.cli("units", "show", unit_id)).stdout

    place = await world.topics.submit({"cancel": unit_id, "reason": "ignored"})
    await world.cli("units", "retry", unit_id)
    await _compensating_ends(world, unit_id)
    await world.settled()
    assert {r.ce_id for r in world.topics.outcomes_so_far(unit_id)} == {f"{unit_id}/parked"}
    assert world.topics.dead_letters_so_far(place) == []

    async def is_logged() -> bool:
        return any(line["unit"] == unit_id for line in world.daemon.logs("unit.cancel_ignored"))

    await until(is_logged, "the cancel is logged", 5)

    await overwrite(world, remote, key, note="ours")
    await world.cli("units", "retry", unit_id)
    final = await world.result(unit_id)
    assert (final["status"], final["error"]["code"]) == ("compensated", "cancelled")
    restored = await stored(world, remote, key)
    assert restored is not None
    assert (restored["note"], restored["version"]) == ("before", 1)
    assert (await world.run(setting(remote, key, note="free")))["status"] == "committed"
    assert world.topics.changes_so_far(unit_id) == []


async def _compensating_ends(world: World, unit_id: str) -> None:
    async def look() -> bool:
        shown = (await world.daemon.get(f"/v1/units/{unit_id}"))[1]
        return bool(shown["status"] == "parked")

    await until(look, f"{unit_id} is parked again", context=world.daemon.tail)


@pytest.mark.parametrize("remote", REMOTE)
async def test_f41_resolving_by_hand(world: World, remote: str) -> None:
    """F11, F41: `resolve --as compensated`: nothing is written, the final outcome follows."""
    unit_id, key = await park_one(world, remote)
    refused = [
        ("units", "resolve", unit_id, "--as", "committed", "--reason", "no"),
        ("units", "resolve", unit_id, "--as", "compensated"),
        ("units", "resolve", "no-such-unit", "--as", "compensated", "--reason", "x"),
        ("units", "retry", "no-such-unit"),
        ("units", "show", "no-such-unit"),
    ]
    for arguments in refused:
        assert (await world.cli(*arguments, check=False)).returncode != 0, arguments
    assert (await world.daemon.get(f"/v1/units/{unit_id}"))[1]["status"] == "parked"
    await world.cli(
        *("units", "resolve", unit_id, "--as", "compensated", "--reason", "put right by hand")
    )
    final = await world.topics.outcome(unit_id)
    assert (final.json["status"], final.json["operations"]) == ("compensated", [])
    replied = await world.topics.outcome(unit_id, topic=world.topics.replies_topic)
    assert replied.value == final.value
    kept = await stored(world, remote, key)
    assert kept is not None
    assert (kept["note"], kept["version"]) == ("theirs", 2)
    done = await world.cli("units", "retry", unit_id, check=False)
    assert done.returncode != 0, "a final unit was retried"
    assert (await world.run(setting(remote, key, note="free")))["status"] == "committed"


async def test_f4_a_duplicate_of_a_parked_unit_waits_for_its_end(world: World) -> None:
    """F4, F11: parked is not finished: the answer comes after the final outcome."""
    unit_id, _ = await park_one(world, "entry")
    same = await world.topics.submit(world.placed[unit_id])
    other = await world.topics.submit({"id": unit_id, "operations": [insert("sample", unit_id)]})
    reused = await world.topics.answer_to(other, "duplicate", unit_id)
    assert reused.json["error"]["code"] == "id_reused"
    await world.settled()
    told = {r.ce_id for r in world.topics.outcomes_so_far(unit_id)}
    assert told == {f"{unit_id}/parked", reused.ce_id}
    await world.cli("units", "resolve", unit_id, "--as", "compensated", "--reason", "x")
    final = await world.result(unit_id)
    answer = await world.topics.answer_to(same, "duplicate", unit_id)
    assert answer.json == final | {"duplicate": True}


@pytest.mark.parametrize("remote", REMOTE)
async def test_f28_what_is_foreign_and_what_is_not(
    world: World, remote: str, subtests: pytest.Subtests
) -> None:
    """F27, F28: fields that we wrote, version, presence; increments and other fields are not."""
    amount = "amount" if remote == "entry" else "balance"
    names = ["version", "gone", "back", "insert", "other", "delta", "unset", "same"]
    keys = {name: new_id() for name in names}
    for name in names:
        if name != "insert":
            await world.committed(
                insert(remote, keys[name], note="before", state="s", **{amount: "10"})
            )
    whole = {name: await stored(world, remote, keys[name]) for name in names}

    async def strangers() -> None:
        for name in ("version", "gone", "other", "unset"):
            note = None if name == "unset" else "ours"
            await _holds_note(world, remote, keys[name], note)
        await holds(world, remote, keys["insert"])
        await holds(world, remote, keys["delta"], version=2)

        async def deleted() -> bool:
            return await stored(world, remote, keys["back"]) is None

        await until(deleted, "the delete is applied")
        await overwrite(world, remote, keys["version"], version=9)
        await remove(world, remote, keys["gone"])
        await _put_back(world, remote, whole["back"])
        await overwrite(world, remote, keys["insert"], hidden="changed")
        await overwrite(world, remote, keys["other"], state="theirs", hidden="theirs")
        found = await stored(world, remote, keys["delta"])
        assert found is not None
        await overwrite(world, remote, keys["delta"], **{amount: _plus(found[amount], 100)})
        await overwrite(world, remote, keys["unset"], note="theirs")

    operations = {
        "version": setting(remote, keys["version"], note="ours"),
        "gone": setting(remote, keys["gone"], note="ours"),
        "back": delete(remote, keys["back"]),
        "insert": insert(remote, keys["insert"], note="ours"),
        "other": setting(remote, keys["other"], note="ours"),
        "delta": adding(remote, keys["delta"], **{amount: "-4"}),
        "unset": {"op": "update", "entity": remote, "key": keys["unset"], "unset": ["note"]},
        "same": setting(remote, keys["same"], note="ours"),
    }
    ids = await _all_cancelled_midway(world, operations, strangers)
    for name in names:
        with subtests.test(name):
            outcome = await world.result(ids[name], "any")
            is_foreign = name in {"version", "gone", "back", "insert", "unset"}
            assert outcome["status"] == ("parked" if is_foreign else "compensated"), outcome
            if is_foreign:
                assert outcome["error"]["code"] == "foreign_write"
    found = {name: await stored(world, remote, keys[name]) for name in names}
    assert found["same"] == whole["same"]
    other, delta = found["other"], found["delta"]
    assert other is not None
    assert delta is not None
    assert (other["note"], other["state"], other["hidden"]) == ("before", "theirs", "theirs")
    assert str(delta[amount]) == "110"


async def _holds_note(world: World, remote: str, key: str, note: str | None) -> None:
    async def look() -> bool:
        found = await stored(world, remote, key)
        return found is not None and found["version"] == 2 and found.get("note") == note

    await until(look, f"{remote} {key} holds {note!r}", context=world.daemon.tail)


async def _put_back(world: World, remote: str, whole: Json | None) -> None:
    assert whole is not None
    if remote == "wallet":
        world.catalog["wallets"].insert_one(whole)
        return
    await world.archive.execute(
        "INSERT INTO entries SELECT * FROM jsonb_populate_record(NULL::entries, $1::jsonb)",
        json.dumps(whole, default=str),
    )


def _plus(amount: Any, more: int) -> Any:
    from bson import Decimal128

    if isinstance(amount, Decimal128):
        return Decimal128(amount.to_decimal() + more)
    return amount + more


async def _all_cancelled_midway(
    world: World, operations: dict[str, Json], strangers: Any
) -> dict[str, str]:
    """As `_cancelled_midway`, for many units at once: they all wait for rows of one outsider."""
    accounts = {name: new_number() for name in operations}
    await world.committed(*(insert("account", a) for a in accounts.values()))
    outsider = await world.connect("ledger")
    transaction = outsider.transaction()
    await transaction.start()
    await outsider.execute(
        "SELECT 1 FROM accounts WHERE id = ANY ($1::bigint[]) FOR UPDATE", list(accounts.values())
    )
    ids = {
        name: await world.submit(operation, setting("account", accounts[name], note="x"), key=name)
        for name, operation in operations.items()
    }
    await strangers()
    for name, unit_id in ids.items():
        await world.topics.submit({"cancel": unit_id, "reason": CAUSE}, key=name)
    for unit_id in ids.values():
        await world.topics.outcome(unit_id, "any")
    await transaction.rollback()
    return ids


@pytest.mark.parametrize("remote", REMOTE)
async def test_f29_force_and_skip(world: World, remote: str) -> None:
    """F29: force: our before-values win, version plus one; skip: the stranger's stays."""
    force, skip = f"{remote}_force", f"{remote}_skip"
    keys = {"force": new_id(), "skip": new_id()}
    await world.committed(insert(force, keys["force"], note="before"))
    await world.committed(insert(skip, keys["skip"], note="before"))

    async def strangers() -> None:
        for entity, key in ((force, keys["force"]), (skip, keys["skip"])):
            await holds(world, entity, key, note="ours")
            await overwrite(world, entity, key, note="theirs", state="theirs", version=7)

    unit_id = await _cancelled_midway(
        world,
        setting(force, keys["force"], note="ours"),
        setting(skip, keys["skip"], note="ours"),
        strangers=strangers,
    )
    outcome = await world.result(unit_id, "any")
    assert (outcome["status"], outcome["error"]["code"]) == ("compensated", "cancelled")
    forced, skipped = (
        await stored(world, force, keys["force"]),
        await stored(world, skip, keys["skip"]),
    )
    assert forced is not None
    assert skipped is not None
    assert (forced["note"], forced["state"], forced["version"]) == ("before", "theirs", 8)
    assert (skipped["note"], skipped["state"], skipped["version"]) == ("theirs", "theirs", 7)


async def test_f29_the_other_branches_of_a_parked_unit_are_undone(world: World) -> None:
    """F29: the foreign branch stays as a whole, the others are undone."""
    foreign, beside, elsewhere = new_id(), new_id(), new_id()
    await world.committed(insert("entry", foreign, note="before"))
    await world.committed(insert("entry", beside, note="before"))
    await world.committed(insert("wallet", elsewhere, note="before"))

    async def strangers() -> None:
        await holds(world, "entry", foreign, note="ours")
        await holds(world, "wallet", elsewhere, note="ours")
        await overwrite(world, "entry", foreign, note="theirs")

    unit_id = await _cancelled_midway(
        world,
        setting("entry", foreign, note="ours"),
        setting("entry", beside, note="ours"),
        setting("wallet", elsewhere, note="ours"),
        strangers=strangers,
    )
    await world.topics.outcome(unit_id, "parked")
    left = await stored(world, "entry", beside)
    undone = await stored(world, "wallet", elsewhere)
    assert left is not None
    assert undone is not None
    assert left["note"] == "ours"
    assert (undone["note"], undone["version"]) == ("before", 1)


async def test_f11_undo_failed_when_a_compensation_is_refused(world: World) -> None:
    """F11, F25, F10: the client's own compensation meets a trigger: `undo_failed`."""
    key = new_number()
    await world.committed(insert("guarded", key, note=f"before {key}"))

    async def strangers() -> None:
        await holds(world, "guarded", key, note=f"ours {key}")

    unit_id = await _cancelled_midway(
        world,
        setting("guarded", key, note=f"ours {key}")
        | {"compensate": setting("guarded", key, note="forbidden")},
        strangers=strangers,
    )
    parked = await world.result(unit_id, "parked")
    assert (parked["status"], parked["error"]["code"]) == ("parked", "undo_failed")
    assert CAUSE in parked["error"]["message"]
    await world.archive.execute("ALTER TABLE guarded DISABLE TRIGGER guard")
    await world.cli("units", "retry", unit_id)
    final = await world.result(unit_id)
    await world.archive.execute("ALTER TABLE guarded ENABLE TRIGGER guard")
    assert final["status"] == "compensated"
    row = await stored(world, "guarded", key)
    assert row is not None
    assert row["note"] == "forbidden"


@pytest.mark.parametrize("remote", REMOTE)
async def test_f25_the_clients_compensation_replaces_the_undo(world: World, remote: str) -> None:
    """F25: it runs instead of the undo, bumps the version, is not announced."""
    key, plain = new_id(), new_id()
    await world.committed(insert(remote, key, note="before", state="s"))
    await world.committed(insert(remote, plain, note="before"))

    async def strangers() -> None:
        await holds(world, remote, key, note="ours")
        await holds(world, remote, plain, note="ours")

    unit_id = await _cancelled_midway(
        world,
        setting(remote, key, note="ours")
        | {"compensate": {"op": "update", "entity": remote, "set": {"state": "void"}}},
        setting(remote, plain, note="ours"),
        strangers=strangers,
    )
    outcome = await world.result(unit_id, "any")
    assert outcome["status"] == "compensated", outcome
    row, other = await stored(world, remote, key), await stored(world, remote, plain)
    assert row is not None
    assert other is not None
    assert (row["note"], row["state"], row["version"]) == ("ours", "void", 3)
    assert (other["note"], other["version"]) == ("before", 1)
    await world.topics.caught_up()
    assert world.topics.changes_so_far(unit_id) == []
