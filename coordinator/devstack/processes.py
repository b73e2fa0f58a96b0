"""Small facts about processes that `psutil` leaves to its callers, and their failures in words."""

import os
import subprocess
import time
from pathlib import Path

import psutil

from coordinator.devstack.errors import DevstackUnavailable

POLL_SECONDS = 0.03
LOG_LINES_SHOWN = 8
LOG_COLUMNS_SHOWN = 300


def environment() -> dict[str, str]:
    """Return a copy of the environment, to be given to every process that is started.

    Servers are started from threads. Without a copy of its own a new process reads the C library's
    `environ` at the very end, in `execve`; a thread that sets a variable at that moment (pytest
    does, twice per test) moves that array away, and the start fails with EFAULT.
    """
    # One by one: a variable may go between the listing and the look.
    return {name: value for name in list(os.environ) if (value := os.environ.get(name)) is not None}


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still does something: a zombie that nobody has collected yet does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(processes: list[psutil.Process], seconds_max: float) -> None:
    """Wait until none of the processes is alive, or the time is over."""
    deadline = time.monotonic() + seconds_max
    while any(is_alive(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def wait_until_frozen(processes: list[psutil.Process], seconds_max: float) -> None:
    """Wait until SIGSTOP has reached every thread of the processes, or the time is over."""
    deadline = time.monotonic() + seconds_max
    while not all(map(_is_frozen, processes)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _is_frozen(process: psutil.Process) -> bool:
    if not is_alive(process):
        return True
    try:
        threads = Path(f"/proc/{process.pid}/task")
        if not threads.exists():
            return bool(process.status() == psutil.STATUS_STOPPED)
        # The program's name, in parentheses, may itself contain some.
        states = [(thread / "stat").read_text().rpartition(")")[2] for thread in threads.iterdir()]
    except (psutil.NoSuchProcess, OSError):
        return False  # a thread or process ended meanwhile; look again
    return all(state.split()[0] == "T" for state in states)


def run_once(command: list[str], *, cwd: Path, log: Path, what: str) -> None:
    """Run a preparing command to its end; its output goes to the server's log.

    Raises:
        DevstackUnavailable: the command failed.
    """
    with open(log, "ab") as output:
        run = subprocess.run(
            command,
            cwd=cwd,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
        )
    if run.returncode != 0:
        raise failed(f"{what} failed (exit code {run.returncode}).", log)


def failed(what: str, log: Path) -> DevstackUnavailable:
    """Return an error with the last lines of a server's log."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    said = "\n".join(f"    {line[:LOG_COLUMNS_SHOWN]}" for line in lines[-LOG_LINES_SHOWN:])
    return DevstackUnavailable(f"{what} Its last words:\n{said}\n", f"read the log in {log}.")
