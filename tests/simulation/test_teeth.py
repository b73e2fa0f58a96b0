"""Teeth: with any one guard taken out, a bounded number of seeds finds a violation."""

from __future__ import annotations

import pytest

from tests.simulation.guards import GUARDS
from tests.simulation.test_seeds import simulation

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(600)]

SEEDS_MAX = 300
"""Within how many seeds the loss of a guard is noticed."""

ROUGH = {
    "escrow": ("hot=0.9", "strangers=0", "losses=0.05"),
    "refusing-before-passing": ("hot=0.9", "strangers=0", "kills=0.02", "kills_max=10"),
    "version-of-the-share": ("hot=0.9", "strangers=0", "losses=0.05"),
    "settling-first": ("lates=0.2", "strangers=100", "undo_age_seconds=600.0"),
    "settling-before-undoing": (
        "losses=0.4",
        "lates=0.2",
        "undo_age_seconds=3.0",
        "chaos_seconds=25.0",
        "sending_seconds=15.0",
        "kills=0.0",
        "freezes=0.0",
    ),
    "tombstone": ("lates=0.2", "undo_age_seconds=600.0"),
    "waiting-in-doubt": (
        "hot=0.9",
        "losses=0.1",
        "lates=0.1",
        "freezes=0.02",
        "sending_seconds=3.0",
        "chaos_seconds=6.0",
        "lanes=2",
        "undo_age_seconds=600.0",
    ),
}
"""Guards against what comes about in one seed of hundreds only, and what makes that likely."""


@pytest.mark.parametrize("guard", sorted(GUARDS))
def test_the_loss_of_a_guard_is_noticed(guard: str) -> None:
    weather = [word for each in ROUGH.get(guard, ()) for word in ("--set", each)]
    run = simulation("--seeds", str(SEEDS_MAX), "--without", guard, *weather)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "VIOLATION seed " in run.stdout
