"""The product's image and a container of it, by the docker command.

`COORDINATOR_TEST_IMAGE` names an image that was built already; otherwise it is built here, from
the base that the Dockerfile names, or from the one that `COORDINATOR_TEST_IMAGE_BASE` names where
no registry can be reached.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).parents[3]
_BUILD_SECONDS = 1200.0


def why_no_engine() -> str | None:
    """Say why no container can be run here, None when one can."""
    if shutil.which("docker") is None:
        return "no docker command"
    try:
        answer = _docker("version", "--format", "{{.Server.Version}}", check=False, seconds=20)
    except subprocess.TimeoutExpired:
        return "the docker engine does not answer"
    return None if answer.returncode == 0 else "no docker engine answers"


def image() -> tuple[str | None, str]:
    """Give the image's name, or None and why it cannot be had."""
    given = os.environ.get("COORDINATOR_TEST_IMAGE")
    if given:
        return given, ""
    base = os.environ.get("COORDINATOR_TEST_IMAGE_BASE") or _base_of_the_dockerfile()
    if _docker("image", "inspect", base, check=False).returncode != 0:
        pulled = _docker("pull", "--quiet", base, check=False, seconds=_BUILD_SECONDS)
        if pulled.returncode != 0:
            return None, f"the base image {base} cannot be pulled"
    name = "coordinator:test"
    options = ("--network", "host", "--build-arg", f"BASE={base}", "--tag", name)
    _docker("build", *options, str(_REPOSITORY), seconds=_BUILD_SECONDS)
    return name, ""


def _base_of_the_dockerfile() -> str:
    text = (_REPOSITORY / "Dockerfile").read_text()
    return text.partition("ARG BASE=")[2].partition("\n")[0]


class Container:
    """One container of the image, with as few rights as the documents advise."""

    def __init__(self, image: str, folder: Path, secrets: Path, environment: dict[str, str]):
        self.image = image
        self.name = f"coordinator-test-{uuid.uuid4().hex[:10]}"
        self._options = [
            *("--network", "host", "--read-only", "--tmpfs", "/tmp:rw,noexec,nosuid,size=16m"),
            *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
            *("--memory", "512m", "--pids-limit", "64"),
            *("--volume", f"{folder}:/etc/coordinator:ro"),
            *("--volume", f"{secrets}:/run/secrets/coordinator:ro"),
        ]
        for variable, value in environment.items():
            self._options += ["--env", f"{variable}={value}"]

    def start(self) -> None:
        """Start it in the background."""
        _docker("run", "--detach", "--name", self.name, *self._options, self.image)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the product in one more container, and wait for its end."""
        return _docker("run", "--rm", *self._options, self.image, *arguments, check=False)

    def execute(
        self, *arguments: str, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside it."""
        variables = [f"--env={name}={value}" for name, value in (environment or {}).items()]
        return _docker("exec", *variables, self.name, *arguments, check=False)

    def inspect(self) -> dict[str, Any]:
        """Give what the engine knows of it."""
        found: dict[str, Any] = json.loads(_docker("inspect", self.name).stdout)[0]
        return found

    def terminate(self) -> int:
        """SIGTERM, wait, and give the exit code."""
        _docker("kill", "--signal", "TERM", self.name)
        return int(_docker("wait", self.name, seconds=60).stdout)

    def log_text(self) -> str:
        """Give what it wrote."""
        done = _docker("logs", self.name, check=False)
        return done.stdout + done.stderr

    def remove(self) -> None:
        """Make sure that it is gone."""
        _docker("rm", "--force", "--volumes", self.name, check=False)


def _docker(
    *arguments: str, check: bool = True, seconds: float = 60.0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["docker", *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env=os.environ | {"DOCKER_CLI_HINTS": "false"},
    )
    if check:
        assert done.returncode == 0, f"docker {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done
