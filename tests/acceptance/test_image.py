"""The image as an operator runs it: no root, no capability, nothing to write to, bounded."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.acceptance.conftest import MakeWorld
from tests.acceptance.harness import container as engine
from tests.acceptance.harness.container import Container
from tests.acceptance.harness.operations import insert
from tests.acceptance.harness.waiting import until
from tests.acceptance.harness.world import World, new_number

STOP_SECONDS = 30.0


@pytest.fixture(scope="module")
def image() -> str:
    reason = engine.why_no_engine()
    if reason is not None:
        pytest.skip(reason)
    name, why_not = engine.image()
    if name is None:
        pytest.skip(why_not)
    return name


@pytest_asyncio.fixture(loop_scope="module")
async def stage(image: str, make_world: MakeWorld, tmp_path: Path) -> World:
    """A world whose daemon is to run in a container; ask for the image first, it may skip."""
    world = await make_world(start=False)
    # The user of the container is somebody else than who runs the tests.
    world.folder.chmod(0o755)
    secrets = world.folder / "secrets"
    secrets.mkdir()
    (secrets / "stores__ledger__dsn").write_text(world.dsn_of["ledger"])
    world.settings["stores"]["ledger"]["dsn"] = "postgresql://from-a-secrets-file@nowhere/none"
    world.write_config()
    return world


@pytest_asyncio.fixture(loop_scope="module")
async def container(image: str, stage: World) -> AsyncIterator[Container]:
    """A container of the image that was started and is ready."""
    at = f"http://{stage.address}"
    made = Container(
        image, stage.folder, stage.folder / "secrets", {"COORDINATOR_HEALTH_URL": f"{at}/livez"}
    )
    try:
        await asyncio.to_thread(made.start)

        async def is_ready() -> bool:
            assert made.inspect()["State"]["Running"], made.log_text()
            return (await stage.daemon.get("/readyz"))[0] == 200

        await until(is_ready, "the container is ready", 60, made.log_text)
        yield made
    finally:
        await asyncio.to_thread(made.remove)


async def test_a_unit_goes_through_and_sigterm_ends_it(stage: World, container: Container) -> None:
    await stage.open_topics()
    key = new_number()
    await stage.committed(insert("account", key, balance="7.00"))
    assert await stage.row("accounts", key) is not None

    async def is_healthy() -> bool:
        return bool(container.inspect()["State"]["Health"]["Status"] == "healthy")

    await until(is_healthy, "the engine calls it healthy", 60, container.log_text)

    began = time.monotonic()
    assert await asyncio.to_thread(container.terminate) == 0, container.log_text()
    assert time.monotonic() - began < STOP_SECONDS
    assert not container.inspect()["State"]["OOMKilled"]
    lines = [json.loads(line) for line in container.log_text().splitlines()]
    assert {"daemon.ready", "daemon.draining", "daemon.stopped"} <= {
        line["event"] for line in lines
    }
    assert [line for line in lines if line["level"] == "error"] == []


async def test_it_runs_without_any_right(stage: World, container: Container) -> None:
    status = container.execute("cat", "/proc/1/status").stdout
    told = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert told["Uid"].split() == ["10001"] * 4
    assert told["Gid"].split() == ["10001"] * 4
    assert int(told["CapEff"], 16) == int(told["CapBnd"], 16) == 0
    assert told["NoNewPrivs"] == "1"
    for place in ("/x", "/etc/coordinator/x", "/opt/coordinator/x", "/var/tmp/x", "/run/x"):
        assert container.execute("touch", place).returncode != 0, place
    assert container.execute("touch", "/tmp/x").returncode == 0


async def test_the_health_check_tells_a_dead_daemon_from_a_live_one(
    stage: World, container: Container
) -> None:
    kind, *check = container.inspect()["Config"]["Healthcheck"]["Test"]
    assert kind == "CMD"
    proxied = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    assert container.execute(*check, environment=proxied).returncode == 0
    nobody = {"COORDINATOR_HEALTH_URL": "http://127.0.0.1:9/livez"}
    assert container.execute(*check, environment=nobody).returncode != 0
    not_there = {"COORDINATOR_HEALTH_URL": f"http://{stage.address}/no-such-page"}
    assert container.execute(*check, environment=not_there).returncode != 0


async def test_the_other_commands_work_in_the_image(stage: World, container: Container) -> None:
    """As jobs beside the daemon: migrations before an upgrade, a check before a start."""
    for command in (["migrate"], ["check"], ["health"], ["version"]):
        done = await asyncio.to_thread(container.run, *command)
        assert done.returncode == 0, (command, done)


async def test_a_mistake_ends_it_with_exit_code_2(stage: World, image: str) -> None:
    made = Container(image, stage.folder, stage.folder / "secrets", {})
    done = await asyncio.to_thread(made.run, "run", "--set", "worker.lanes=0")
    assert done.returncode == 2, done
    assert "worker.lanes" in done.stdout + done.stderr
