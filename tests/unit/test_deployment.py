"""The compose file and the systemd unit give the daemon what it needs, and no more."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from coordinator.settings import load_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "systemd" / "coordinator.service"
DRAIN_SECONDS = 30
EXPOSURE_MAX = 1.5


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return tree


def test_compose_gives_the_daemon_no_right(compose: dict[str, Any]) -> None:
    daemon = compose["services"]["coordinator"]
    assert daemon["cap_drop"] == ["ALL"]
    assert daemon["read_only"] is True
    assert daemon["user"] == "10001:10001"
    assert daemon["mem_limit"]
    assert daemon["pids_limit"]
    assert int(daemon["stop_grace_period"].removesuffix("s")) > DRAIN_SECONDS
    assert all(each.endswith(":ro") for each in daemon["volumes"])
    for service in compose["services"].values():
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not service.get("privileged")
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:"), port


def test_compose_passes_secrets_as_files(compose: dict[str, Any], tmp_path: Path) -> None:
    """What the daemon would read is what it takes from these files."""
    daemon = compose["services"]["coordinator"]
    for each in daemon["secrets"]:
        source = DEPLOY / compose["secrets"][each["source"]]["file"]
        folder, _, name = each["target"].rpartition("/")
        assert folder == "/run/secrets/coordinator"
        (tmp_path / name).write_text(source.read_text())
    environment = daemon["environment"]
    assert not [name for name in environment if name.endswith(("DSN", "URI"))]
    settings = load_settings(
        ROOT / "config/coordinator.toml",
        environ=environment | {"COORDINATOR_SECRETS_DIR": str(tmp_path)},
    )
    ledger: Any = settings.stores["ledger"]
    password = (DEPLOY / "secrets/postgres_password").read_text().strip()
    assert ledger.dsn.get_secret_value() == f"postgresql://app:{password}@postgres:5432/app"
    postgres = compose["services"]["postgres"]
    assert postgres["environment"]["POSTGRES_PASSWORD_FILE"] == "/run/secrets/postgres_password"
    assert "trust" not in postgres["environment"].values()


def test_compose_waits_for_what_it_names(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for service in services.values():
        assert set(service.get("depends_on", {})) <= services.keys()
        named = {str(each).partition(":")[0] for each in service["volumes"]}
        assert {each for each in named if "/" not in each} <= compose["volumes"].keys()
    assert all("healthcheck" in services[each] for each in services["coordinator"]["depends_on"])


@pytest.fixture(scope="module")
def systemd_analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze is not installed")
    return found


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit with a program that is there: the check looks for it."""
    text = UNIT.read_text()
    program = "/opt/coordinator/bin/coordinator"
    assert f"ExecStart={program} run\n" in text
    file = tmp_path / UNIT.name
    file.write_text(text.replace(f"ExecStart={program}", f"ExecStart={sys.executable}"))
    return file


def test_systemd_understands_the_unit(systemd_analyze: str, installed: Path) -> None:
    done = subprocess.run(
        [systemd_analyze, "verify", "--man=no", str(installed)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    told = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert done.returncode == 0, done.stderr
    assert told == []


def test_systemd_finds_little_exposed(systemd_analyze: str, installed: Path) -> None:
    done = subprocess.run(
        [systemd_analyze, "security", "--offline=true", "--no-pager", str(installed)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    found = re.search(r"exposure level .*: ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found.group(1)) <= EXPOSURE_MAX, done.stdout


def test_systemd_restarts_what_a_restart_helps() -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read_string(UNIT.read_text())
    service = parser["Service"]
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"] == "2"
    assert int(service["TimeoutStopSec"]) > DRAIN_SECONDS
