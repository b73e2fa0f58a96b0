"""Signals and the ways out of the process.

The first SIGTERM or SIGINT asks for a drain, the second leaves at once. Both give exit code 0
unless something had failed before: what is unfinished goes on at the next start (F36). A
`Watchdog` thread ends the process when the drain, a driver's thread or a blocked loop does not
let go; that is safe because a ``kill -9`` is.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from asyncio import get_running_loop
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, NoReturn

from coordinator.log_events import LogEvent
from coordinator.logs import flush, get_log

STOP_DEADLINE_SECONDS: Final = 29.0
"""From the signal to the end of the process; F36 promises 30."""

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_LAST_FLUSH_SECONDS: Final = 0.5

log = get_log()


def leave(exit_code: int) -> NoReturn:
    """End the process now, with its log lines written.

    Not `sys.exit`: the interpreter would first join the drivers' threads, and one that waits for
    a server that is away holds it for as long as its time-out.
    """
    flush(_LAST_FLUSH_SECONDS)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # closed or gone: nobody is listening
            continue
    os._exit(exit_code)


def leave_on_early_signal() -> None:
    """Until `stop_signals` takes over, a signal ends the process with code 0: nothing has begun."""
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda *_: leave(0))


class Watchdog:
    """Ends the process at a deadline, whatever the event loop does."""

    def __init__(self, exit_code: Callable[[], int], *, leave: Callable[[int], Any] = leave):
        self._exit_code = exit_code
        self._leave = leave
        self.deadline_seconds = STOP_DEADLINE_SECONDS
        self._disarmed = threading.Event()
        self._thread: threading.Thread | None = None

    def arm(self) -> None:
        """Start the clock; only the first call counts."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()

    def disarm(self) -> None:
        """Stop the clock for good; for tests and for embedding."""
        self._disarmed.set()

    def _watch(self) -> None:
        if self._disarmed.wait(self.deadline_seconds):
            return
        log.warning(
            LogEvent.DAEMON_DRAIN_LATE,
            "The daemon did not stop in its time and is ended.",
            step="all",
            duration_ms=self.deadline_seconds * 1000,
        )
        self._leave(self._exit_code())


@contextmanager
def stop_signals(
    request_stop: Callable[[str], None],
    watchdog: Watchdog,
    exit_code: Callable[[], int],
    *,
    leave: Callable[[int], Any] = leave,
) -> Iterator[None]:
    """Within: the first signal calls ``request_stop(name)`` in the loop, the second leaves.

    Plain signal handlers and not the loop's own, so that a busy loop cannot delay the watchdog.
    Must be entered in the main thread, with the loop running.
    """
    loop = get_running_loop()
    received: list[str] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        received.append(signal.Signals(number).name)
        if len(received) > 1:
            leave(exit_code())
            return
        watchdog.arm()
        loop.call_soon_threadsafe(request_stop, received[0])

    before = {number: signal.signal(number, on_signal) for number in _STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_and_leave(main: Callable[[], Coroutine[Any, Any, int]]) -> NoReturn:
    """Run the daemon's coroutine on uvloop where there is one, and leave with its exit code."""
    import asyncio

    try:
        import uvloop
    except ImportError:  # no build for this platform
        runner = asyncio.Runner()
    else:
        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    collect_seldom()
    leave(runner.run(main()))


def collect_seldom() -> None:
    """Look for reference cycles seldom: what a unit is made of holds none.

    Python's own thresholds are for small heaps. With ten thousand units waiting the collector
    walks over all they are made of again and again, and took a third of the daemon's time.
    Modules, loaded by now, are not looked at any more.
    """
    import gc

    gc.freeze()
    gc.set_threshold(10_000, 20, 10)
