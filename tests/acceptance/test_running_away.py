"""Servers that are away: at the start, while units run, and at the stop (F35, F36, DESIGN 2.4)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pymongo
import pytest_asyncio

from coordinator.devstack import Devstack
from tests.acceptance.harness.operations import Json, insert
from tests.acceptance.harness.proxy import Proxy
from tests.acceptance.harness.waiting import until
from tests.acceptance.harness.world import World, new_id, new_number

Made = tuple[World, Proxy]
MakeAway = Callable[[str], Awaitable[Made]]

REMOTE = {"archive": "entry", "catalog": "wallet", "ledger": "sample"}


@pytest_asyncio.fixture(loop_scope="module")
async def make_away(make_world: Any) -> AsyncIterator[MakeAway]:
    """Make a world, not started, in which one server is behind a proxy that is closed."""
    proxies: list[Proxy] = []

    async def make(what: str) -> Made:
        world: World = await make_world(start=False)
        world.daemon.expected_errors.add("worker.lease_lost")  # without the journal it is true
        if what == "kafka":
            address = world.topics.bootstrap
        elif what == "catalog":
            address = urlsplit(world.mongodb_uri).netloc
        else:
            address = urlsplit(world.dsn_of[what]).netloc.rpartition("@")[2]
        host, _, port = address.rpartition(":")
        proxy = Proxy(host, int(port))
        proxies.append(proxy)
        if what == "kafka":
            world.settings["kafka"]["bootstrap_servers"] = f"127.0.0.1:{proxy.port}"
        elif what == "catalog":
            uri = f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true"
            world.settings["stores"]["catalog"]["uri"] = uri
        else:
            dsn = world.dsn_of[what].replace(address, f"127.0.0.1:{proxy.port}")
            world.settings["stores"][what]["dsn"] = dsn
        world.write_config()
        return world, proxy

    yield make
    for proxy in proxies:
        await proxy.close()


async def _away(world: World, what: str, seconds: float = 30.0) -> Json:
    """Wait until `/readyz` is 503 and names it, while `/livez` is 200."""

    async def look() -> Json | None:
        assert world.daemon.exit_code() is None, world.daemon.tail()
        status, body = await world.daemon.get("/readyz")
        return body if status == 503 and what in str(body) else None

    body = await until(look, f"/readyz names {what}", seconds, world.daemon.tail)
    assert (await world.daemon.get("/livez"))[0] == 200
    assert body is not None
    return body


async def test_f35_a_server_away_at_the_start(make_away: MakeAway) -> None:
    """F35: stays up, `/livez` 200, `/readyz` 503 naming it, `check` 1; comes up by itself."""
    servers = ("ledger", "archive", "catalog", "kafka")  # a daemon each, side by side
    await asyncio.gather(*(_away_at_the_start(make_away, what) for what in servers))


async def _away_at_the_start(make_away: MakeAway, what: str) -> None:
    world, proxy = await make_away(what)
    world.daemon.spawn()
    body = await _away(world, what)
    assert what in body["away"] or (what == "ledger" and "journal" in body["away"])
    checked = await world.cli("check", check=False)
    assert checked.returncode == 1, checked
    assert what in checked.stdout + checked.stderr

    assert _warnings(world, what), world.daemon.tail()
    assert (await world.daemon.get("/livez"))[0] == 200
    await proxy.open()
    await world.daemon.ready(30)
    await world.topics.create({world.topics.replies_topic: {}})
    await world.open_topics()
    outcome = await world.run(
        insert("account", new_number()), insert("entry", new_id()), insert("wallet", new_id())
    )
    assert outcome["status"] == "committed"


def _warnings(world: World, what: str) -> list[Json]:
    names = {what, "journal"} if what == "ledger" else {what}
    return [
        line
        for line in world.daemon.logs()
        if line.get("level") == "warning"
        and (line.get("store") in names or any(name in str(line) for name in names))
    ]


async def test_f36_a_server_away_while_units_run_and_at_the_stop(make_away: MakeAway) -> None:
    """F36, F35, I7: named by `/readyz`; SIGTERM exits 0; the unit goes on after the next start."""
    servers = ("ledger", "archive", "catalog")
    await asyncio.gather(*(_away_at_the_stop(make_away, what) for what in servers))


async def test_f35_an_idle_daemon_notices_a_server_that_goes_away(make_away: MakeAway) -> None:
    """F35: `/readyz` 503 naming it, 200 again when it is back, no unit being there to notice."""
    await asyncio.gather(*(_away_when_idle(make_away, what) for what in ("archive", "catalog")))


async def _away_when_idle(make_away: MakeAway, what: str) -> None:
    world, proxy = await make_away(what)
    await proxy.open()
    await world.start()
    await proxy.close()
    await _away(world, what)
    await proxy.open()
    await world.daemon.ready(30)


async def _away_at_the_stop(make_away: MakeAway, what: str) -> None:
    world, proxy = await make_away(what)
    await proxy.open()
    await world.start()
    entity = REMOTE[what]
    await world.committed(insert(entity, new_id()), insert("account", new_number()))
    await proxy.close()
    key, number = new_id(), new_number()
    unit_id = await world.submit(
        insert(entity, key), insert("account", number), timeout_ms=3_600_000
    )
    await _away(world, "journal" if what == "ledger" else what)
    if what != "ledger":
        others = await world.results([await world.submit(insert("sample", new_id()))])
        assert others[0]["status"] == "committed"
        status, shown = await world.daemon.get(f"/v1/units/{unit_id}")
        assert (status, shown["status"]) == (200, "accepted")
    took = await world.daemon.stop()
    assert took < 30
    assert world.topics.outcomes_so_far(unit_id) == []
    await proxy.open()
    await world.daemon.start()
    outcome = await world.result(unit_id, seconds=40)
    assert outcome["status"] == "committed", outcome
    assert await world.row("accounts", number) is not None
    await world.topics.caught_up()
    assert world.topics.of(world.topics.dead_letters_topic) == []


async def test_f35_mongodb_stops_and_returns_under_load(make_world: Any, tmp_path: Path) -> None:
    """F35, F7, I2, I7: a real server's stop and start; every unit ends, and both stores agree."""
    stack = Devstack(tmp_path)
    stack.mongodb.start()
    try:
        world: World = await make_world(start=False)
        world.settings["stores"]["catalog"]["uri"] = stack.mongodb.address
        world.write_config()
        await world.start()
        await world.committed(insert("wallet", new_id()))
        keys = [(new_number(), new_id()) for _ in range(600)]
        bodies = [
            {
                "id": key,
                "timeout_ms": 120_000,
                "operations": [insert("account", number), insert("wallet", key)],
            }
            for number, key in keys
        ]
        await world.topics.submit_all(bodies[:300])
        stack.mongodb.kill()
        await world.topics.submit_all(bodies[300:])
        await _away(world, "catalog")
        began = time.monotonic()
        stack.mongodb.start()
        await world.daemon.ready(30)
        outcomes = [await world.result(key, seconds=60) for _, key in keys]
        assert time.monotonic() - began < 60
        assert {outcome["status"] for outcome in outcomes} == {"committed"}
        with pymongo.MongoClient[Json](stack.mongodb.address) as client:
            found = {d["_id"]: d["version"] for d in client[world.name].wallets.find()}
        assert {key: found.get(key) for _, key in keys} == dict.fromkeys((k for _, k in keys), 1)
        rows = await world.ledger.fetch("SELECT id, version FROM accounts")
        assert {(r["id"], r["version"]) for r in rows} >= {(number, 1) for number, _ in keys}
        await world.daemon.stop()
    finally:
        stack.down()
