"""The straight line as a contender: its process, and the leanest client there is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks import child
from benchmarks.arena import Arena
from benchmarks.contenders.coordinator import RunningDaemon
from benchmarks.contenders.lean_client import lean_client
from benchmarks.straight_line import READY


class StraightLine:
    """A `Contender`."""

    name = "straight-line"
    title = "straight line, no logic"
    missing: str | None = None

    @asynccontextmanager
    async def start(self, arena: Arena) -> AsyncIterator[RunningDaemon]:
        """Start its process and a client."""
        places = {
            "postgres": arena.postgres_dsn,
            "mongodb": arena.mongodb_uri,
            "database": arena.name,
            "kafka": arena.kafka,
            "units": arena.topics.units,
            "outcomes": arena.topics.outcomes,
            "accounts": arena.topics.accounts,
            "wallets": arena.topics.wallets,
        }

        async def is_ready(process: child.Child) -> bool:
            return process.said(READY)

        command = ("-m", "benchmarks.straight_line", json.dumps(places))
        log = arena.servers.folder / f"{arena.name}.log"
        async with (
            child.running(command, log, is_ready) as process,
            lean_client(arena) as client,
        ):
            yield RunningDaemon(process.pid, client)
