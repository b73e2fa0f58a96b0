"""What `coordinator devstack up|down|status` do: functions that print and return an exit code.

In the foreground (`up` without `detach`) the command owns the servers: Ctrl-C, SIGTERM, the loss of
one of them, or its own crash ends them all. Detached, they live until `down`.
"""

import signal
import time
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.table import Table

from coordinator.devstack import state
from coordinator.devstack.errors import DevstackUnavailable
from coordinator.devstack.stack import Devstack

DEFAULT_DATA_FOLDER = Path(".devstack")
WATCH_SECONDS = 0.5

EXIT_OK = 0
EXIT_FAILED = 1


def up(data_folder: Path = DEFAULT_DATA_FOLDER, detach: bool = False) -> int:
    """Start the servers; without `detach`, stay until told to stop. Returns the exit code."""
    console = Console()
    present = Devstack(data_folder)
    if present.attach() and all(server.is_running for server in present.servers):
        console.print(f"The servers run already, on {present.data_folder}.")
        _print_addresses(console, present)
        return EXIT_OK
    stack = Devstack(data_folder, detached=detach, report=lambda line: console.print(f"  {line}"))
    console.print(f"Starting PostgreSQL, MongoDB and Kafka on {stack.data_folder} …")
    try:
        if not detach:
            signal.signal(signal.SIGTERM, _as_keyboard_interrupt)
        stack.up()
        _print_addresses(console, stack)
        if detach:
            console.print("They keep running. To stop them: coordinator devstack down")
            return EXIT_OK
        console.print("Ctrl-C stops them.")
        return _watch(console, stack)
    except DevstackUnavailable as error:
        _print_error(error)
        return EXIT_FAILED
    except KeyboardInterrupt:
        console.print("Stopping …")
        stack.down()
        return EXIT_OK


def down(data_folder: Path = DEFAULT_DATA_FOLDER) -> int:
    """Stop the servers that run on a data folder, whoever started them. Returns the exit code."""
    console = Console()
    stack = Devstack(data_folder)
    if not stack.attach():
        console.print(f"No servers run on {stack.data_folder}.")
        return EXIT_OK
    # First the note, so that an `up` in the foreground sees that this was meant.
    state.remove(stack.data_folder)
    stack.down()
    console.print(f"The servers on {stack.data_folder} are stopped; their data stays.")
    return EXIT_OK


def status(data_folder: Path = DEFAULT_DATA_FOLDER) -> int:
    """Show the servers of a data folder. Returns 0 when all run."""
    console = Console()
    stack = Devstack(data_folder)
    stack.attach()
    table = Table(box=None)
    for heading in ("server", "state", "pid", "address", "log"):
        table.add_column(heading)
    for server in stack.servers:
        if server.is_running:
            table.add_row(server.name, "running", str(server.pid), server.address, str(server.log))
        else:
            table.add_row(server.name, "not running", "", "", str(server.log))
    console.print(table)
    return EXIT_OK if all(server.is_running for server in stack.servers) else EXIT_FAILED


def _watch(console: Console, stack: Devstack) -> int:
    """Wait until a server is gone; when nobody asked for that, say which one and stop the rest."""
    while all(server.is_running for server in stack.servers):
        time.sleep(WATCH_SECONDS)
    was_meant = state.read(stack.data_folder) is None
    lost = [server for server in stack.servers if not server.is_running]
    stack.down()
    if was_meant:
        console.print("The servers were stopped.")
        return EXIT_OK
    for server in lost:
        Console(stderr=True).print(f"{server.name} ended by itself; its log is {server.log}.")
    return EXIT_FAILED


def _print_addresses(console: Console, stack: Devstack) -> None:
    for server in stack.servers:
        console.print(f"  {server.name:<11} {server.address}", highlight=False, soft_wrap=True)


def _print_error(error: DevstackUnavailable) -> None:
    console = Console(stderr=True)
    console.print(error.what, markup=False, highlight=False, soft_wrap=True)
    console.print(f"Next: {error.next_step}", markup=False, highlight=False, soft_wrap=True)


def _as_keyboard_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
