"""Teeth: with any one guard taken out, a bounded number of seeds finds a violation."""

from __future__ import annotations

import pytest

from tests.simulation.guards import GUARDS
from tests.simulation.test_seeds import simulation

pytestmark = pytest.mark.simulation

SEEDS_MAX = 200
"""Within how many seeds the loss of a guard is noticed, unless it is a rare one."""

FIRST_SEEDS = {"tombstone": 101, "waiting-in-doubt": 501, "settling-first": 351}
"""Where to look for what chance brings about in one seed of hundreds only."""


@pytest.mark.parametrize("guard", sorted(GUARDS))
def test_the_loss_of_a_guard_is_noticed(guard: str) -> None:
    first = str(FIRST_SEEDS.get(guard, 1))
    run = simulation("--seeds", str(SEEDS_MAX), "--first", first, "--without", guard)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "VIOLATION seed " in run.stdout
