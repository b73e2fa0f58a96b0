"""The supervisor in the loop, and the ways out of real processes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

from coordinator.daemon.supervisor import ExitCode, Supervisor
from coordinator.domain.errors import (
    ConfigurationInvalid,
    Fenced,
    InvariantViolated,
    StoreUnavailable,
)


async def forever() -> None:
    await asyncio.Event().wait()


def failing(error: BaseException) -> Callable[[], Any]:
    async def fail() -> None:
        raise error

    return fail


async def run(supervisor: Supervisor) -> ExitCode:
    try:
        return await asyncio.wait_for(supervisor.run(), 10)
    finally:
        supervisor.watchdog.disarm()


async def test_a_stop_drains_in_order_and_gives_zero() -> None:
    done: list[str] = []

    async def step(name: str) -> None:
        done.append(name)

    supervisor = Supervisor(on_draining=lambda: done.append("draining"))
    supervisor.add("worker", forever)
    for name in ("intake", "in flight", "relay"):
        supervisor.on_drain(name, lambda name=name: step(name), budget_seconds=1)  # type: ignore[misc]
    for name in ("pool", "http"):
        supervisor.on_leave(name, lambda name=name: step(name))  # type: ignore[misc]
    asyncio.get_running_loop().call_soon(supervisor.request_stop, "test")
    assert await run(supervisor) == ExitCode.STOPPED
    assert done == ["draining", "intake", "in flight", "relay", "http", "pool"]


@pytest.mark.parametrize(
    ("error", "exit_code", "drains"),
    [
        (RuntimeError("a bug"), ExitCode.FAILED, True),
        (InvariantViolated("a promise"), ExitCode.FAILED, False),
        (Fenced("lost"), ExitCode.FENCED, False),
        (ExceptionGroup("tasks", [ValueError(), Fenced("lost")]), ExitCode.FENCED, False),
        (ConfigurationInvalid(["one", "two"]), ExitCode.CONFIGURATION_INVALID, False),
    ],
)
async def test_a_task_that_fails_ends_the_daemon(
    error: Exception, exit_code: ExitCode, drains: bool
) -> None:
    drained: list[str] = []

    async def drain() -> None:
        drained.append("x")

    supervisor = Supervisor()
    supervisor.add("healthy", forever)
    supervisor.add("sick", failing(error))
    supervisor.on_drain("intake", drain, budget_seconds=1)
    assert await run(supervisor) == exit_code
    assert bool(drained) == drains
    assert supervisor.dead() == ("healthy", "sick")  # all have ended now


async def test_a_critical_task_may_not_just_return_unless_it_may() -> None:
    async def done() -> None:
        return

    supervisor = Supervisor()
    supervisor.add("start", done, may_end=True)
    supervisor.add("relay", done)
    assert await run(supervisor) == ExitCode.FAILED


async def test_a_task_that_is_not_critical_ends_alone() -> None:
    supervisor = Supervisor()
    ended = asyncio.Event()

    async def extra() -> None:
        asyncio.get_running_loop().call_soon(ended.set)
        raise RuntimeError("x")

    supervisor.add("extra", extra, critical=False)
    supervisor.add("start", forever)
    running = asyncio.create_task(run(supervisor))
    await ended.wait()
    assert not supervisor.is_stopping
    assert supervisor.dead() == ()
    supervisor.request_stop("test")
    assert await running == ExitCode.STOPPED


async def test_a_task_added_while_running_is_supervised_too() -> None:
    supervisor = Supervisor()

    async def start() -> None:
        supervisor.add("late", failing(Fenced("lost")))

    supervisor.add("start", start, may_end=True)
    assert await run(supervisor) == ExitCode.FENCED


async def test_a_late_or_failing_step_does_not_hold_the_daemon() -> None:
    reached: list[str] = []

    async def last() -> None:
        reached.append("last")

    supervisor = Supervisor()
    supervisor.on_drain("hangs", forever, budget_seconds=0.05)
    supervisor.on_drain("fails", failing(OSError("away")), budget_seconds=1)
    supervisor.on_drain("last", last, budget_seconds=1)
    supervisor.request_stop("test")
    assert await run(supervisor) == ExitCode.STOPPED
    assert reached == ["last"]


async def test_being_fenced_while_draining_ends_the_drain() -> None:
    supervisor = Supervisor()
    fenced = asyncio.Event()

    async def heartbeat() -> None:
        await fenced.wait()
        raise Fenced("lost")

    async def in_flight() -> None:
        fenced.set()
        await forever()

    supervisor.add("heartbeat", heartbeat)
    supervisor.on_drain("in flight", in_flight, budget_seconds=9)
    supervisor.request_stop("test")
    began = monotonic()
    assert await run(supervisor) == ExitCode.FENCED
    assert monotonic() - began < 5


async def test_a_server_that_is_away_while_stopping_is_no_failure() -> None:
    supervisor = Supervisor()
    stopping = asyncio.Event()

    async def lane() -> None:
        await stopping.wait()
        raise StoreUnavailable("ledger", "no route")

    async def driver() -> None:
        try:
            await forever()
        finally:
            raise OSError("connection lost while it was cancelled")

    async def drain() -> None:
        stopping.set()

    supervisor.add("lane", lane)
    supervisor.add("driver", driver)
    supervisor.on_drain("batches", drain, budget_seconds=1)
    asyncio.get_running_loop().call_soon(supervisor.request_stop, "test")
    assert await run(supervisor) == ExitCode.STOPPED


async def test_two_tasks_cannot_have_one_name() -> None:
    supervisor = Supervisor()
    supervisor.add("x", forever)
    with pytest.raises(InvariantViolated):
        supervisor.add("x", forever)


# --- real processes -----------------------------------------------------------------------------

PROGRAM = """
import asyncio, sys, threading, time
from coordinator import logs
from coordinator.daemon import signals
from coordinator.daemon.supervisor import Supervisor
from coordinator.domain.errors import Fenced
signals.leave_on_early_signal()
logs.configure()
async def forever():
    await asyncio.Event().wait()
async def main():
    supervisor = Supervisor()
    async def start():
        print("ready", flush=True)
        await forever()
    supervisor.add("start", start)
{body}
    return await supervisor.run()
signals.run_and_leave(main)
"""


class Daemon:
    """A process that runs `PROGRAM`."""

    def __init__(self, body: str = "", program: str = PROGRAM) -> None:
        text = program.format(body=textwrap.indent(textwrap.dedent(body), "    "))
        self.process = subprocess.Popen(
            [sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def kill(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def wait(self) -> tuple[int, list[str]]:
        # Not `communicate`: it would miss what came together with "ready" and is buffered here.
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        out, err = self.process.stdout.read(), self.process.stderr.read()
        self.process.communicate(timeout=20)  # closes both
        assert err == ""
        return self.process.returncode, [json.loads(line)["event"] for line in out.splitlines()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_the_exit_code_is_zero(number: signal.Signals) -> None:
    daemon = Daemon()
    daemon.wait_ready()
    daemon.kill(number)
    assert daemon.wait() == (0, ["daemon.draining", "daemon.stopped"])


def test_the_second_signal_leaves_at_once() -> None:
    daemon = Daemon(
        """
        async def in_flight():
            print("ready", flush=True)
            await forever()
        supervisor.on_drain("in flight", in_flight, budget_seconds=20)
        """
    )
    daemon.wait_ready()
    daemon.kill(signal.SIGTERM)
    daemon.wait_ready()
    daemon.kill(signal.SIGTERM)
    assert daemon.wait() == (0, ["daemon.draining"])


def test_a_thread_that_does_not_let_go_does_not_hold_the_process() -> None:
    daemon = Daemon("asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)")
    daemon.wait_ready()
    daemon.kill(signal.SIGTERM)
    assert daemon.wait()[0] == 0


def test_the_watchdog_ends_a_process_whose_loop_is_blocked() -> None:
    daemon = Daemon(
        """
        supervisor.watchdog.deadline_seconds = 0.3
        async def block():
            print("ready", flush=True)
            while True:
                time.sleep(0.01)
        supervisor.add("block", block)
        """
    )
    daemon.wait_ready()
    daemon.wait_ready()
    daemon.kill(signal.SIGTERM)
    assert daemon.wait() == (0, ["daemon.drain_late"])


def test_a_fenced_daemon_leaves_with_three() -> None:
    daemon = Daemon(
        """
        async def lease():
            raise Fenced("lost")
        supervisor.add("lease", lease)
        """
    )
    daemon.wait_ready()
    assert daemon.wait() == (3, ["worker.fenced", "daemon.draining", "daemon.stopped"])


def test_a_signal_before_the_daemon_has_begun_is_an_orderly_end() -> None:
    daemon = Daemon(
        program="""
from coordinator.daemon import signals
signals.leave_on_early_signal()
print("ready", flush=True)
import time; time.sleep(60)
"""
    )
    daemon.wait_ready()
    daemon.kill(signal.SIGTERM)
    assert daemon.wait() == (0, [])
