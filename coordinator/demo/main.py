"""``coordinator demo``: play it, show it, judge it; the exit code says whether everything held."""

from __future__ import annotations

import asyncio
import signal
import time
from types import FrameType
from typing import Final

from rich.console import Console

from coordinator.client import ClientError
from coordinator.demo.checks import failed, judge
from coordinator.demo.daemon import DemoFailed
from coordinator.demo.report import report, show_verdicts, what_next
from coordinator.demo.run import run
from coordinator.demo.stage import Stage, staged
from coordinator.devstack import DevstackUnavailable

UNITS: Final = 3000
SEED: Final = 1
EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130
_PIPED_COLUMNS: Final = 120


def main(units: int = UNITS, seed: int = SEED, *, stay: bool = False) -> int:
    """Run the demonstration with so many units; give the exit code.

    With ``stay``, servers and daemon go on until Ctrl-C, for units of the reader's own. The code is
    0 when every check holds, 1 when one does not or the run failed, 130 after Ctrl-C. Whatever was
    started is stopped, and its folder removed, in each case.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPED_COLUMNS)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _as_ctrl_c)
    try:
        return _play(console, units, seed, stay)
    except KeyboardInterrupt:
        console.print("\nInterrupted: daemon and servers are stopped, their folder is removed.")
        return EXIT_INTERRUPTED
    except DevstackUnavailable as error:
        console.print(f"{error.what}\nNext: {error.next_step}", markup=False)
    except (DemoFailed, ClientError) as error:
        console.print(f"\nThe demonstration failed. {error}", markup=False)
    return EXIT_FAILED


def _play(console: Console, units: int, seed: int, stay: bool) -> int:
    began = time.monotonic()
    console.print(
        f"[bold]A small shop on PostgreSQL and MongoDB, {units:,} units of work, one kill -9.[/]\n"
        "Each order debits an account and takes stock in PostgreSQL, and writes an order and\n"
        "closes a cart in MongoDB: all of it or nothing.\n\n"
        f"[bold]Setting up[/] [dim]· servers of its own, in a temporary folder; seed {seed}[/]"
    )
    with staged(lambda line: console.print(f"  {line}", markup=False)) as stage:
        seen = asyncio.run(run(stage, console, units, seed))
        report(console, seen)
        verdicts = judge(seen)
        show_verdicts(console, verdicts)
        took = time.monotonic() - began
        if stay:
            asyncio.run(_stay(console, stage))
    broken = failed(verdicts)
    console.print(f"\n[dim]{took:.0f} s in all; everything is cleaned up.[/]")
    what_next(console)
    return EXIT_FAILED if broken else EXIT_OK


async def _stay(console: Console, stage: Stage) -> None:
    """Keep the shop open until Ctrl-C."""
    await stage.daemon.start()
    console.print("\n[bold]The shop stays open[/] [dim]· until Ctrl-C; in another terminal:[/]")
    for name, value in stage.daemon.overrides.items():
        console.print(f"  export {name}='{value}'", soft_wrap=True)
    console.print("  .venv/bin/coordinator submit my-unit.json")
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)
