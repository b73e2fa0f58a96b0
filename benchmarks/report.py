"""What you read on the terminal: a line per sample while it runs, then tables and verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.meters import CLIENT, Cost
from benchmarks.promises import Kept
from benchmarks.results import Run
from benchmarks.samples import Sample, Samples, p50, throughput
from benchmarks.servers import KAFKA, MONGODB, POSTGRESQL
from benchmarks.statistics import Spread

QUIET_SHARE: Final = 0.05
"""More than this used by others, and the machine was not quiet."""

_DAEMON: Final = "daemon"
_BASELINE: Final = ("coordinator", "saturation")
_VERDICT_STYLES: Final = {Kept.YES: "green", Kept.NO: "red", Kept.UNKNOWN: "dim"}


def progress_line(title: str, sample: Sample) -> str:
    """Tell of one sample."""
    return (
        f"round {sample.round}  {title:<34} {sample.load:<12} {sample.units_per_second:8,.0f}"
        f" units/s   p50 {sample.p50_ms:8.2f} ms   p99 {sample.p99_ms:8.2f} ms"
    )


def show(console: Console, run: Run) -> None:
    """Show the tables of a run, and what it promises."""
    console.print(_speeds(run))
    console.print(_costs(run))
    if run.verdicts:
        console.print(_promises(run))
    console.print(_remarks(run), markup=False)


def _speeds(run: Run) -> Table:
    samples = run.samples
    variants = not run.verdicts
    table = Table(
        title="How fast: median of the rounds, and from least to most", title_justify="left"
    )
    table.add_column("load", no_wrap=True)
    table.add_column("", no_wrap=True)
    for heading in ("units/s", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("least–most", style="dim", no_wrap=True)
    if variants:
        table.add_column("× uncontended", justify="right")
        table.add_column("memory MiB", justify="right")
    for load, contender, is_last in _by_load(run):
        cells = []
        for of, digits in ((throughput, 0), (p50, 2), (_p99, 2)):
            figure = samples.spread(contender, load, of)
            cells += _shown(figure, digits)
        extra = [_against_baseline(samples, contender, load), _memory(samples, contender, load)]
        table.add_row(
            load,
            run.titles[contender],
            *cells,
            *(extra if variants else ()),
            end_section=is_last and not variants,
        )
    return table


def _costs(run: Run) -> Table:
    table = Table(
        title="What a unit costs: CPU time in µs by process, commits, bytes written (medians)",
        title_justify="left",
    )
    for heading in ("load", ""):
        table.add_column(heading, no_wrap=True)
    for heading in (
        *("µs: client", "daemon", "Postgres", "Mongo", "Kafka", "all"),
        *("commits: Postgres", "Mongo", "bytes: Postgres", "Mongo", "Kafka"),
    ):
        table.add_column(heading, justify="right")
    for load, contender, is_last in _by_load(run):
        costs = [each.cost for each in run.samples.of(contender, load) if each.cost]
        cells = [
            *(_median(costs, _cpu(name)) for name in (CLIENT, _DAEMON)),
            *(_median(costs, _cpu(name)) for name in (POSTGRESQL, MONGODB, KAFKA)),
            _median(costs, lambda each: sum(each.cpu_us.values())),
            *(_median(costs, _commits(name), 3) for name in (POSTGRESQL, MONGODB)),
            *(_median(costs, _bytes(name)) for name in (POSTGRESQL, MONGODB, KAFKA)),
        ]
        table.add_row(load, run.titles[contender], *cells, end_section=is_last)
    return table


def _promises(run: Run) -> Table:
    table = Table(title="What is promised", title_justify="left")
    for heading in ("", "promise", "bound", "ratio", ""):
        table.add_column(heading)
    for verdict in run.verdicts:
        style = _VERDICT_STYLES[verdict.kept]
        table.add_row(
            f"[{style}]{verdict.kept.value}[/]",
            verdict.promise.text,
            verdict.promise.bound_text,
            *_shown(verdict.ratio, 2),
        )
    return table


def _remarks(run: Run) -> str:
    circumstances = run.circumstances
    remarks = (
        f"{circumstances.processors} processors, {circumstances.memory_bytes / 2**30:.0f} GiB,"
        f" {circumstances.system}, Python {circumstances.python}, driver {circumstances.driver};"
        f" {circumstances.repeats} rounds, windows of {circumstances.window_seconds:g} s."
    )
    if run.others_most > QUIET_SHARE:
        remarks += (
            f"\nThe machine was not quiet: other processes have used up to {run.others_most:.0%}"
            " of it. These figures are no measurement."
        )
    return remarks


def _by_load(run: Run) -> Sequence[tuple[str, str, bool]]:
    """Order the cells by load; say of each whether it is the last of its load."""
    cells = set(run.samples.cells())
    loads = list(dict.fromkeys(load for _, load in run.samples.cells()))
    ordered = [(load, who) for load in loads for who in run.titles if (who, load) in cells]
    ends = {load: place for place, (load, _) in enumerate(ordered)}
    return [(load, who, ends[load] == place) for place, (load, who) in enumerate(ordered)]


def _p99(sample: Sample) -> float:
    return sample.p99_ms


def _shown(figure: Spread | None, digits: int) -> list[str]:
    if figure is None:
        return ["", ""]
    least, most = f"{figure.least:,.{digits}f}", f"{figure.most:,.{digits}f}"
    return [f"{figure.median:,.{digits}f}", f"{least}–{most}"]


def _against_baseline(samples: Samples, contender: str, load: str) -> str:
    baseline = samples.spread(*_BASELINE, throughput)
    own = samples.spread(contender, load, throughput)
    if baseline is None or own is None:
        return ""
    return f"{own.median / baseline.median:.2f}"


def _memory(samples: Samples, contender: str, load: str) -> str:
    held = [each.memory_bytes for each in samples.of(contender, load) if each.memory_bytes]
    return f"{max(held) / 2**20:.0f}" if held else ""


def _median(costs: Sequence[Cost], of: Callable[[Cost], float | None], digits: int = 0) -> str:
    values = [value for each in costs if (value := of(each)) is not None]
    return f"{median(values):,.{digits}f}" if values else ""


def _cpu(name: str) -> Callable[[Cost], float | None]:
    return lambda cost: cost.cpu_us.get(name)


def _commits(name: str) -> Callable[[Cost], float | None]:
    return lambda cost: cost.commits.get(name)


def _bytes(name: str) -> Callable[[Cost], float | None]:
    return lambda cost: cost.bytes_written.get(name)
