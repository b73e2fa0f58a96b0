"""What we promise about installation holds without installing anything."""

import re
import tomllib
from pathlib import Path

import pytest

import coordinator

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_requirement_is_pinned_by_hash(lock: Path) -> None:
    entries = re.split(r"\n(?=[a-z0-9])", lock.read_text())
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_no_lock_names_a_place_to_fetch_from(lock: Path) -> None:
    assert not re.search(r"://|--(extra-)?index|--find-links|trusted-host|file:", lock.read_text())


def test_the_image_installs_what_the_tests_ran_with() -> None:
    installed = [lock for lock in LOCKS if lock.name != "audit.txt"]  # it has a place of its own
    pins = [set(re.findall(r"^\S+==\S+", lock.read_text(), re.MULTILINE)) for lock in installed]
    of_tests = set(
        re.findall(r"^\S+==\S+", (ROOT / "requirements/dev.txt").read_text(), re.MULTILINE)
    )
    assert all(lock <= of_tests for lock in pins)


def test_every_direct_dependency_is_in_the_lock() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = (ROOT / "requirements/runtime.txt").read_text()
    for dependency in project["dependencies"]:
        name = re.split(r"[\[<>=;\s]", dependency)[0]
        assert re.search(rf"^{re.escape(name)}==", locked, re.MULTILINE), name


def test_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    declared = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert declared is not None
    explained = re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE)
    assert sorted(declared.group(1).split()) == sorted(explained)


def test_the_image_is_hardened() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    for line in ("USER 10001:10001", "STOPSIGNAL SIGTERM", 'ENTRYPOINT ["coordinator"]'):
        assert f"\n{line}\n" in dockerfile
    assert "HEALTHCHECK" in dockerfile
    for install in re.findall(r"pip install[^&\n]*", dockerfile):
        assert "--require-hashes" in install or "--no-deps --no-index" in install, install


def test_the_version_is_a_number_of_three_parts() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", coordinator.__version__)
