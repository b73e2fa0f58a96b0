"""A record that ends every process that reads it costs three lives and no other unit (I10)."""

from __future__ import annotations

import signal

from coordinator.fault_points import VARIABLE
from tests.acceptance.conftest import MakeWorld
from tests.acceptance.harness.operations import insert
from tests.acceptance.harness.waiting import until
from tests.acceptance.harness.world import World, new_id

SHORT_LEASE = {"worker": {"lease_ttl_seconds": 2}}
POISON = "deadly-nightshade"
DEADLY = {VARIABLE: f"admit.read[{POISON}]=kill"}


async def _live_until_killed(world: World) -> None:
    world.daemon.spawn(DEADLY)
    assert await world.daemon.ended(90) == -signal.SIGKILL


async def _unit(world: World, partition: int) -> str:
    unit_id, _ = await world.place(insert("sample", new_id()), partition=partition)
    return unit_id


async def test_a_deadly_record_is_set_aside_after_three_deaths(make_world: MakeWorld) -> None:
    world = await make_world(SHORT_LEASE)
    await world.daemon.stop()
    before = await _unit(world, 0)
    headers = (("who", b"\xff\x00"), ("who", None))
    deadly = await world.topics.submit(
        b'{"id": "%s", "operations": []}' % POISON.encode(), key="k", headers=headers, partition=0
    )
    behind = [await _unit(world, 0) for _ in range(3)]
    beside = [await _unit(world, 1) for _ in range(3)]
    for _ in range(3):
        await _live_until_killed(world)
    # Those on another partition have not waited for the verdict.
    world.daemon.expected_errors.add("intake.record_set_aside")
    world.daemon.spawn(DEADLY)
    outcomes = await world.results([before, *behind, *beside])
    assert {each["status"] for each in outcomes} == {"committed"}
    letter = await world.topics.dead_letter(deadly)
    assert letter.key == b"k"
    assert letter.value == b'{"id": "%s", "operations": []}' % POISON.encode()
    assert letter.headers[:2] == headers
    assert letter.header("coordinator.errors.code") == "malformed"
    assert letter.header("coordinator.errors.offset") == str(deadly.offset)
    assert "3 times" in (letter.header("coordinator.errors.message") or "")
    await world.daemon.ready()
    (event,) = world.daemon.logs("intake.record_set_aside")
    assert (event["partition"], event["offset"], event["records"]) == (0, deadly.offset, 1)
    _, metrics = await world.daemon.get("/metrics")
    assert "coordinator_records_set_aside_total 1.0" in metrics


async def test_who_kills_an_idle_daemon_over_and_over_accuses_nobody(
    make_world: MakeWorld,
) -> None:
    world = await make_world(SHORT_LEASE)
    unit_id = await _unit(world, 0)
    await world.result(unit_id)
    for _ in range(4):
        world.daemon.kill()
        world.daemon.spawn()
        assigned = len(world.daemon.logs("intake.assigned"))

        async def is_assigned(seen: int = assigned) -> bool:
            return len(world.daemon.logs("intake.assigned")) > seen

        await until(is_assigned, "the partitions are assigned", 60, world.daemon.tail)
    late = await _unit(world, 0)
    assert (await world.result(late))["status"] == "committed"
    assert not world.daemon.logs("intake.record_set_aside")
