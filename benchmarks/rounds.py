"""The rounds of a run: everybody once, then everybody again.

Whoever is compared is measured in turn, not one after all repeats of the other, so that a machine
that grows slower does not do it to one of them only. Every second round goes backwards, so that
nobody is always the one behind the heaviest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from benchmarks.contenders.dual_write import DualWrite
from benchmarks.contenders.straight_line import StraightLine
from benchmarks.loads import MANY_CLIENTS, ONE_CLIENT, SATURATION
from benchmarks.measurements import Conditions, Measured, Measurement
from benchmarks.measuring import Pace
from benchmarks.samples import Sample, Samples

Progress = Callable[[Measurement, Sample], None]
"""Is told of every sample."""


_WARM_UP: Final = Pace(warm_seconds=1.0, window_seconds=3.0, units_min=20)


async def warm_up(conditions: Conditions) -> None:
    """Let the servers do what they will do, unmeasured: Kafka's Java is slow until it is compiled.

    Otherwise the first round would measure who comes first.
    """
    busy = (
        Measured(DualWrite(with_event=True), [MANY_CLIENTS]),
        Measured(StraightLine(), [ONE_CLIENT, SATURATION]),
    )
    for measurement in busy:
        await measurement.take(replace(conditions, pace=_WARM_UP), 0, lambda _: None)


async def run_rounds(
    measurements: Sequence[Measurement],
    repeats: int,
    conditions: Conditions,
    progress: Progress,
) -> Samples:
    """Take all samples."""
    samples = Samples()
    try:
        for number in range(1, repeats + 1):
            for measurement in measurements if number % 2 else reversed(measurements):

                def note(sample: Sample, measurement: Measurement = measurement) -> None:
                    samples.add(sample)
                    progress(measurement, sample)

                await measurement.take(conditions, number, note)
    finally:
        for measurement in measurements:
            await measurement.close()
    return samples
