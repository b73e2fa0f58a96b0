"""A process of our own beside this one: started, awaited, ended, never left behind.

It hangs on the devstack's tether, so that it ends with us even when we are killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.beside import beside
from coordinator.devstack import tether

_START_SECONDS_MAX: Final = 60.0
_STOP_SECONDS_MAX: Final = 35.0
_POLL_SECONDS: Final = 0.02
_LINES_SHOWN: Final = 8
_ROOT: Final = Path(__file__).parents[1]


class ChildFailed(Exception):
    """A process has ended by itself, or was not ready in time; the message has its last words."""


@dataclass(frozen=True, slots=True)
class Child:
    """A process that runs."""

    pid: int
    log: Path

    def said(self, text: str) -> bool:
        """Whether this stands in its log."""
        return text in self.log.read_text(errors="replace")


@asynccontextmanager
async def running(
    arguments: Sequence[str], log: Path, is_ready: Callable[[Child], Awaitable[bool]]
) -> AsyncIterator[Child]:
    """Run ``python`` with these arguments until the block ends, then stop it by SIGTERM.

    The block begins when ``is_ready``. Raises `ChildFailed`, also in the block's midst.
    """
    process = _start(arguments, log)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process.stdout as said:
            child = Child(int(said.readline()), log)
        await _until_ready(child, process, is_ready)
        async with beside(_watch(child, process)):
            yield child
    finally:
        process.stdin.close()  # the tether ends it
        await asyncio.to_thread(process.wait, _STOP_SECONDS_MAX + 5)


def _start(arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    # A developer's own settings must not reach a daemon: they name other servers.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("COORDINATOR_")
    } | {"PYTHONPATH": str(_ROOT)}
    return subprocess.Popen(
        [
            *(sys.executable, "-P", tether.__file__),
            *("--signal", str(int(signal.SIGTERM)), "--grace", str(_STOP_SECONDS_MAX)),
            *("--log", str(log), "--cwd", str(log.parent), "--"),
            *(sys.executable, *arguments),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # Ctrl-C is ours; we end it in order
    )


async def _until_ready(
    child: Child,
    process: subprocess.Popen[bytes],
    is_ready: Callable[[Child], Awaitable[bool]],
) -> None:
    ends_at = time.monotonic() + _START_SECONDS_MAX
    while not await is_ready(child):
        if process.poll() is not None:
            raise _ended(child)
        if time.monotonic() > ends_at:
            raise ChildFailed(
                f"The process was not ready in {_START_SECONDS_MAX:.0f} s."
                f"\n{_last_words(child.log)}"
            )
        await asyncio.sleep(_POLL_SECONDS)


async def _watch(child: Child, process: subprocess.Popen[bytes]) -> None:
    await asyncio.to_thread(process.wait)
    raise _ended(child)


def _ended(child: Child) -> ChildFailed:
    return ChildFailed(f"The process has ended by itself.\n{_last_words(child.log)}")


def _last_words(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_LINES_SHOWN:])
