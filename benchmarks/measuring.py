"""One sample: a load on a contender that runs, with the meters read around a window of time.

The load begins, the contender gets warm, the window opens and closes, the load ends. What ends in
the window counts, whenever it began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.contenders.contender import Running
from benchmarks.loads import Load
from benchmarks.meters import Meter, cost
from benchmarks.samples import Sample
from benchmarks.statistics import percentile
from benchmarks.traffic import Traffic

_END_SECONDS_MAX: Final = 180.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a window is open, and how long the load has run before that.

    A window stays open until so many units have ended in it as well.
    """

    warm_seconds: float
    window_seconds: float
    units_min: int


async def measure(
    contender: str,
    round_: int,
    load: Load,
    running: Running,
    traffic: Traffic,
    meter: Meter,
    pace: Pace,
) -> Sample:
    """Take a sample; everything that was begun has ended when it returns."""
    driving = asyncio.create_task(load.drive(running, traffic), name=f"bench-{load.name}")
    try:
        await _beside(driving, _warm(traffic, pace))
        before = await meter.before()
        traffic.open_window(pace.units_min)
        await _beside(driving, traffic.ripen(pace.window_seconds))
        seconds, latencies = traffic.close_window()
        memory_bytes = meter.memory_bytes()
        after = await meter.after()
        traffic.stop()
        await asyncio.wait_for(driving, _END_SECONDS_MAX)
    finally:
        driving.cancel()
        await asyncio.wait([driving])
    return Sample(
        contender,
        load.name,
        round_,
        len(latencies),
        seconds,
        percentile(latencies, 50) * 1000,
        percentile(latencies, 99) * 1000,
        cost(before, after, len(latencies)),
        memory_bytes,
    )


async def _warm(traffic: Traffic, pace: Pace) -> None:
    traffic.open_window(pace.units_min)
    await traffic.ripen(pace.warm_seconds)
    traffic.close_window()


async def _beside(driving: asyncio.Task[None], waiting: Coroutine[Any, Any, None]) -> None:
    """Wait for the second; if the first ends before, which it should not, tell why."""
    waited = asyncio.create_task(waiting)
    try:
        await asyncio.wait([driving, waited], return_when=asyncio.FIRST_COMPLETED)
        if driving.done():
            driving.result()
            raise RuntimeError("the load has ended by itself")
        waited.result()
    finally:
        waited.cancel()
        await asyncio.wait([waited])
