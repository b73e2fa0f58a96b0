"""PostgreSQL, MongoDB and Kafka for a run, with what is needed to measure and to calm them."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
import pymongo

from coordinator.devstack import Addresses, Devstack

POSTGRESQL: Final = "PostgreSQL"
MONGODB: Final = "MongoDB"
KAFKA: Final = "Kafka"


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the servers are, and what is known of their processes.

    ``pids`` is empty, and ``kafka_data`` None, for servers that somebody else has started: their
    CPU time and Kafka's bytes are then not measured. ``folder`` is for files of the run.
    """

    addresses: Addresses
    folder: Path
    pids: Mapping[str, int] = field(default_factory=dict)
    kafka_data: Path | None = None


@contextmanager
def started(report: Callable[[str], None]) -> Iterator[Servers]:
    """Start servers of our own in a temporary folder; stop them and remove it at the end.

    Raises `DevstackUnavailable` when one cannot be had.
    """
    folder = Path(tempfile.mkdtemp(prefix="coordinator-bench-"))
    folder.chmod(0o755)  # below root, PostgreSQL runs as another user and must get through
    try:
        stack = Devstack(folder / "servers", report=report)
        with stack as addresses:
            named = {
                POSTGRESQL: stack.postgres.pid,
                MONGODB: stack.mongodb.pid,
                KAFKA: stack.kafka.pid,
            }
            yield Servers(
                addresses,
                folder,
                {name: pid for name, pid in named.items() if pid is not None},
                stack.kafka.folder / "data",
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def settle(addresses: Addresses) -> None:
    """Let the servers write out what they hold in memory, so that the next does not pay for it."""
    connection = await asyncpg.connect(addresses.postgres_dsn)
    try:
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
    await asyncio.to_thread(_flush_mongodb, addresses.mongodb_uri)


def _flush_mongodb(uri: str) -> None:
    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        client.admin.command("fsync")
