"""Past a bound intake waits, says so once, and goes on by itself (I12)."""

from __future__ import annotations

from datetime import datetime

from tests.acceptance.conftest import MakeWorld
from tests.acceptance.harness.metrics import scraped_until
from tests.acceptance.harness.operations import insert
from tests.acceptance.harness.waiting import until
from tests.acceptance.harness.world import new_id
from tests.acceptance.test_parked import park_one

UNITS_PER_SECOND = 20


async def test_parked_units_hold_intake_back_and_every_verb_works_meanwhile(
    make_world: MakeWorld,
) -> None:
    """I12, F41: the verbs that free it do not go through what it holds back."""
    world = await make_world({"backlog": {"max_parked": 2}})
    world.daemon.expected_errors |= {"unit.parked"}
    parked = [(await park_one(world, "wallet"))[0] for _ in range(2)]

    async def is_paused() -> bool:
        return bool(world.daemon.logs("intake.paused"))

    await until(is_paused, "intake pauses", 60, world.daemon.tail)
    (paused,) = world.daemon.logs("intake.paused")
    assert (paused["bound"], paused["parked"]) == ("parked", 2)
    assert "units list --status parked" in paused["message"]
    waiting = await world.submit(insert("sample", new_id()))
    seen = await scraped_until(
        world.daemon,
        lambda seen: seen.values("intake_at_bound", bound="parked") == [1],
        "the metric tells",
    )
    assert seen.values("intake_at_bound", bound="units") == [0]
    assert world.topics.outcomes_so_far(waiting) == []
    listed = await world.cli("units", "list", "--status", "parked")
    assert all(unit_id in listed.stdout for unit_id in parked)
    # Retried it is parked again, since the stranger's value still stands; so it is no way out.
    await world.cli("units", "retry", parked[0])
    assert (await world.topics.outcome(parked[0], "parked")).json["status"] == "parked"
    await world.cli("units", "resolve", parked[1], "--as", "compensated", "--reason", "by hand")
    assert (await world.result(waiting, seconds=60))["status"] == "committed"
    assert len(world.daemon.logs("intake.resumed")) == len(world.daemon.logs("intake.paused"))
    assert (await world.result(parked[1]))["status"] == "compensated"


async def test_a_topic_is_read_at_its_pace(make_world: MakeWorld) -> None:
    """I12: by the journal's clock; it is told once that units wait, and once that they do not."""
    world = await make_world({"backlog": {"max_units_per_second": UNITS_PER_SECOND}})
    ids = [await world.submit(insert("sample", new_id())) for _ in range(7 * UNITS_PER_SECOND)]
    outcomes = [await world.result(unit_id, seconds=60) for unit_id in ids]
    assert {each["status"] for each in outcomes} == {"committed"}
    received = sorted(datetime.fromisoformat(each["received_at"]) for each in outcomes)
    for first, last in zip(received, received[2 * UNITS_PER_SECOND + 1 :], strict=False):
        # A second's worth may come at once, and the next one needs a second.
        assert (last - first).total_seconds() > 0.9

    async def is_over() -> bool:
        return bool(world.daemon.logs("intake.unslowed"))

    await until(is_over, "it is told that nothing waits any more", 60, world.daemon.tail)
    (slowed,) = world.daemon.logs("intake.slowed")
    assert (slowed["topic"], slowed["records"]) == (world.topics.units, UNITS_PER_SECOND)
    assert len(world.daemon.logs("intake.unslowed")) == 1
    assert world.daemon.logs("intake.paused") == []
    assert world.daemon.logs("intake.rebuilt") == []


async def test_what_a_refusal_repeats_of_a_long_key_is_bounded(make_world: MakeWorld) -> None:
    """I12: a condition costs ten bytes to send; each that fails used to repeat the whole key."""
    world = await make_world()
    key = new_id() + "k" * 100_000
    await world.committed(insert("wallet", key, note="n"))
    fields = ("balance", "points", "note", "state", "version")
    expect = {name: {"eq": None, "in": [None]} for name in fields} | {"note": {"ne": "n"}}
    unit_id = await world.submit(
        {"op": "check", "entity": "wallet", "key": key, "expect": expect},
        {"op": "update", "entity": "wallet", "key": key, "set": {"note": "x"}, "expect": expect},
    )
    record = await world.topics.outcome(unit_id)
    error = record.json["error"]
    assert error["code"] == "expectation_failed"
    assert len(error["details"]) > 1
    assert error["key"] == key[:199] + "…"
    assert len(record.value or b"") < 70_000
