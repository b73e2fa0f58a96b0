"""The life of one local server: start, stop, kill, pause, resume, on one port and one data folder.

Owns the process and knows nothing of any product; `postgresql`, `mongodb` and `kafka` say how a
data folder is prepared, which command to run and when the server is ready.

What can fail, and what holds then:

* The server ends before it is ready: `DevstackUnavailable` with the last lines of its log. When
  somebody else took the port in the meantime, a first start tries another one.
* Our process ends, by whatever cause: the tether (see there) ends the server. A `detached` server
  is let go by its tether; it lives until somebody `attach`es to its process id and stops it.
"""

import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import psutil

from coordinator.devstack import ports
from coordinator.devstack.errors import DevstackUnavailable
from coordinator.devstack.processes import (
    POLL_SECONDS,
    environment,
    failed,
    is_alive,
    wait_until_frozen,
    wait_until_gone,
)

TETHER = Path(__file__).with_name("tether.py")
PORT_ATTEMPTS_MAX = 3


class LocalServer(ABC):
    """One server on 127.0.0.1. All methods block; none needs an event loop.

    Args:
        folder: where its data lies; created when missing. The port is noted there, so that a later
            stack on the same folder has the same addresses when they are still free.
        log: the file that gets everything the server says.
        detached: let the server live on when this process ends.
        report: takes one line of progress.
        on_change: called after the process id changed.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[int] = signal.SIGTERM
    ready_seconds_max: ClassVar[float] = 90.0
    stop_seconds_max: ClassVar[float] = 20.0

    def __init__(
        self,
        folder: Path,
        log: Path,
        *,
        detached: bool = False,
        report: Callable[[str], None] = lambda line: None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder = folder
        self.log = log
        self.detached = detached
        self.report = report
        self._on_change = on_change
        self._port: int | None = None
        self._process: psutil.Process | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._given_up = threading.Event()

    # --- what a product says -------------------------------------------------------------------

    @property
    @abstractmethod
    def address(self) -> str:
        """The address as a client takes it."""

    @abstractmethod
    def describe(self) -> str:
        """Return the version and where the program comes from; raise when it cannot be had."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the data folder ready for a start. Called before every start."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command that runs the server in the foreground."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether the server does its work. May raise `OSError`, which means no."""

    # --- the life ------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The port on 127.0.0.1; the same for every start of this object."""
        if self._port is None:
            self._port = self._noted_port() or ports.free_port()
        return self._port

    @property
    def pid(self) -> int | None:
        """The process id of the server itself, or None when it does not run."""
        return int(self._process.pid) if self._process is not None and self.is_running else None

    @property
    def created(self) -> float | None:
        """When the process was created (epoch seconds); with `pid` an identity."""
        return (
            self._process.create_time() if self._process is not None and self.is_running else None
        )

    @property
    def is_running(self) -> bool:
        """Whether the process exists, paused or not."""
        if self._child is not None:
            self._child.poll()  # collect it, or it would stay on as a zombie
        return self._process is not None and is_alive(self._process)

    def start(self) -> None:
        """Start the server and return when it is ready. Does nothing when it runs.

        Raises:
            DevstackUnavailable: it cannot be had, or ended, or was not ready in time.
        """
        if self.is_running:
            return
        self._given_up.clear()
        is_first = self._port is None
        began = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        version = self.describe()
        for attempt in range(1, PORT_ATTEMPTS_MAX + 1):
            self.prepare()
            self._spawn()
            if self._wait_until_ready():
                break
            # It ended. A first start may move to another port, a later one has clients on this one.
            if ports.is_free(self.port) or not is_first or attempt == PORT_ATTEMPTS_MAX:
                raise self._failed("ended before it was ready")
            self._port = ports.free_port()
        (self.folder / "port").write_text(str(self.port))
        took = time.monotonic() - began
        self.report(f"{self.name}: {version} ready on 127.0.0.1:{self.port} after {took:.1f} s")

    def stop(self) -> None:
        """Stop the server as its operator would; kill it when that takes too long."""
        if self._process is not None and self.is_running:
            self._signal_family(signal.SIGCONT)
            self._process.send_signal(self.stop_signal)
            wait_until_gone([self._process], self.stop_seconds_max)
            if self.is_running:
                self.kill()
        self._forget()

    def kill(self) -> None:
        """End the server and all its children by SIGKILL, and return when they are gone."""
        gone = self._signal_family(signal.SIGKILL)
        wait_until_gone(gone, self.stop_seconds_max)
        self._forget()

    def pause(self) -> None:
        """Freeze the server with all its children: connections stay, nothing answers."""
        wait_until_frozen(self._signal_family(signal.SIGSTOP), self.stop_seconds_max)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._signal_family(signal.SIGCONT)

    def give_up(self) -> None:
        """Make a `start` that runs in another thread end soon."""
        self._given_up.set()

    def attach(self, pid: int, created: float, port: int) -> bool:
        """Take over a server that another process started; False when it is gone."""
        self._port = port
        try:
            process = psutil.Process(pid)
            is_same = abs(process.create_time() - created) < 0.5
        except psutil.NoSuchProcess:
            return False
        self._process = process if is_same else None
        return is_same and self.is_running

    # --- inside --------------------------------------------------------------------------------

    def _spawn(self) -> None:
        self._child = subprocess.Popen(
            [
                *(sys.executable, "-P", str(TETHER)),
                *("--signal", str(int(self.stop_signal))),
                *("--grace", str(self.stop_seconds_max)),
                *("--log", str(self.log)),
                *("--cwd", str(self.folder)),
                *(["--detached"] if self.detached else []),
                *("--", *self.command()),
            ],
            stdin=subprocess.DEVNULL if self.detached else subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            start_new_session=True,
        )
        self._process = self._reported_process(self._child)
        if self.detached:
            self._child.wait()
        self._on_change()

    def _reported_process(self, tether: "subprocess.Popen[bytes]") -> psutil.Process | None:
        assert tether.stdout is not None
        with tether.stdout:
            line = tether.stdout.readline()
        if not line.strip().isdigit():
            raise self._failed("could not be started at all")
        try:
            return psutil.Process(int(line))
        except psutil.NoSuchProcess:
            return None  # it ended at once; the wait for readiness tells why

    def _wait_until_ready(self) -> bool:
        deadline = time.monotonic() + self.ready_seconds_max
        while time.monotonic() < deadline:
            if not self.is_running:
                return False
            if self._given_up.is_set():
                self.kill()
                raise DevstackUnavailable(f"The start of {self.name} was given up.", "start again.")
            try:
                if self.is_ready():
                    return True
            except OSError:
                pass
            time.sleep(POLL_SECONDS)
        self.kill()
        raise self._failed(f"was not ready after {self.ready_seconds_max:.0f} s")

    def _failed(self, how: str) -> DevstackUnavailable:
        return failed(f"{self.name} {how}.", self.log)

    def _signal_family(self, number: int) -> list[psutil.Process]:
        """Signal the server and then its children (PostgreSQL has a process per connection)."""
        if self._process is None or not self.is_running:
            return []
        try:
            family = [self._process, *self._process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
        for process in family:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
        return family

    def _forget(self) -> None:
        if self._child is not None:
            if self._child.stdin is not None:
                self._child.stdin.close()
            self._child.wait(timeout=self.stop_seconds_max)
        self._child = self._process = None
        self._on_change()

    def _noted_port(self) -> int | None:
        try:
            port = int((self.folder / "port").read_text())
        except (OSError, ValueError):
            return None
        return port if ports.is_free(port) else None
