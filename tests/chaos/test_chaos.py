"""The short form of `make chaos`: one seed, and every kind of fault that must be met."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from tests.chaos.report import report
from tests.chaos.run import run
from tests.chaos.schedule import MUST_MEET, SHORT_SECONDS, short_plan

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

SEED = 1


async def test_money_and_lists_survive_three_quarters_of_a_minute(tmp_path: Path) -> None:
    """I2, I3, I5, I7, I8, I9, F4, F5: the bank and the lists, while everything is taken away."""
    result = await run(SEED, SHORT_SECONDS, short_plan(SEED), tmp_path, print)
    report(Console(width=120), result)
    assert not result.violations
    assert set(result.faults) == set(MUST_MEET)
    assert result.takeovers > 0
    assert result.events["worker.fenced"] > 0
