"""Named, supervised tasks, and the daemon's orderly end.

Owns when the daemon stops and with which exit code. Nothing is restarted in place: a task that
dies has met something that nobody foresaw, so the daemon drains, leaves non-zero, and its next
start goes through recovery, the one path that is always tried (DESIGN section 5).

::

    running ── signal ──► draining ──► leaving        exit 0
       ├── a task died ──► draining ──► leaving       exit 1
       ├── configuration found wrong ──────► leaving  exit 2
       └── fenced ─────────────────────────► leaving  exit 3

*Draining* runs the drain steps in the order in which they were added, each within its budget: stop
the intake, finish what is in flight, flush the relay. *Leaving* cancels the tasks and closes what
is open. A fenced daemon, and one that found a promise of its own broken, does not drain: it must
write nothing more (I9).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from enum import IntEnum
from time import monotonic
from typing import Any, Final

from coordinator.daemon.signals import Watchdog, stop_signals
from coordinator.domain.errors import (
    ConfigurationInvalid,
    Fenced,
    InvariantViolated,
    StoreError,
)
from coordinator.log_events import LogEvent
from coordinator.logs import get_log

log = get_log()

_CANCEL_SECONDS: Final = 2.0
Step = Callable[[], Awaitable[object]]


class ExitCode(IntEnum):
    """The daemon's exit codes; a higher one wins when two things go wrong."""

    STOPPED = 0
    FAILED = 1
    CONFIGURATION_INVALID = 2
    FENCED = 3


@dataclass(frozen=True, slots=True)
class _BoundedStep:
    name: str
    act: Step
    budget_seconds: float


@dataclass(slots=True)
class _Supervised:
    name: str
    factory: Callable[[], Coroutine[Any, Any, object]]
    critical: bool
    may_end: bool
    task: asyncio.Task[object] | None = None


class Supervisor:
    """Runs named tasks until a signal, a failure or `request_stop`; `run` gives the exit code."""

    def __init__(self, *, on_draining: Callable[[], None] | None = None) -> None:
        """``on_draining`` is called first, so that readiness goes before anything else."""
        self._on_draining = on_draining
        self._supervised: dict[str, _Supervised] = {}
        self._drain_steps: list[_BoundedStep] = []
        self._leave_steps: list[_BoundedStep] = []
        self._stop: asyncio.Event = asyncio.Event()
        self._running = False
        self._leaving = False
        self._may_drain = True
        self._reason = ""
        self._exit_code = ExitCode.STOPPED
        self.watchdog = Watchdog(lambda: self._exit_code)

    def add(
        self,
        name: str,
        factory: Callable[[], Coroutine[Any, Any, object]],
        *,
        critical: bool = True,
        may_end: bool = False,
    ) -> None:
        """Supervise the coroutine that ``factory`` makes; it starts with `run`, or now if running.

        A critical one that raises ends the daemon, and so does one that just returns, unless it
        ``may_end`` (as the start-up does). Names are unique.
        """
        if name in self._supervised:
            raise InvariantViolated(f"two supervised tasks are named {name}")
        supervised = _Supervised(name, factory, critical, may_end)
        self._supervised[name] = supervised
        if self._running and not self._leaving:
            self._start(supervised)

    def on_drain(self, name: str, step: Step, *, budget_seconds: float) -> None:
        """Add a step of the drain. The budgets must sum up to well under 29 seconds."""
        self._drain_steps.append(_BoundedStep(name, step, budget_seconds))

    def on_leave(self, name: str, step: Step, *, budget_seconds: float = 1.0) -> None:
        """Add something to close at the very end, whatever happened; last added, first closed."""
        self._leave_steps.insert(0, _BoundedStep(name, step, budget_seconds))

    def request_stop(self, reason: str) -> None:
        """Ask for the orderly end; only the first reason counts."""
        if not self._stop.is_set():
            self._reason = reason
            self._stop.set()

    @property
    def is_stopping(self) -> bool:
        """Whether the end has been asked for."""
        return self._stop.is_set()

    def dead(self) -> tuple[str, ...]:
        """Give the names of critical tasks that are gone though they should run (``/livez``)."""
        return tuple(
            supervised.name
            for supervised in self._supervised.values()
            if supervised.critical
            and not supervised.may_end
            and supervised.task is not None
            and supervised.task.done()
        )

    async def run(self) -> ExitCode:
        """Run until the end is asked for or forced, drain, leave; return the exit code."""
        self._running = True
        with stop_signals(self.request_stop, self.watchdog, lambda: self._exit_code):
            for supervised in list(self._supervised.values()):
                self._start(supervised)
            await self._stop.wait()
            began = monotonic()
            self.watchdog.arm()
            if self._on_draining is not None:
                self._on_draining()
            log.info(LogEvent.DAEMON_DRAINING, "The daemon is stopping.", reason=self._reason)
            await self._drain()
            self._leaving = True
            await self._cancel_tasks()
            for step in self._leave_steps:
                await self._bounded(step)
        log.info(
            LogEvent.DAEMON_STOPPED,
            "The daemon has stopped.",
            exit_code=int(self._exit_code),
            duration_ms=round((monotonic() - began) * 1000, 1),
        )
        return self._exit_code

    def _start(self, supervised: _Supervised) -> None:
        task = asyncio.get_running_loop().create_task(supervised.factory(), name=supervised.name)
        supervised.task = task
        task.add_done_callback(lambda done: self._ended(supervised, done))

    def _ended(self, supervised: _Supervised, task: asyncio.Task[object]) -> None:
        error = None if task.cancelled() else task.exception()
        may_end = self._stop.is_set() or (supervised.may_end and not task.cancelled())
        if error is not None or not may_end:
            self._judge(supervised, error)

    def _judge(self, supervised: _Supervised, error: BaseException | None) -> None:
        cause = None if error is None else _root_cause(error)
        if isinstance(cause, ConfigurationInvalid):
            for mistake in cause.mistakes:
                log.error(LogEvent.CONFIG_INVALID, mistake, mistake=mistake)
            self._fail(ExitCode.CONFIGURATION_INVALID, "configuration", may_drain=False)
        elif isinstance(cause, Fenced):
            log.error(
                LogEvent.WORKER_FENCED,
                "Another daemon has taken over this worker's units; this one changes nothing more.",
                task=supervised.name,
            )
            self._fail(ExitCode.FENCED, "fenced", may_drain=False)
        elif self._leaving or (self._stop.is_set() and isinstance(cause, StoreError)):
            # Stopping with a server away is an orderly stop (F36), however the drivers put it.
            log.warning(
                LogEvent.DAEMON_DRAIN_LATE,
                f"The task {supervised.name} failed on its way out.",
                step=supervised.name,
                error=error,
            )
        else:
            happened = "ended" if error is None else "failed"
            log.error(
                LogEvent.DAEMON_TASK_FAILED,
                f"The task {supervised.name} {happened} unexpectedly.",
                task=supervised.name,
                error=error,
            )
            if supervised.critical:
                may_drain = not isinstance(cause, InvariantViolated)
                self._fail(ExitCode.FAILED, f"task {supervised.name}", may_drain=may_drain)

    def _fail(self, exit_code: ExitCode, reason: str, *, may_drain: bool) -> None:
        self._exit_code = max(self._exit_code, exit_code)
        self._may_drain = self._may_drain and may_drain
        self.request_stop(reason)

    async def _drain(self) -> None:
        for step in self._drain_steps:
            if not self._may_drain:
                return
            await self._bounded(step, while_draining=True)

    async def _bounded(self, step: _BoundedStep, *, while_draining: bool = False) -> None:
        """Run one step within its budget; a late or failed one is logged and left behind."""
        began = monotonic()
        task = asyncio.ensure_future(step.act())
        while not task.done():
            left = step.budget_seconds - (monotonic() - began)
            if left <= 0 or (while_draining and not self._may_drain):
                break
            await asyncio.wait({task}, timeout=min(left, 0.2))
        if not task.done():
            task.cancel()
            log.warning(
                LogEvent.DAEMON_DRAIN_LATE,
                f"{step.name} did not end in its time; the daemon leaves without it.",
                step=step.name,
                duration_ms=round((monotonic() - began) * 1000, 1),
            )
        elif not task.cancelled() and (error := task.exception()) is not None:
            log.warning(
                LogEvent.DAEMON_DRAIN_LATE,
                f"{step.name} failed; the daemon leaves without it.",
                step=step.name,
                error=error,
            )

    async def _cancel_tasks(self) -> None:
        tasks = {
            supervised.task
            for supervised in self._supervised.values()
            if supervised.task is not None and not supervised.task.done()
        }
        for task in tasks:
            task.cancel()
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)
        for task in late:
            log.warning(
                LogEvent.DAEMON_DRAIN_LATE,
                f"The task {task.get_name()} does not let go; the daemon leaves without it.",
                step=task.get_name(),
            )


def _root_cause(error: BaseException) -> BaseException:
    """Find what matters inside an exception group: fenced, misconfigured, a broken promise."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    causes = [_root_cause(inner) for inner in error.exceptions]
    for kind in (Fenced, ConfigurationInvalid, InvariantViolated):
        for cause in causes:
            if isinstance(cause, kind):
                return cause
    return causes[0]
