"""The local servers: they start, survive what tests do to them, and outlive nobody."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pymongo
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from coordinator.devstack import Devstack, DevstackUnavailable, LocalServer, commands
from coordinator.devstack.processes import is_alive

pytestmark = pytest.mark.integration

OWNER = """
import sys, time
from pathlib import Path
from coordinator.devstack import Devstack
stack = Devstack(Path(sys.argv[1]))
for name in sys.argv[2:]:
    getattr(stack, name).start()
print("ready", flush=True)
time.sleep(600)
"""


def eventually(condition: Callable[[], bool], what: str, seconds_max: float = 30) -> None:
    deadline = time.monotonic() + seconds_max
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds_max} s: {what}"
        time.sleep(0.05)


def noted_processes(data_folder: Path) -> list[psutil.Process]:
    servers = json.loads((data_folder / "state.json").read_text())["servers"]
    return [psutil.Process(server["pid"]) for server in servers.values()]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devstack]:
    stack = Devstack(tmp_path_factory.mktemp("stack"))
    with stack:
        yield stack


def client(stack: Devstack) -> "pymongo.MongoClient[dict[str, object]]":
    return pymongo.MongoClient(stack.mongodb.address, retryWrites=False)


async def fetch_setting(stack: Devstack, name: str) -> str:
    connection = await asyncpg.connect(stack.postgres.address)
    try:
        return str(await connection.fetchval("SELECT current_setting($1)", name))
    finally:
        await connection.close()


def test_up_again_changes_nothing(stack: Devstack) -> None:
    before = [server.pid for server in stack.servers]
    assert stack.up() == stack.addresses
    assert [server.pid for server in stack.servers] == before


def test_every_server_listens_on_the_loopback_only(stack: Devstack) -> None:
    for server in stack.servers:
        assert server.pid is not None
        listening = [
            connection.laddr.ip
            for connection in psutil.Process(server.pid).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening, server.name
        assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}


@pytest.mark.parametrize("setting", ["fsync", "synchronous_commit", "full_page_writes"])
async def test_postgresql_is_durable(stack: Devstack, setting: str) -> None:
    assert await fetch_setting(stack, setting) == "on"


def test_a_second_stack_is_refused_the_folder(stack: Devstack) -> None:
    with pytest.raises(DevstackUnavailable, match="already"):
        Devstack(stack.data_folder).up()


@pytest.mark.parametrize("end", [LocalServer.kill, LocalServer.stop], ids=["kill", "stop"])
async def test_postgresql_keeps_what_was_committed(
    stack: Devstack, end: Callable[[LocalServer], None]
) -> None:
    address, pid = stack.postgres.address, stack.postgres.pid
    connection = await asyncpg.connect(address)
    await connection.execute("DROP TABLE IF EXISTS kept; CREATE TABLE kept (n int)")
    await connection.execute("INSERT INTO kept VALUES (1)")

    end(stack.postgres)
    assert stack.postgres.pid is None
    connection.terminate()
    stack.postgres.start()

    assert stack.postgres.address == address
    assert stack.postgres.pid not in (None, pid)
    connection = await asyncpg.connect(address)
    assert await connection.fetchval("SELECT n FROM kept") == 1
    await connection.close()


@pytest.mark.parametrize("end", [LocalServer.kill, LocalServer.stop], ids=["kill", "stop"])
def test_mongodb_keeps_what_was_committed(
    stack: Devstack, end: Callable[[LocalServer], None]
) -> None:
    address = stack.mongodb.address
    with client(stack) as connected:
        connected.test.kept.delete_many({})
        with connected.start_session() as session, session.start_transaction():
            connected.test.kept.insert_one({"_id": 1}, session=session)

    end(stack.mongodb)
    stack.mongodb.start()

    assert stack.mongodb.address == address
    with client(stack) as connected:
        assert connected.test.kept.find_one({}) == {"_id": 1}


@pytest.mark.parametrize("end", [LocalServer.kill, LocalServer.stop], ids=["kill", "stop"])
async def test_kafka_keeps_what_was_acknowledged(
    stack: Devstack, end: Callable[[LocalServer], None], request: pytest.FixtureRequest
) -> None:
    address, topic = stack.kafka.address, f"kept-{request.node.callspec.id}"
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=address, enable_idempotence=True) as producer:
        await producer.send_and_wait(topic, b"value")

    end(stack.kafka)
    stack.kafka.start()

    assert stack.kafka.address == address
    async with AIOKafkaConsumer(
        topic, bootstrap_servers=address, auto_offset_reset="earliest"
    ) as consumer:
        assert (await consumer.getone()).value == b"value"


def test_a_paused_server_answers_nothing_until_resumed(stack: Devstack) -> None:
    with client(stack) as connected:
        connected.admin.command("ping")
        stack.mongodb.pause()
        try:
            with pymongo.timeout(0.5), pytest.raises(pymongo.errors.PyMongoError):
                connected.admin.command("ping")
        finally:
            stack.mongodb.resume()
        assert connected.admin.command("ping")["ok"] == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_servers_end_with_their_owner(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), "postgres", "mongodb"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        servers = noted_processes(tmp_path)
        assert len(servers) == 2
        family = [child for server in servers for child in [server, *server.children()]]
        # To the whole group, as a terminal sends Ctrl-C.
        os.killpg(owner.pid, number)
        owner.wait()
    eventually(lambda: not any(map(is_alive, family)), "all server processes are gone")


def test_a_paused_server_ends_with_its_owner_too(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), "mongodb"], stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        (server,) = noted_processes(tmp_path)
        server.suspend()
        owner.kill()
        owner.wait()
    eventually(lambda: not is_alive(server), "the paused server is gone")


def test_a_later_stack_on_the_same_folder_has_the_same_addresses_and_data(tmp_path: Path) -> None:
    first = Devstack(tmp_path)
    first.mongodb.start()
    with client(first) as connected:
        connected.test.kept.insert_one({"_id": 1})
    address = first.mongodb.address
    first.down()

    second = Devstack(tmp_path)
    second.mongodb.start()
    try:
        assert second.mongodb.address == address
        with client(second) as connected:
            assert connected.test.kept.find_one({}) == {"_id": 1}
    finally:
        second.down()


def test_mongodb_moves_to_another_port_with_its_data(tmp_path: Path) -> None:
    first = Devstack(tmp_path)
    first.mongodb.start()
    with client(first) as connected:
        connected.test.kept.insert_one({"_id": 1})
    first.down()
    (tmp_path / "mongodb/port").unlink()

    second = Devstack(tmp_path)
    second.mongodb.start()
    try:
        assert second.mongodb.port != first.mongodb.port
        with client(second) as connected:
            assert connected.test.kept.find_one({}) == {"_id": 1}
    finally:
        second.down()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    stack = Devstack(tmp_path)
    stack.postgres.start()
    stack.postgres.stop()
    (tmp_path / "postgresql/data/global/pg_control").unlink()
    with pytest.raises(DevstackUnavailable, match="pg_control"):
        stack.postgres.start()
    assert stack.postgres.pid is None
    stack.down()


def test_the_commands(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert commands.down(tmp_path) == 0
    assert commands.status(tmp_path) == 1
    assert commands.up(tmp_path, detach=True) == 0
    servers = noted_processes(tmp_path)
    try:
        assert commands.up(tmp_path, detach=True) == 0
        assert [process.pid for process in noted_processes(tmp_path)] == [s.pid for s in servers]
        assert commands.status(tmp_path) == 0
    finally:
        assert commands.down(tmp_path) == 0
    assert not any(map(is_alive, servers))
    said = capfd.readouterr().out
    assert "mongodb://127.0.0.1:" in said
    assert "not running" in said
    assert not (tmp_path / "state.json").exists()


FOREGROUND = """
import sys
from pathlib import Path
from coordinator.devstack import commands
sys.exit(commands.up(Path(sys.argv[1])))
"""


@pytest.mark.parametrize(
    ("end", "exit_code", "says"),
    [("SIGTERM", 0, "Stopping"), ("down", 0, "were stopped"), ("loss", 1, "kafka ended by itself")],
)
def test_up_in_the_foreground_ends_all_and_says_why(
    tmp_path: Path, end: str, exit_code: int, says: str
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FOREGROUND, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "300"},
        text=True,
    ) as foreground:
        assert foreground.stdout is not None
        started = [
            line for line in iter(foreground.stdout.readline, "Ctrl-C stops them.\n") if line
        ]
        assert any("mongodb://127.0.0.1:" in line for line in started)
        servers = noted_processes(tmp_path)
        if end == "SIGTERM":
            foreground.terminate()
        elif end == "down":
            assert commands.down(tmp_path) == 0
        else:
            servers[-1].kill()
        said = foreground.stdout.read()
    assert (foreground.returncode, says in said) == (exit_code, True), said
    eventually(lambda: not any(map(is_alive, servers)), "all servers are gone")
    assert not (tmp_path / "state.json").exists()
