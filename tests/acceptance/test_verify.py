"""`coordinator verify`: silent on a healthy system under load, and blind to no kind of damage."""

from __future__ import annotations

import json
from typing import Any

import asyncpg

from coordinator.domain.discrepancies import Kind
from tests.acceptance.conftest import MakeWorld
from tests.acceptance.harness.operations import adding, insert
from tests.acceptance.harness.world import World, new_id, new_number

QUICK = {
    "worker": {"lease_ttl_seconds": 2},
    "units": {"undo_retention_seconds": 2},
}
"""Undo records are swept while they are being compared."""

Findings = list[dict[str, Any]]


async def _verify(world: World, *options: str) -> tuple[int, Findings, dict[str, Any]]:
    done = await world.cli("verify", *options, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines, done
    return done.returncode, lines[:-1], lines[-1]


async def test_a_healthy_system_under_load_agrees_with_itself(make_world: MakeWorld) -> None:
    """Units commit, are refused, undone and swept while it looks, and nothing is ever found."""
    world = await make_world(QUICK)
    accounts = [new_number() for _ in range(20)]
    wallets = [new_id() for _ in range(20)]
    for account, wallet in zip(accounts, wallets, strict=True):
        await world.committed(
            insert("account", account, balance="800000"), insert("wallet", wallet, balance="0")
        )
    bodies = [
        {
            "id": new_id(),
            "timeout_ms": 600_000,
            # Every fifth breaks a CHECK that is seen at the pivot only: it is undone elsewhere.
            "operations": [
                adding("account", accounts[n % 20], balance="150000" if n % 5 == 0 else "0.01"),
                adding("wallet", wallets[n * 7 % 20], balance="1"),
                insert("entry", new_id(), note="x"),
            ],
        }
        for n in range(3000)
    ]
    ids = [str(body["id"]) for body in bodies]
    await world.topics.submit_all(bodies)
    seen: list[tuple[int, Findings, dict[str, Any]]] = []
    while not world.topics.outcomes_so_far(ids[-1]) or len(seen) < 2:
        seen.append(await _verify(world, "--page", "100", "--pause", "0.5"))
    outcomes = await world.results(ids)
    seen.append(await _verify(world))
    assert {outcome["status"] for outcome in outcomes} == {"committed", "compensated"}
    assert [(code, found) for code, found, _ in seen] == [(0, [])] * len(seen)
    assert max(last["records"] for *_, last in seen) > 0
    assert all(last["verified"] for *_, last in seen)


async def test_every_kind_of_damage_is_found(make_world: MakeWorld) -> None:
    """Made by hand in the stores of a daemon that is gone: all of it is named, nothing else."""
    world = await make_world()
    both = [await _committed_at_both(world) for _ in range(6)]
    undone = await _compensated(world)
    local = (await world.committed(insert("account", new_number())))[0].ce_id.partition("/")[0]
    blocked = await _compensated(world)
    await world.daemon.stop()
    assert await _verify(world) == (0, [], _nothing_found(await _verify(world)))

    journal, archive, catalog = world.ledger, world.archive, world.catalog
    name = str(await journal.fetchval("SELECT id FROM coordinator.journal"))
    expected = set()

    def expect(kind: Kind, unit: str | None = None, store: str | None = None) -> None:
        expected.add((kind.value, unit, store))

    def change(unit: str, **values: str) -> None:
        done = catalog["_coordinator_undo"].update_one({"_id": f"{name}/{unit}"}, {"$set": values})
        assert done.modified_count == 1

    change(both[0], state="undone")
    expect(Kind.COMMITTED_IN_PART, both[0], "catalog")
    await _one(archive, "DELETE FROM coordinator.undo WHERE unit_id = $1", both[1])
    expect(Kind.RECORD_MISSING, both[1], "archive")
    change(both[2], digest="another")
    expect(Kind.RECORD_OF_OTHER_CONTENT, both[2], "catalog")
    await _one(journal, "UPDATE coordinator.units SET swept = true WHERE id = $1", both[3])
    expect(Kind.RECORD_AFTER_SWEEP, both[3], "catalog")
    expect(Kind.RECORD_AFTER_SWEEP, both[3], "archive")
    await _one(journal, "UPDATE coordinator.units SET stores = '{catalog}' WHERE id = $1", both[4])
    expect(Kind.RECORD_OUT_OF_PLACE, both[4], "archive")
    await _one(journal, "DELETE FROM coordinator.units WHERE id = $1", both[5])
    expect(Kind.RECORD_WITHOUT_UNIT, both[5], "catalog")
    expect(Kind.RECORD_WITHOUT_UNIT, both[5], "archive")
    change(undone, state="applied")
    expect(Kind.ENDED_BUT_APPLIED, undone, "catalog")

    reopen = (
        "UPDATE coordinator.units SET status = 'accepted', finished_at = NULL WHERE id = $1"
        " RETURNING worker"
    )
    worker = await journal.fetchval(reopen, local)
    expect(Kind.LOCK_MISSING, local)
    await _one(journal, reopen, blocked)
    expect(Kind.LOCK_MISSING, blocked)
    expect(Kind.UNDONE_BEFORE_ITS_TIME, blocked, "catalog")
    await journal.execute(
        "UPDATE coordinator.heartbeats SET expires_at = now() - interval '1 hour'"
    )
    expect(Kind.UNITS_WITHOUT_WORKER)
    await journal.execute("INSERT INTO coordinator.locks VALUES ('account', '1', 999999, true)")
    expect(Kind.LOCK_WITHOUT_UNIT)
    await journal.execute(
        "INSERT INTO coordinator.locks SELECT 'account', '2', seq, true"
        " FROM coordinator.units WHERE id = $1",
        both[0],
    )
    expect(Kind.LOCK_OF_FINAL_UNIT)
    await journal.execute(
        "INSERT INTO coordinator.outbox (messages, created_at)"
        " VALUES ('', now() - interval '1 hour')"
    )
    expect(Kind.OUTBOX_STUCK)
    await journal.execute(
        "INSERT INTO coordinator.outbox_aside (topic, message, created_at)"
        " VALUES ('somewhere', '', now() - interval '1 hour')"
    )
    expect(Kind.TOPIC_ASIDE)
    await journal.execute("UPDATE coordinator.workers SET fenced = true WHERE id = $1", worker)
    await journal.execute(
        "INSERT INTO coordinator.takeovers (worker, store) VALUES ($1, 'catalog')", worker
    )
    expect(Kind.FENCE_OPEN, None, "catalog")
    await archive.execute(
        "INSERT INTO coordinator.fences (journal_id, worker, lane) VALUES ($1, 999, -1)", name
    )
    expect(Kind.FENCE_WITHOUT_WORKER, None, "archive")
    await journal.execute("UPDATE coordinator.positions SET next_offset = next_offset + 1000")
    expect(Kind.POSITION_AHEAD, None, "kafka")

    code, found, last = await _verify(world, "--pause", "0.1", "--page", "2")
    assert {(one["kind"], one["unit"], one["store"]) for one in found} == expected
    assert (code, last["verified"], last["found"]) == (1, False, len(found))
    assert all(one["meaning"] and one["remedy"] for one in found)
    assert {one["kind"] for one in found} == set(Kind) - {Kind.NOT_LOOKED_AT}


async def test_a_store_that_is_away_is_no_proof(make_world: MakeWorld) -> None:
    world = await make_world()
    await _committed_at_both(world)
    await world.daemon.stop()
    away = world.dsn_of["archive"].replace(f"{world.name}_archive", "no_such_database")
    code, found, _ = await _verify(world, "--set", f"stores.archive.dsn={away}")
    assert (code, {(one["kind"], one["store"]) for one in found}) == (
        1,
        {(Kind.NOT_LOOKED_AT, "archive")},
    )


def _nothing_found(seen: tuple[int, Findings, dict[str, Any]]) -> dict[str, Any]:
    assert seen[2]["records"] > 0
    return seen[2]


async def _committed_at_both(world: World) -> str:
    unit_id = await world.submit(
        insert("account", new_number()), insert("entry", new_id()), insert("wallet", new_id())
    )
    assert (await world.result(unit_id))["status"] == "committed"
    return unit_id


async def _compensated(world: World) -> str:
    unit_id = await world.submit(
        insert("account", new_number(), balance="950000"), insert("wallet", new_id())
    )
    assert (await world.result(unit_id))["status"] == "compensated"
    return unit_id


async def _one(connection: asyncpg.Connection, statement: str, *arguments: object) -> None:
    done = await connection.execute(statement, *arguments)
    assert done.endswith(" 1"), done
