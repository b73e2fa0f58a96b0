"""``python -m tests.simulation``: many seeds on all cores, or one again.

``--seeds N`` runs the seeds from ``--first`` on and says what happened in numbers. ``--seed S``
replays one exactly and shows its trace. ``--without GUARD`` takes one guard out, and then exits
with 0 only if a violation was found. ``--set NAME=NUMBER`` overrules what seeds draw of `Swarm`.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.guards import GUARDS, take_out
from tests.simulation.run import TRACE_LINES_SHOWN, Result, simulate
from tests.simulation.swarm import read_settings

CHUNK_SEEDS = 20
Settings = Mapping[str, float]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--seed", type=int, help="replay this one, and show its trace")
    parser.add_argument("--units", type=int, default=50, help="units per seed")
    parser.add_argument("--without", choices=sorted(GUARDS), help="take this guard out")
    parser.add_argument("--set", action="append", default=[], help="name=number of the swarm")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args(arguments)
    settings = read_settings(given.set)
    if given.seed is not None:
        if given.without:
            take_out(given.without)
        result = simulate(given.seed, given.units, settings)
        print("\n".join(result.trace))
        _show(result, lines=0)
        print(dict(sorted(result.counts.items())))
        return bool(result.violations)
    return _run_many(given, settings)


def _run_many(given: argparse.Namespace, settings: Settings) -> int:
    began = time.monotonic()
    counts: Counter[str] = Counter()
    failed: list[Result] = []
    virtual_seconds = 0.0
    for result in _results(given, settings):
        counts.update(result.counts)
        virtual_seconds += result.virtual_seconds
        if result.violations:
            failed.append(result)
            if given.without or len(failed) >= 5:
                break
    wall_seconds = time.monotonic() - began
    for result in failed[: 1 if given.without else 5]:
        _show(result, lines=0 if given.without else TRACE_LINES_SHOWN)
    print(
        f"{given.seeds} seeds × {given.units} units in {wall_seconds:.1f} s "
        f"({virtual_seconds:.0f} virtual): {len(failed)} with violations"
    )
    print(", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    if given.without:
        return 0 if failed else 1
    return 1 if failed else 0


def _results(given: argparse.Namespace, settings: Settings) -> Iterator[Result]:
    last = given.first + given.seeds
    chunks = [
        (range(start, min(start + CHUNK_SEEDS, last)), given.units, given.without, settings)
        for start in range(given.first, last, CHUNK_SEEDS)
    ]
    if given.processes == 1:
        for chunk in chunks:
            yield from _run_chunk(chunk)
        return
    with ProcessPoolExecutor(given.processes) as pool:
        try:
            for results in pool.map(_run_chunk, chunks):
                yield from results
        finally:
            pool.shutdown(cancel_futures=True)


def _run_chunk(chunk: tuple[range, int, str | None, Settings]) -> list[Result]:
    seeds, units, without, settings = chunk
    if without:
        take_out(without)
    results = []
    for number, seed in enumerate(seeds):
        result = simulate(seed, units, settings)
        # Only what failed is looked at line by line.
        results.append(result if result.violations else _without_trace(result))
        if result.violations and without:
            break
        if number % 5 == 4:
            gc.collect()
    return results


def _without_trace(result: Result) -> Result:
    return Result(result.seed, (), result.counts, (), result.virtual_seconds)


def _show(result: Result, *, lines: int) -> None:
    if lines:
        print("\n".join(result.trace[-lines:]))
    for violation in result.violations:
        print(f"VIOLATION seed {result.seed}: {violation}")
    if result.violations:
        print(f"replay: python -m tests.simulation --seed {result.seed}")


if __name__ == "__main__":
    # A worker that is killed leaves coroutines that have never begun.
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited")
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets of strings is part of what a seed decides.
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        command = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, command, environment)
    sys.exit(main())
