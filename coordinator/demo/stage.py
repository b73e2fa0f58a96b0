"""Servers and daemon, set up in a folder of their own and taken away at the end.

Owns the life of everything that the demonstration starts. However it ends (done, failed, Ctrl-C,
SIGTERM), the daemon is ended, the servers are stopped and the folder is removed.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import asyncpg

from coordinator.demo.daemon import Daemon, DemoFailed, free_listen_address
from coordinator.devstack import Addresses, Devstack

CONFIG_FOLDER: Final = Path(__file__).parents[2] / "config"
DATABASE: Final = "shop"
_NAMED_BY_SERVER: Final = {"postgresql": "PostgreSQL", "mongodb": "MongoDB", "kafka": "Kafka"}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Stage:
    """What the acts play on. ``addresses.postgres_dsn`` names the shop's database."""

    addresses: Addresses
    daemon: Daemon
    folder: Path
    began: float


@contextmanager
def staged(say: Say) -> Iterator[Stage]:
    """Start the servers and prepare a daemon, not yet started; take everything away at the end.

    Raises `DevstackUnavailable` when a server cannot be had, `DemoFailed` without ``config/``.
    """
    began = time.monotonic()
    config = CONFIG_FOLDER / "coordinator.toml"
    if not config.exists():
        raise DemoFailed(f"{config} is missing; run the demonstration from a checkout.")
    folder = Path(tempfile.mkdtemp(prefix="coordinator-demo-"))
    folder.chmod(0o755)  # below root, PostgreSQL runs as another user and must get through
    try:
        stack = Devstack(folder / "servers", report=lambda line: say(_with_names(line)))
        with stack as found:
            addresses = replace(found, postgres_dsn=_with_database(found.postgres_dsn))
            daemon = Daemon(
                config, folder / "daemon.log", addresses, free_listen_address(), DATABASE
            )
            try:
                yield Stage(addresses, daemon, folder, began)
            finally:
                daemon.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def create_database(addresses: Addresses) -> None:
    """Make the shop's PostgreSQL database."""
    admin = await asyncpg.connect(_with_database(addresses.postgres_dsn, "postgres"))
    try:
        await admin.execute(f'CREATE DATABASE "{DATABASE}" STRATEGY wal_log')
    finally:
        await admin.close()


def _with_database(dsn: str, name: str = DATABASE) -> str:
    return f"{dsn.rpartition('/')[0]}/{name}"


def _with_names(line: str) -> str:
    for server, name in _NAMED_BY_SERVER.items():
        if line.startswith(server):
            return name + line.removeprefix(server)
    return line
