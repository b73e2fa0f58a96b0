"""`coordinator explain`: what a file would do, and why a unit stands where it does."""

from __future__ import annotations

import json

from tests.acceptance.harness.operations import adding, insert, setting
from tests.acceptance.harness.outsider import accepted, holding
from tests.acceptance.harness.world import World, new_id, new_number


async def test_a_file_is_explained_and_nothing_is_done(world: World) -> None:
    """Order, branches, locks and undo are told; neither journal, store nor topic hears of it."""
    account, wallet, unit_id = new_number(), new_id(), new_id()
    await world.committed(insert("account", account, balance="5"), insert("wallet", wallet))
    file = world.folder / "units.json"
    good = {
        "id": unit_id,
        "operations": [
            adding("account", account, balance="1"),
            setting("wallet", wallet, note="x"),
        ],
    }
    file.write_text(json.dumps(good))
    before = await world.topics.count(world.topics.units)
    told = json.loads((await world.cli("explain", str(file))).stdout)
    assert (told["unit"], told["verdict"]) == (unit_id, "admitted")
    assert [branch["store"] for branch in told["branches"]] == ["catalog", "ledger"]
    assert [branch["commits"] for branch in told["branches"]] == [
        "before the pivot",
        "with the journal, last",
    ]
    assert told["locks"] == [
        {"entity": "account", "key": str(account), "mode": "increment"},
        {"entity": "wallet", "key": f'"{wallet}"', "mode": "exclusive"},
    ]
    assert "set note back" in told["order"][1]["undo"]

    file.write_text(json.dumps([good, {"id": new_id(), "operations": [{"op": "x"}]}]))
    done = await world.cli("explain", str(file), check=False)
    verdicts = [json.loads(line)["verdict"] for line in done.stdout.splitlines()]
    assert (done.returncode, verdicts) == (1, ["admitted", "rejected"])
    assert await world.topics.count(world.topics.units) == before
    assert not await world.journaled(unit_id)
    document = world.doc("wallets", wallet)
    assert document is not None
    assert "note" not in document


async def test_a_unit_that_waits_is_explained(world: World) -> None:
    """Who is in front, and that the owner is alive; afterwards that it has ended."""
    account = new_number()
    await world.committed(insert("account", account, balance="5"))
    async with holding(world, "accounts", account):
        first = await world.submit(setting("account", account, note="1"), key="k")
        await accepted(world, first)
        second = await world.submit(setting("account", account, note="2"), key="k")
        await accepted(world, second)
        told = json.loads((await world.cli("explain", second)).stdout)
        assert [each["unit"] for each in told["waits_for"]] == [first]
        assert (told["status"], told["waits_for_units"]) == ("accepted", 1)
        text = "\n".join(told["explanation"])
        assert "its lease is good" in text
        assert f"account {account}" in text
        front = json.loads((await world.cli("explain", first)).stdout)
        assert (front["waits_for"], front["units_behind"]) == ([], 1)
    await world.results([first, second])
    ended = json.loads((await world.cli("explain", second)).stdout)
    assert ended["explanation"][0].startswith("It is committed")


async def test_what_is_neither_file_nor_unit(world: World) -> None:
    done = await world.cli("explain", "no-such-thing", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no file and no unit" in done.stderr
