"""A short form of the simulation: a few hundred seeds, and that a seed replays exactly.

Each run is a process of its own, because the order of sets of strings is part of what a seed
decides, and Python fixes that order at start only.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(600)]

SEEDS = 200


def simulation(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=560, check=False)


def test_no_seed_breaks_a_promise() -> None:
    happened: set[str] = set()
    # In the second, strangers are in the way so often that persons have something to do.
    for weather in (("--seeds", str(SEEDS)), ("--seeds", "60", "--set", "strangers=100")):
        run = simulation(*weather)
        assert run.returncode == 0, run.stdout + run.stderr
        summary = run.stdout.splitlines()
        assert summary[0].endswith(": 0 with violations")
        happened |= {each.rsplit(" ", 1)[0] for each in summary[1].split(", ")}
    # A simulation in which nothing happens proves nothing.
    assert happened >= {
        "answer_lost",
        "batches in parts",
        "committed",
        "compensated",
        "dead letters",
        "fenced workers",
        "frozen_after",
        "frozen_before",
        "killed_after",
        "killed_before",
        "kills",
        "late",
        "parked",
        "refused early",
        "rejected",
        "request_lost",
        "rows held",
        "set aside",
        "sweeps",
        "takeovers",
        "verbs",
    }


def test_a_seed_replays_exactly() -> None:
    first, second = simulation("--seed", "3"), simulation("--seed", "3")
    assert first.returncode == 0, first.stdout + first.stderr
    assert len(first.stdout.splitlines()) > 100
    assert first.stdout == second.stdout


def test_a_violation_shows_its_seed_and_what_led_to_it() -> None:
    run = simulation("--seed", "1", "--without", "lock-order")
    assert run.returncode == 1
    assert "VIOLATION seed 1: I5: " in run.stdout
    assert "replay: python -m tests.simulation --seed 1" in run.stdout
