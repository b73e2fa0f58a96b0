"""`state.json`: which processes run on a data folder, for another process to find and stop.

Owns the file's form. A process id is noted with the time its process was created; a machine that
was restarted has other processes under the same numbers.
"""

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "state.json"


@dataclass(frozen=True, slots=True)
class ServerState:
    """One server's process and port. `created` is in epoch seconds."""

    pid: int
    created: float
    port: int


@dataclass(frozen=True, slots=True)
class StackState:
    """The process that started the servers, whether they outlive it, and the servers by name."""

    owner_pid: int
    detached: bool
    servers: dict[str, ServerState]


def write(data_folder: Path, stack: StackState) -> None:
    """Replace the file; a reader sees the old or the new one, never a part."""
    data_folder.mkdir(parents=True, exist_ok=True)
    draft = data_folder / f"{FILE}.{os.getpid()}"
    draft.write_text(json.dumps(asdict(stack), indent=2) + "\n")
    draft.replace(data_folder / FILE)


def read(data_folder: Path) -> StackState | None:
    """Return what is noted, or None when nothing readable is."""
    try:
        noted = json.loads((data_folder / FILE).read_text())
        servers = {name: ServerState(**server) for name, server in noted["servers"].items()}
        return StackState(noted["owner_pid"], noted["detached"], servers)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def remove(data_folder: Path) -> None:
    """Forget what is noted."""
    with contextlib.suppress(FileNotFoundError):
        (data_folder / FILE).unlink()
