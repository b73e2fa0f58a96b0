"""The short form of `python -m tests.chaos.recovery`."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from tests.chaos.recovery import ALL_FINAL_SECONDS, measure, show
from tests.servers import KAFKA, MONGODB, POSTGRES, Servers

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]


async def test_another_daemon_finishes_what_a_killed_one_had_in_flight(
    servers: Servers, tmp_path: Path
) -> None:
    """I7, I9: all of it commits. Rates are judged by `python -m tests.chaos.recovery` alone."""
    servers.prefetch((POSTGRES, MONGODB, KAFKA))
    figures = await measure(servers, tmp_path, lease_seconds=3.0, rush=1500, in_flight=200)
    show(Console(width=120), figures)
    assert figures.not_committed == 0
    assert figures.in_flight >= 200
    assert figures.began_after > 0
    assert figures.all_ended_after < ALL_FINAL_SECONDS
