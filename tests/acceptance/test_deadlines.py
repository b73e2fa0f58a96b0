"""Deadlines and cancels, in each state of a unit (F7, F8, F38)."""

from __future__ import annotations

import time
from datetime import datetime

import pytest

from tests.acceptance.harness.operations import Json, insert, setting
from tests.acceptance.harness.outsider import accepted, holding, holds, stored
from tests.acceptance.harness.world import World, new_id, new_number

GRACE_SECONDS = 5.0  # F7, F8
REMOTE = ["entry", "wallet"]


def _lasted_seconds(outcome: Json) -> float:
    received, finished = (
        datetime.fromisoformat(outcome[name]) for name in ("received_at", "finished_at")
    )
    return (finished - received).total_seconds()


async def test_f7_who_waits_behind_a_unit_or_an_outsider_is_refused_in_time(world: World) -> None:
    """F7, F38: `deadline_exceeded` within 5 s of the deadline; then the key is free."""
    a = new_number()
    await world.committed(insert("account", a, balance="1"))
    async with holding(world, "accounts", a):
        first = await world.submit(setting("account", a, note="first"), timeout_ms=1500, key="k")
        await accepted(world, first)
        patient = await world.submit(setting("account", a, note="patient"), timeout_ms=60_000)
        second = await world.submit(setting("account", a, note="second"), timeout_ms=300, key="k")
        await accepted(world, second)
        status, shown = await world.daemon.get(f"/v1/units/{first}")
        assert (status, shown) == (200, {"unit": first, "status": "accepted", "outcome": None})
        for unit_id, timeout_seconds in ((second, 0.3), (first, 1.5)):
            outcome = await world.result(unit_id, seconds=timeout_seconds + GRACE_SECONDS + 1)
            assert outcome["status"] == "rejected"
            assert outcome["error"]["code"] == "deadline_exceeded"
            assert outcome["error"]["retryable"] is True
            assert timeout_seconds <= _lasted_seconds(outcome) <= timeout_seconds + GRACE_SECONDS
        shown = (await world.daemon.get(f"/v1/units/{first}"))[1]
        assert (shown["status"], shown["outcome"]) == ("rejected", await world.result(first))
    assert (await world.result(patient))["status"] == "committed"
    row = await world.row("accounts", a)
    assert row is not None
    assert (row["note"], row["version"]) == ("patient", 2)


@pytest.mark.parametrize("remote", REMOTE)
async def test_f7_what_was_applied_is_undone_at_the_deadline(world: World, remote: str) -> None:
    """F6, F7: applied elsewhere while the journal's row is held: `compensated`, all as before."""
    a, key, fresh = new_number(), new_id(), new_id()
    await world.committed(insert("account", a, balance="1"), insert(remote, key, note="before"))
    before = await stored(world, remote, key)
    async with holding(world, "accounts", a):
        unit_id = await world.submit(
            setting("account", a, note="x"),
            setting(remote, key, note="during"),
            insert(remote, fresh),
            timeout_ms=1000,
        )
        await holds(world, remote, key, note="during", version=2)
        outcome = await world.result(unit_id)
    assert (outcome["status"], outcome["error"]["code"]) == ("compensated", "deadline_exceeded")
    assert _lasted_seconds(outcome) <= 1 + 2 * GRACE_SECONDS
    assert await stored(world, remote, key) == before
    assert await stored(world, remote, fresh) is None
    assert world.topics.changes_so_far(unit_id) == []


async def test_f7_a_row_held_in_another_store_does_not_hold_the_others_up(world: World) -> None:
    """F7, rule 9: the unit that meets the outsider ends by its deadline, the others commit."""
    key, others = new_id(), [new_id() for _ in range(20)]
    await world.committed(insert("entry", key, note="before"))
    async with holding(world, "entries", key, "archive"):
        stuck = await world.submit(
            setting("entry", key, note="x"), insert("account", new_number()), timeout_ms=1500
        )
        ids = [
            await world.submit(insert("entry", each), insert("account", new_number()))
            for each in others
        ]
        for outcome in await world.results(ids):
            assert outcome["status"] == "committed"
        outcome = await world.result(stuck)
    assert (outcome["status"], outcome["error"]["code"]) == ("rejected", "deadline_exceeded")
    assert await stored(world, "entry", key) == {
        **{"id": key, "amount": None, "note": "before", "state": None, "hidden": "kept"},
        **{"count": None, "version": 1},
    }


async def test_f7_what_waits_in_the_topic_does_not_age(world: World) -> None:
    """F7: the deadline counts from admission, not from the record's time."""
    unit_id = new_id()
    hour_ago = int((time.time() - 3600) * 1000)
    await world.topics.submit(
        {"id": unit_id, "timeout_ms": 5000, "operations": [insert("sample", unit_id)]},
        timestamp_ms=hour_ago,
    )
    outcome = await world.result(unit_id)
    assert outcome["status"] == "committed"
    assert datetime.fromisoformat(outcome["received_at"]).timestamp() > hour_ago / 1000 + 3000


async def test_f7_the_shortest_timeouts_end_one_way_or_the_other(world: World) -> None:
    """F7, I7: 1 ms is allowed; each unit ends, and its row is there if it was committed."""
    ids = [new_id() for _ in range(40)]
    for unit_id in ids:
        await world.submit(
            insert("entry", unit_id), insert("sample", unit_id), id=unit_id, timeout_ms=1
        )
    for unit_id, outcome in zip(ids, await world.results(ids), strict=True):
        rows = [await stored(world, entity, unit_id) for entity in ("entry", "sample")]
        if outcome["status"] == "committed":
            assert None not in rows
        else:
            assert outcome["status"] in {"rejected", "compensated"}
            assert outcome["error"]["code"] == "deadline_exceeded"
            assert rows == [None, None]


async def _cancel(world: World, unit_id: str, key: str, reason: str | None = None) -> None:
    body = {"cancel": unit_id} if reason is None else {"cancel": unit_id, "reason": reason}
    await world.topics.submit(body, key=key)


@pytest.mark.parametrize("remote", [None, *REMOTE])
async def test_f8_cancelling_what_runs_and_what_waits(world: World, remote: str | None) -> None:
    """F6, F8: refused within 5 s, `reason` in the message; undone where it had been applied."""
    a, key, ordering = new_number(), new_id(), new_id()
    await world.committed(insert("account", a))
    operations = [setting("account", a, note="x")]
    if remote is not None:
        await world.committed(insert(remote, key, note="before"))
        operations.append(setting(remote, key, note="during"))
    async with holding(world, "accounts", a):
        running = await world.submit(*operations, key=ordering)
        if remote is None:
            await accepted(world, running)
        else:
            await holds(world, remote, key, note="during")
        waiting = await world.submit(setting("account", a, note="y"), key=ordering)
        mute = await world.submit(setting("account", a, note="z"), key=ordering)
        await accepted(world, mute)
        began = time.monotonic()
        await _cancel(world, waiting, ordering, "not wanted \u2014 \U0001f600")
        await _cancel(world, mute, ordering)
        for unit_id in (waiting, mute):
            outcome = await world.result(unit_id, seconds=GRACE_SECONDS + 1)
            assert (outcome["status"], outcome["error"]["code"]) == ("rejected", "cancelled")
            assert outcome["error"]["retryable"] is True
        await _cancel(world, running, ordering, "nor this")
        await _cancel(world, running, ordering, "a second time")
        outcome = await world.result(running)
        assert time.monotonic() - began < 2 * GRACE_SECONDS
    assert outcome["status"] == ("rejected" if remote is None else "compensated")
    assert outcome["error"]["code"] == "cancelled"
    assert "nor this" in outcome["error"]["message"]
    waited = await world.result(waiting)
    assert "not wanted \u2014 \U0001f600" in waited["error"]["message"]
    if remote is not None:
        row = await stored(world, remote, key)
        assert row is not None
        assert (row["note"], row["version"]) == ("before", 1)
    after = await world.run(setting("account", a, note="free"))
    assert after["status"] == "committed"


async def test_f8_cancelling_a_final_unit_gets_its_outcome_again(world: World) -> None:
    """F8, F4: the stored outcome, `duplicate`, also to the cancel's own reply topic."""
    unit_id = await world.submit(insert("sample", new_id()), key="k")
    final = await world.result(unit_id)
    place = await world.topics.submit(
        {"cancel": unit_id, "reason": "late"},
        key="k",
        headers=[("reply-to", world.topics.replies_topic.encode())],
    )
    answer = await world.topics.answer_to(place, "duplicate", unit_id)
    assert answer.json == final | {"duplicate": True}
    reply = await world.topics.outcome(unit_id, "duplicate", topic=world.topics.replies_topic)
    assert reply.value == answer.value


async def test_f8_a_cancel_right_behind_its_unit_finds_it(world: World) -> None:
    """F8: same Kafka key: never unknown; cancelled or too late, and one final outcome."""
    ids = [new_id() for _ in range(60)]
    for unit_id in ids:
        body = {"id": unit_id, "operations": [insert("entry", unit_id), insert("sample", unit_id)]}
        await world.topics.submit_all([body, {"cancel": unit_id, "reason": "r"}], key=unit_id)
    for unit_id, outcome in zip(ids, await world.results(ids), strict=True):
        rows = [await stored(world, entity, unit_id) is not None for entity in ("entry", "sample")]
        if outcome["status"] == "committed":
            assert rows == [True, True]
        else:
            assert outcome["error"]["code"] == "cancelled"
            assert rows == [False, False]
    await world.settled()
    unknown = {line.get("unit") for line in world.daemon.logs("unit.cancel_unknown")}
    assert unknown.isdisjoint(ids)


async def test_units_cancel_on_the_command_line(world: World) -> None:
    """DESIGN 2.6: `units cancel` asks for the same, while the daemon runs."""
    a = new_number()
    await world.committed(insert("account", a))
    async with holding(world, "accounts", a):
        unit_id = await world.submit(setting("account", a, note="x"))
        await accepted(world, unit_id)
        await world.cli("units", "cancel", unit_id, "--reason", "by hand")
        outcome = await world.result(unit_id)
    assert (outcome["status"], outcome["error"]["code"]) == ("rejected", "cancelled")
    assert "by hand" in outcome["error"]["message"]
