"""Daemons come and go while units come in: eager rebalances lose, double and turn nothing."""

from __future__ import annotations

import asyncio
import signal

from tests.acceptance.conftest import MakeWorld
from tests.acceptance.harness.operations import insert, update
from tests.acceptance.harness.outsider import stored
from tests.acceptance.harness.world import World, new_number

KEYS = 4
ROUNDS = 60


async def _submit(world: World, accounts: list[int], ids: list[str]) -> None:
    """Number after number for each account, under a Kafka key of its own."""
    for number in range(ROUNDS):
        for account in accounts:
            ids.append(
                await world.submit(
                    update(
                        "account", account, set={"note": str(number)}, increment={"balance": "1"}
                    ),
                    key=f"k{account}",
                    timeout_ms=300_000,
                )
            )
        await asyncio.sleep(0.25)  # the load goes on while daemons come and go


async def test_four_daemons_come_and_go_under_load(make_world: MakeWorld) -> None:
    """I3, I5, I7, I8: exactly once, and in the order of each key."""
    world = await make_world({"worker": {"lease_ttl_seconds": 3}})
    accounts = [new_number() for _ in range(KEYS)]
    await world.committed(*(insert("account", each, balance="0") for each in accounts))
    ids: list[str] = []
    load = asyncio.create_task(_submit(world, accounts, ids))
    second, third, fourth = [await world.another_daemon() for _ in range(3)]
    await third.stop()
    second.send(signal.SIGKILL)
    assert await second.ended() == -signal.SIGKILL
    third.spawn()
    await third.ready()
    await fourth.stop()
    await load
    outcomes = [await world.result(each, seconds=90) for each in ids]
    assert {each["status"] for each in outcomes} == {"committed"}
    for account in accounts:
        row = await stored(world, "account", account)
        assert row is not None
        assert (str(row["balance"]), row["version"]) == (f"{ROUNDS}.00", ROUNDS + 1)
    await world.topics.caught_up()
    events = world.topics.of(world.topics.changes_topic("account"))
    for account in accounts:
        own = {r.ce_id: r.json for r in events if r.key == str(account).encode()}
        notes = [each["after"].get("note") for each in own.values()]
        assert notes == [None, *(str(number) for number in range(ROUNDS))]
