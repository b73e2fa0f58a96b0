"""`coordinator units` beyond one unit: filters, many at once, a unit's history, following it."""

from __future__ import annotations

import asyncio
import json
import subprocess
from typing import Any

from tests.acceptance.harness.operations import insert, setting
from tests.acceptance.harness.outsider import accepted, holding
from tests.acceptance.harness.world import World, new_id, new_number


def _lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


async def _ids(world: World, *options: str) -> list[str]:
    return [each["unit"] for each in _lines(await world.cli("units", "list", *options))]


async def test_units_are_found_by_what_is_known_of_them(world: World) -> None:
    number, key = new_number(), f'o"{new_id()}'
    made = await world.submit(insert("account", number), insert("entry", key))
    missing = await world.submit(setting("account", number + 500_000, note="x"))
    await world.results([made, missing])
    assert await _ids(world, "--entity", "account", "--key", str(number)) == [made]
    assert await _ids(world, "--entity", "entry", "--key", key) == [made]
    assert await _ids(world, "--entity", "entry", "--key", str(number)) == []
    assert set(await _ids(world, "--entity", "account")) >= {made, missing}
    assert missing in await _ids(world, "--code", "not_found", "--younger", "1h")
    assert made not in await _ids(world, "--code", "not_found")
    assert await _ids(world, "--text", missing.upper()) == [missing]
    assert await _ids(world, "--text", missing, "--status", "committed") == []
    assert await _ids(world, "--older", "1h") == []
    wrong = await world.cli("units", "list", "--key", "1", check=False)
    assert wrong.returncode == 2


async def test_many_are_cancelled_once_confirmed_and_their_history_is_kept(world: World) -> None:
    """Only those that the filter means; dry run changes nothing; each is in the audit."""
    number, other = new_number(), new_number()
    await world.committed(insert("account", number), insert("account", other))
    async with holding(world, "accounts", number), holding(world, "accounts", other):
        ids = [
            await world.submit(setting("account", number, note="x"), key="k", timeout_ms=600_000)
            for _ in range(5)
        ]
        spared = await world.submit(setting("account", other, note="x"), timeout_ms=600_000)
        for unit_id in (*ids, spared):
            await accepted(world, unit_id)
        these = ("--all", "--entity", "account", "--key", str(number))
        told = _lines(await world.cli("units", "cancel", *these, "--dry-run"))
        assert [each["unit"] for each in told] == ids
        asked = await world.cli("units", "cancel", *these, check=False)
        assert (asked.returncode, asked.stdout) == (2, "")
        following = asyncio.create_task(
            world.cli("units", "follow", *ids, "--timeout", "60", check=False)
        )
        done = await world.cli("units", "cancel", *these, "--yes", "--reason", "ticket 9")
        assert _lines(done) == [{"unit": each, "result": "done", "detail": ""} for each in ids]
        outcomes = await world.results(ids)
        assert {each["error"]["code"] for each in outcomes} == {"cancelled"}
    assert (await world.result(spared))["status"] == "committed"
    seen = await following
    assert seen.returncode == 1  # they are not committed
    assert {each["unit"] for each in _lines(seen) if each["is_final"]} == set(ids)

    (shown,) = _lines(await world.cli("units", "show", ids[0], "--timeline"))
    events = [each["event"] for each in shown["timeline"]]
    assert events[0] == "accepted"
    assert [each["detail"] for each in shown["timeline"] if "cancel by" in each["event"]] == [
        "ticket 9"
    ]
    assert outcomes[0]["status"] in events
    again = await world.cli("units", "cancel", ids[0], check=False)
    assert again.returncode == 1
    both = await world.cli("units", "cancel", ids[0], "--all", "--yes", check=False)
    assert both.returncode == 2
    neither = await world.cli("units", "retry", check=False)
    assert neither.returncode == 2


async def test_following_ends_well_when_all_are_committed(world: World) -> None:
    ids = [await world.submit(insert("account", new_number())) for _ in range(3)]
    followed = await world.cli("units", "follow", *ids, "--timeout", "60")
    assert {each["unit"] for each in _lines(followed)} == set(ids)
    late = await world.cli("units", "follow", new_id(), "--timeout", "0.1", check=False)
    assert (late.returncode, late.stdout) == (1, "")
