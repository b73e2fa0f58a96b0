"""The devstack's decisions that need no server: which program, which port, what is noted."""

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.devstack import Devstack, DevstackUnavailable, jars, ports, programs, state
from coordinator.devstack.kafka import new_cluster_id
from coordinator.devstack.processes import environment
from tests.conftest import SERVERS


@pytest.fixture(autouse=True)
def search_anew(pytestconfig: pytest.Config) -> Iterator[None]:
    pytestconfig.stash[SERVERS].settle()  # a server that starts meanwhile would find our programs
    finders = (programs.postgresql, programs.mongodb, programs.java)
    for finder in finders:
        finder.cache_clear()
    yield
    for finder in finders:
        finder.cache_clear()


@pytest.fixture
def no_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_folder_of_module", lambda name: None)


@pytest.fixture
def path_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is all of PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return tmp_path


def program(folder: Path, name: str, says: str, exit_code: int = 0) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {exit_code}\n")
    path.chmod(0o755)


@pytest.mark.usefixtures("no_wheels")
def test_without_a_wheel_the_program_on_path_is_taken(path_folder: Path) -> None:
    program(path_folder, "postgres", "postgres (PostgreSQL) 15.18 (Debian 15.18-0)")
    program(path_folder, "initdb", "")
    program(path_folder, "mongod", "db version v7.0.2")
    program(path_folder, "java", 'openjdk version "21.0.4"')
    assert str(programs.postgresql()) == "15.18 from PATH"
    assert str(programs.mongodb()) == "7.0.2 from PATH"
    assert str(programs.java()) == "21.0.4 from PATH"


@pytest.mark.usefixtures("no_wheels")
def test_a_program_on_path_that_is_too_old_is_not_taken(path_folder: Path) -> None:
    program(path_folder, "postgres", "postgres (PostgreSQL) 13.1")
    program(path_folder, "initdb", "")
    program(path_folder, "mongod", "db version v4.4.0")
    program(path_folder, "java", 'openjdk version "11.0.1"')
    for find in (programs.postgresql, programs.mongodb, programs.java):
        with pytest.raises(DevstackUnavailable, match="install the extra"):
            find()


@pytest.mark.usefixtures("no_wheels")
def test_postgres_without_initdb_is_not_taken(path_folder: Path) -> None:
    program(path_folder, "postgres", "postgres (PostgreSQL) 16.2")
    with pytest.raises(DevstackUnavailable, match="initdb"):
        programs.postgresql()


@pytest.mark.usefixtures("no_wheels")
def test_a_program_that_does_not_run_is_quoted(path_folder: Path) -> None:
    program(path_folder, "mongod", "libcurl.so.4: cannot open shared object file", exit_code=127)
    with pytest.raises(DevstackUnavailable, match=r"libcurl\.so\.4: cannot open"):
        programs.mongodb()


@pytest.mark.usefixtures("no_wheels")
def test_kafka_on_path_is_taken_without_the_wheel(path_folder: Path) -> None:
    home = path_folder / "kafka"
    (home / "bin").mkdir(parents=True)
    (home / "libs").mkdir()
    (home / "libs/kafka_2.13-4.1.0.jar").touch()
    program(home / "bin", "kafka-server-start.sh", "")
    (path_folder / "kafka-server-start.sh").symlink_to(home / "bin/kafka-server-start.sh")
    class_path, source = jars.class_path(lambda line: None)
    assert source == "4.1.0 from PATH"
    assert class_path == [home / "libs/kafka_2.13-4.1.0.jar"]


@pytest.mark.usefixtures("no_wheels", "path_folder")
def test_no_kafka_at_all_is_said() -> None:
    with pytest.raises(DevstackUnavailable, match=r"No Kafka was found.*Next: install the extra"):
        jars.class_path(lambda line: None)


def test_a_cluster_id_is_never_taken_for_an_option() -> None:
    ids = [new_cluster_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert {len(one) for one in ids} == {22}
    assert not any(one.startswith("-") for one in ids)


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", ports.free_port())) as server:
        assert not ports.is_free(server.getsockname()[1])


def test_ports_lie_below_those_of_outgoing_connections() -> None:
    setting = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if not setting.exists():
        pytest.skip("only Linux says where its range begins")
    assert int(setting.read_text().split()[0]) > ports.HIGHEST


def test_processes_start_while_the_environment_changes() -> None:
    failures: list[Exception] = []
    done = threading.Event()

    def start_many() -> None:
        try:
            for _ in range(150):
                subprocess.run(["true"], env=environment(), check=True)
        except Exception as error:
            failures.append(error)
        finally:
            done.set()

    threading.Thread(target=start_many).start()
    length = 0
    while not done.is_set():
        length = (length + 1) % 200
        os.environ["COORDINATOR_TEST_CHANGING"] = "x" * length
        del os.environ["COORDINATOR_TEST_CHANGING"]
    assert failures == []


def test_state_reads_back_what_was_written(tmp_path: Path) -> None:
    stack = state.StackState(7, True, {"mongodb": state.ServerState(8, 9.5, 15_001)})
    state.write(tmp_path, stack)
    assert state.read(tmp_path) == stack
    state.remove(tmp_path)
    assert state.read(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"servers": {}}', '{"servers": []}'])
def test_a_state_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / state.FILE).write_text(content)
    assert state.read(tmp_path) is None


def test_a_noted_process_whose_number_was_given_anew_is_not_taken_over(tmp_path: Path) -> None:
    # Process 1 exists everywhere, and was not created at the epoch.
    noted = {"mongodb": state.ServerState(1, 0.0, 15_001)}
    state.write(tmp_path, state.StackState(1, True, noted))
    stack = Devstack(tmp_path)
    assert not stack.attach()
    assert stack.mongodb.pid is None
