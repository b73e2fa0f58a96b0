"""Stopping, killing and starting again, with units under way (F4, F24, F36, I3, I7)."""

from __future__ import annotations

import signal

import pytest

from tests.acceptance.conftest import MakeWorld
from tests.acceptance.harness.operations import Json, adding, insert, setting
from tests.acceptance.harness.outsider import accepted, holding, holds, stored
from tests.acceptance.harness.world import World, new_id, new_number

SHORT_LEASE = {"worker": {"lease_ttl_seconds": 3}}
UNITS = 120


async def _stand_still(world: World) -> tuple[str, Json, str, int]:
    """Bring a unit to where it is applied in two stores and waits for an outsider's row."""
    key, a = new_id(), new_number()
    await world.committed(
        insert("account", a, balance="100"),
        insert("entry", key, amount="0"),
        insert("wallet", key, balance="0"),
    )
    body: Json = {
        "id": new_id(),
        "operations": [
            adding("entry", key, amount="10"),
            adding("wallet", key, balance="10"),
            adding("account", a, balance="-20"),
        ],
    }
    return body["id"], body, key, a


async def _amounts(world: World, key: str, a: int) -> list[str]:
    entry, wallet = await stored(world, "entry", key), await stored(world, "wallet", key)
    account = await stored(world, "account", a)
    assert entry is not None
    assert wallet is not None
    assert account is not None
    return [str(entry["amount"]), str(wallet["balance"]), str(account["balance"])]


@pytest.mark.parametrize("blow", [signal.SIGTERM, signal.SIGKILL])
async def test_f36_what_is_unfinished_goes_on_after_the_next_start(
    make_world: MakeWorld, blow: signal.Signals
) -> None:
    """F36, F4, I3: stopped or killed between apply and pivot; committed once after the start."""
    world = await make_world(SHORT_LEASE)
    unit_id, body, key, a = await _stand_still(world)
    async with holding(world, "accounts", a):
        await world.topics.submit(body, key=key)
        await holds(world, "entry", key, version=2)
        await holds(world, "wallet", key, version=2)
        behind = await world.submit(setting("account", a, note="behind"), key=key)
        await accepted(world, behind)
        same = await world.topics.submit(body, key=key)
        if blow == signal.SIGTERM:
            assert await world.daemon.stop() < 30
        else:
            world.daemon.send(blow)
            assert await world.daemon.ended() == -signal.SIGKILL
        missed = await world.submit(insert("sample", new_id()), key=key)
        world.daemon.spawn()
        await world.daemon.ready()
        assert (await world.result(missed, seconds=30))["status"] == "committed"
        assert world.topics.outcomes_so_far(unit_id) == []
    outcome = await world.result(unit_id, seconds=40)
    assert outcome["status"] == "committed", outcome["error"]
    assert (await world.result(behind))["status"] == "committed"
    answer = await world.topics.answer_to(same, "duplicate", unit_id)
    assert answer.json == outcome | {"duplicate": True}
    assert await _amounts(world, key, a) == ["10", "10", "80.00"]
    events = await world.topics.changes(unit_id, 3)
    assert [e.json["after"].get("version") for e in events] == [2, 2, 2]
    again = await world.topics.submit(body)
    assert (await world.topics.answer_to(again, "duplicate", unit_id)).json["duplicate"] is True
    assert await _amounts(world, key, a) == ["10", "10", "80.00"]


async def test_f24_generated_keys_and_defaults_are_drawn_once(make_world: MakeWorld) -> None:
    """F24, F16: kept over a kill: the row that was applied first has the key of the outcome."""
    world = await make_world(SHORT_LEASE)
    a = new_number()
    await world.committed(insert("account", a))
    async with holding(world, "accounts", a):
        unit_id = await world.submit(
            insert("parcel", label=str(a)),
            insert("ticket", parent={"$ref": "0.key"}, title="t"),
            insert("order", f"o-{a}", parcel={"$ref": "0.key"}),
            {
                **{"op": "update", "entity": "ticket", "key": {"$ref": "1.key"}},
                "set": {"title": "named by its reference"},
            },
            setting("account", a, note="x"),
        )
        await holds(world, "order", f"o-{a}")
        parcel = world.catalog["parcels"].find_one({"label": str(a)})
        assert parcel is not None
        world.daemon.send(signal.SIGKILL)
        await world.daemon.ended()
        world.daemon.spawn()
        await world.daemon.ready()
    outcome = await world.result(unit_id, seconds=40)
    assert outcome["status"] == "committed", outcome["error"]
    parcel_key, ticket_key, ticket_again = (outcome["operations"][n]["key"] for n in (0, 1, 3))
    assert ticket_again == ticket_key
    found = list(world.catalog["parcels"].find({"label": str(a)}))
    assert found == [parcel]
    assert parcel["_id"].as_uuid().hex == parcel_key.replace("-", "")
    ticket = (await world.ledger.fetch("SELECT * FROM tickets"))[0]
    assert (str(ticket["id"]), str(ticket["parent"])) == (ticket_key, parcel_key)
    assert ticket["title"] == "named by its reference"
    order = await stored(world, "order", f"o-{a}")
    assert order is not None
    assert order["parcel"] == parcel["_id"]
    events = await world.topics.changes(unit_id, 5)
    assert events[0].json["after"]["packed"].startswith(parcel["packed"].isoformat()[:19])


async def test_f36_a_stop_under_load_loses_and_repeats_nothing(make_world: MakeWorld) -> None:
    """F36, I2, I3, I7: stopped in the midst, killed in the midst; all balances agree."""
    world = await make_world(SHORT_LEASE)
    key, a = new_id(), new_number()
    await world.committed(insert("account", a, balance="1000"), insert("entry", key, amount="0"))
    bodies: list[Json] = [
        {
            "id": new_id(),
            "timeout_ms": 120_000,
            "operations": [
                adding("account", a, balance="-1"),
                adding("entry", key, amount="1"),
                insert("wallet", new_id(), balance="1"),
            ],
        }
        for _ in range(UNITS)
    ]
    await world.topics.submit_all(bodies[: UNITS // 2], key=key)
    await world.result(bodies[10]["id"])
    await world.daemon.stop()
    await world.topics.submit_all(bodies[UNITS // 2 :], key=key)
    world.daemon.spawn()
    await world.daemon.ready()
    await world.result(bodies[UNITS // 2 + 10]["id"], seconds=40)
    world.daemon.send(signal.SIGKILL)
    await world.daemon.ended()
    world.daemon.spawn()
    await world.daemon.ready()
    outcomes = [await world.result(body["id"], seconds=60) for body in bodies]
    assert {outcome["status"] for outcome in outcomes} == {"committed"}
    entry, account = await stored(world, "entry", key), await stored(world, "account", a)
    assert entry is not None
    assert account is not None
    assert (str(entry["amount"]), entry["version"]) == (str(UNITS), UNITS + 1)
    assert (str(account["balance"]), account["version"]) == (f"{1000 - UNITS}.00", UNITS + 1)
    assert world.catalog["wallets"].count_documents({}) == UNITS
    await world.topics.caught_up()
    versions = [
        [e.json["after"]["version"] for e in world.topics.changes_so_far(body["id"])]
        for body in bodies
    ]
    assert versions == [[n, n, 1] for n in range(2, UNITS + 2)]
