"""`coordinator bench` in short: every contender and every kind of variant can still be measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import report
from benchmarks.measurements import Conditions, Measurement
from benchmarks.measuring import Pace
from benchmarks.options import comparison
from benchmarks.promises import Kept, judge
from benchmarks.results import Circumstances, Run
from benchmarks.rounds import run_rounds
from benchmarks.samples import Samples
from benchmarks.servers import Servers as BenchmarkServers
from benchmarks.variants import variants
from tests.servers import Servers

PACE = Pace(warm_seconds=0.05, window_seconds=0.15, units_min=2)
SHORT = {"refused-by-postgresql", "old-journal", "rush", "backlog"}
"""Variants that do more than choose other keys."""


async def take(servers: Servers, folder: Path, measurements: list[Measurement]) -> Samples:
    assert [each.missing for each in measurements if each.missing] == []
    conditions = Conditions(BenchmarkServers(servers.addresses(), folder), PACE, "motor")
    return await run_rounds(measurements, 1, conditions, lambda *_: None)


@pytest.mark.acceptance
async def test_everybody_who_is_compared_does_transfers(servers: Servers, tmp_path: Path) -> None:
    """Every load on every contender gives figures, no money is lost, all promises are judged."""
    measurements = list(comparison())
    samples = await take(servers, tmp_path, measurements)
    assert len(samples.taken) == 15
    for each in samples.taken:
        assert each.units >= PACE.units_min, each
        assert 0 < each.p50_ms <= each.p99_ms, each
        assert each.cost is not None
        assert each.cost.commits["PostgreSQL"] > 0, each
        assert each.cost.commits["MongoDB"] > 0, each
    verdicts = judge(samples)
    assert Kept.UNKNOWN not in {verdict.kept for verdict in verdicts}
    titles = {each.name: each.title for each in measurements}
    console = Console(width=200, record=True)
    report.show(console, Run(Circumstances(1, 0.15, "motor"), titles, samples, verdicts))
    assert "DBOS Transact" in console.export_text()


@pytest.mark.acceptance
async def test_the_variants_are_still_what_they_say(servers: Servers, tmp_path: Path) -> None:
    """Refused ones are undone, an old journal is filled, a backlog is drained."""
    known = variants(old_units=500, backlog_units=3_000, rush_units=100)
    chosen = [each for each in known if each.name in SHORT]
    samples = await take(servers, tmp_path, chosen)
    assert [each.contender for each in samples.taken] == [each.name for each in chosen]
    assert {each.contender: each.units for each in samples.taken}["backlog"] == 3_000
    assert all(each.memory_bytes for each in samples.taken)
