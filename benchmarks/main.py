"""``coordinator bench``: measure, show, write down; the exit code says what of it holds."""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Final

import uvloop
from rich.console import Console

from benchmarks import plot, report, results
from benchmarks.child import ChildFailed
from benchmarks.measurements import Conditions, Measurement
from benchmarks.options import Options, OptionsInvalid
from benchmarks.promises import Kept, judge
from benchmarks.results import Circumstances, Run
from benchmarks.rounds import run_rounds, warm_up
from benchmarks.samples import Sample, Samples
from benchmarks.servers import Servers, started
from coordinator.devstack import DevstackUnavailable

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130

RESULTS: Final = Path(__file__).with_name("results")
_PIPED_COLUMNS: Final = 180


def main(options: Options) -> int:
    """Make a run and give the exit code.

    0 when it was made and no promise was missed (a quick run is too short to miss one), 1 when one
    was or the run failed, 2 for options that make no sense, 130 after Ctrl-C. Whatever was started
    is stopped in each case.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPED_COLUMNS)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _as_ctrl_c)
    try:
        return _run(console, options)
    except KeyboardInterrupt:
        console.print("\nInterrupted: what was started is stopped, its folder is removed.")
        return EXIT_INTERRUPTED
    except OptionsInvalid as error:
        Console(stderr=True).print(str(error), markup=False)
        return EXIT_USAGE
    except DevstackUnavailable as error:
        console.print(f"{error.what}\nNext: {error.next_step}", markup=False)
    except ChildFailed as error:
        console.print(f"\nThe run has failed. {error}", markup=False)
    return EXIT_FAILED


def _run(console: Console, options: Options) -> int:
    began = time.monotonic()
    wanted = options.measurements()
    measurements = [each for each in wanted if each.missing is None]
    for each in wanted:
        if each.missing is not None:
            console.print(f"Left out: {each.title}. {each.missing}", markup=False)
    circumstances = Circumstances(options.repeats, options.pace.window_seconds, options.driver)
    console.print(
        f"{len(measurements)} measurements, {options.repeats} rounds,"
        f" load of the machine {circumstances.load_average:.1f}"
    )
    with started(lambda line: console.print(f"  {line}", markup=False)) as servers:
        samples = measure_all(console, servers, options, measurements)
    verdicts = () if options.with_variants else judge(samples)
    titles = {each.name: each.title for each in measurements}
    run = Run(circumstances, titles, samples, verdicts)
    report.show(console, run)
    write(console, run, options.json_file or _default_file(options, circumstances.made_at))
    console.print(f"{time.monotonic() - began:.0f} s in all")
    is_missed = any(verdict.kept is Kept.NO for verdict in verdicts)
    return EXIT_FAILED if is_missed and not options.quick else EXIT_OK


def measure_all(
    console: Console, servers: Servers, options: Options, measurements: Sequence[Measurement]
) -> Samples:
    """Take all samples, in a loop like the daemon's."""

    def progress(measurement: Measurement, sample: Sample) -> None:
        console.print(report.progress_line(measurement.title, sample), markup=False)

    async def run() -> Samples:
        conditions = Conditions(servers, options.pace, options.driver)
        if not options.quick:
            await warm_up(conditions)
        return await run_rounds(measurements, options.repeats, conditions, progress)

    collect_seldom()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def collect_seldom() -> None:
    """Look for reference cycles as seldom as the daemon does: all clients are in this process."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 10)


def write(console: Console, run: Run, json_file: Path) -> None:
    """Write a run as JSON, and a picture of it beside."""
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_bytes(results.as_json(run))
    picture = json_file.with_suffix(".svg")
    picture.write_text(plot.draw(run.samples, run.titles))
    console.print(f"written: {json_file} and {picture.name}", markup=False)


def _default_file(options: Options, made_at: datetime) -> Path:
    kind = "variants" if options.with_variants else "comparison"
    return RESULTS / f"{made_at:%Y%m%dT%H%M%SZ}-{kind}.json"


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)
