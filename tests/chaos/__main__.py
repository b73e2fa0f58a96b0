"""``python -m tests.chaos --minutes 5``: both workloads under faults, and what does not hold.

Ends with 1 when an invariant is violated, or when no fence refused anything in a run of five
minutes or more, which would mean that the run has tried nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import secrets
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tests.chaos.report import report
from tests.chaos.run import run
from tests.chaos.schedule import GAP_SECONDS, Kind, plan, short_plan

LONG_SECONDS = 300.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long faults go on")
    parser.add_argument("--seed", type=int, help="repeat the schedule of this seed")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[kind.name for kind in Kind],
        default=[kind.name for kind in Kind],
        metavar="KIND",
        help=f"these kinds of faults: {' '.join(kind.name for kind in Kind)}",
    )
    parser.add_argument(
        "--gap",
        nargs=2,
        type=float,
        default=GAP_SECONDS,
        metavar=("LEAST", "MOST"),
        help="seconds from one fault to the next",
    )
    parser.add_argument("--short", action="store_true", help="the schedule of `make test`")
    parser.add_argument("--keep", action="store_true", help="keep logs and data when all is well")
    given = parser.parse_args(arguments)
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    console = Console(highlight=False)
    console.print(f"seed {seed}: repeat it with --seed {seed} --minutes {given.minutes:g}")
    seconds = given.minutes * 60
    least, most = given.gap
    kinds = [Kind[name] for name in given.only]
    faults = plan(seed, seconds, gap_seconds=(least, most), kinds=kinds)
    if given.short:
        faults = short_plan(seed)
    # What the client's library tells of brokers that are away, which is what we do to it.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp(prefix="coordinator-chaos-"))

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    result = asyncio.run(run(seed, seconds, faults, folder, say))
    report(console, result)
    if seconds >= LONG_SECONDS and not result.events["worker.fenced"]:
        console.print("no fence has refused anything: this run has not tried enough")
    elif not result.violations:
        if not given.keep:
            shutil.rmtree(folder, ignore_errors=True)
        return 0
    console.print(f"logs and data: {folder}", soft_wrap=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
