"""Progress while it happens: a live bar on a terminal, plain lines to everything else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from coordinator.demo.board import Board
from coordinator.domain.lifecycle import Status

COLOURS: Final = {
    Status.COMMITTED: "green",
    Status.REJECTED: "yellow",
    Status.COMPENSATED: "magenta",
    Status.PARKED: "red",
}
_LINE_EVERY_SECONDS: Final = 1.0


class Display(Protocol):
    """What the acts ask of the terminal."""

    def show(self, board: Board) -> None:
        """Bring the display up to date; called several times a second."""


@contextmanager
def display(console: Console, *, quiet: bool = False) -> Iterator[Display]:
    """A display for one act; what the act says meanwhile goes to the same console."""
    if quiet:
        yield _Nothing()
        return
    if not console.is_terminal:
        yield _Lines(console)
        return
    with Progress(
        TextColumn("  "),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:>6,.0f}/s"),
        TextColumn("{task.fields[statuses]}"),
        console=console,
        refresh_per_second=12,
    ) as progress:
        yield _Bar(progress)


class _Nothing:
    def show(self, board: Board) -> None:
        pass


class _Bar:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None, rate=0.0, statuses="")

    def show(self, board: Board) -> None:
        self._progress.update(
            self._task,
            total=board.total,
            completed=board.done,
            rate=board.rate,
            statuses=statuses(board, marked_up=True),
        )


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_at = time.monotonic() + _LINE_EVERY_SECONDS
        self._shown = -1

    def show(self, board: Board) -> None:
        is_over = board.done >= board.total
        if board.done == self._shown or (not is_over and time.monotonic() < self._next_at):
            return
        self._next_at = time.monotonic() + _LINE_EVERY_SECONDS
        self._shown = board.done
        self._console.print(
            f"  {board.done:>5,} of {board.total:,}   {board.rate:>6,.0f}/s   {statuses(board)}",
            highlight=False,
        )


def statuses(board: Board, *, marked_up: bool = False) -> str:
    """The counts in words, in the order of the life cycle."""
    found = [(status, board.statuses[status]) for status in COLOURS if board.statuses[status]]
    if marked_up:
        return "  ".join(f"[{COLOURS[s]}]{count:,} {s.value}[/]" for s, count in found)
    return "  ".join(f"{count:,} {s.value}" for s, count in found)
