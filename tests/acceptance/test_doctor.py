"""`coordinator doctor` on real servers: fit as they are, and each ill that can be made is named."""

from __future__ import annotations

import json
from typing import Any

from tests.acceptance.conftest import MakeWorld
from tests.acceptance.harness.world import World


async def _doctor(world: World, *options: str) -> tuple[int, list[dict[str, Any]]]:
    done = await world.cli("doctor", *options, check=False)
    assert done.stdout, done
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def _of(found: list[dict[str, Any]], subject: str) -> dict[str, Any]:
    (one,) = [each for each in found if each["subject"] == subject]
    return one


async def test_a_running_installation(world: World) -> None:
    """All that `check` tells and the servers beside it; a single replica is a risk, not a fault."""
    code, found = await _doctor(world)
    failing = [each for each in found if each["health"] == "fail"]
    # The servers of the tests run without fsync, where they do.
    assert {each["subject"].rpartition(": ")[2] for each in failing} <= {
        "fsync",
        "full_page_writes",
    }
    assert code == (1 if failing else 0)
    assert _of(found, "journal: clock")["health"] == "ok"
    assert _of(found, "journal: synchronous_commit")["health"] == "ok"
    assert _of(found, "store catalog: clock")["health"] == "ok"
    assert _of(found, "store catalog: replica set")["health"] == "warn"
    assert _of(found, "store archive: rights")["health"] == "ok"
    topics = [each for each in found if each["subject"] == f"topic {world.topics.units}"]
    assert any("one replica" in each["detail"] for each in topics)
    assert all(each["remedy"] for each in found if each["health"] == "fail")
    _, problems = await _doctor(world, "--problems")
    assert {each["health"] for each in problems} <= {"warn", "fail"}


async def test_each_missing_right_is_named(world: World) -> None:
    """A role that may connect and not much more: what it lacks is listed, table by table."""
    role = f"{world.name}_poor"
    await world.archive.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    try:
        await world.archive.execute(f"GRANT USAGE ON SCHEMA coordinator TO {role}")
        await world.archive.execute(
            f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA coordinator TO {role}"
        )
        dsn = _as_role(world.dsn_of["archive"], role)
        code, found = await _doctor(world, "--set", f"stores.archive.dsn={dsn}")
        told = [each["detail"] for each in found if each["subject"] == "store archive: rights"]
        assert code == 1
        assert told == [
            f"the role {role} lacks DELETE on table coordinator.fences",
            f"the role {role} lacks DELETE on table coordinator.undo",
        ]
    finally:
        await world.archive.execute(f"DROP OWNED BY {role}")
        await world.archive.execute(f"DROP ROLE {role}")


async def test_what_is_away_and_what_is_wrong(make_world: MakeWorld) -> None:
    world = await make_world(start=False)
    await world.topics.create({world.topics.units: {"cleanup.policy": "compact"}})
    away = world.dsn_of["archive"].replace(f"{world.name}_archive", "no_such_database")
    code, found = await _doctor(world, "--set", f"stores.archive.dsn={away}")
    assert code == 1
    failing = {each["subject"] for each in found if each["health"] == "fail"}
    assert "store archive" in failing
    assert f"topic {world.topics.units}" in failing


def _as_role(dsn: str, role: str) -> str:
    address, _, parameters = dsn.partition("?")
    scheme, _, rest = address.partition("://")
    host = rest.rpartition("@")[2]
    return f"{scheme}://{role}:x@{host}" + (f"?{parameters}" if parameters else "")
