"""What a load costs: CPU time by process, commits and bytes by server.

A `Reading` is taken before and after; `cost` is the difference, per unit. What is read where:

* **CPU**: user and system time of a process with all its children. PostgreSQL has a process per
  connection, and they come and go: those that have gone are in their parent's account of children
  it has waited for, those that are there are added.
* **Commits in PostgreSQL**: transactions that have written something, counted by their ids.
  ``pg_stat_database`` would count those that only read as well, but each session tells it only
  once a second.
* **Commits in MongoDB**: transactions; for those that use none, each update is one of its own.
* **Bytes**: the write-ahead log, MongoDB's journal, the segments of Kafka's topics.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import asyncpg
import psutil
import pymongo

from benchmarks.servers import KAFKA, MONGODB, POSTGRESQL, Servers

CLIENT: Final = "client"
_LOOKS_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything that only ever grows, at one moment. Seconds, counts and bytes by name."""

    at: float
    cpu: Mapping[str, float]
    machine_cpu: float
    commits: Mapping[str, int]
    single_updates: int
    bytes_written: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Cost:
    """What one unit has cost. ``others``: the share of the machine that somebody else has used."""

    cpu_us: Mapping[str, float]
    commits: Mapping[str, float]
    bytes_written: Mapping[str, float]
    others: float


def cost(before: Reading, after: Reading, units: int) -> Cost:
    """Give what lies between two readings, per unit."""
    cpu = {name: after.cpu[name] - before.cpu[name] for name in after.cpu}
    machine = after.machine_cpu - before.machine_cpu
    possible = (after.at - before.at) * (psutil.cpu_count() or 1)
    commits = dict(_per_unit(before.commits, after.commits, units))
    if commits[MONGODB] == 0:
        commits[MONGODB] = (after.single_updates - before.single_updates) / units
    return Cost(
        cpu_us={name: seconds / units * 1e6 for name, seconds in cpu.items()},
        commits=commits,
        bytes_written=_per_unit(before.bytes_written, after.bytes_written, units),
        others=max(0.0, machine - sum(cpu.values())) / possible,
    )


def _per_unit(
    before: Mapping[str, int], after: Mapping[str, int], units: int
) -> Mapping[str, float]:
    return {name: (after[name] - before[name]) / units for name in after}


class Meter:
    """Reads the servers and the processes of one contender."""

    def __init__(
        self,
        servers: Servers,
        connection: asyncpg.Connection,
        client: pymongo.MongoClient[dict[str, Any]],
        pids: Mapping[str, int],
    ) -> None:
        self._servers = servers
        self._connection = connection
        self._client = client
        self._families = {
            name: psutil.Process(pid) for name, pid in {**pids, **servers.pids}.items()
        }
        self._own = [self._families[name] for name in pids]
        self._client_process = psutil.Process()

    async def before(self) -> Reading:
        """Read before a load: CPU time last, so that the reading is not in it."""
        counters = await self._counters()
        return Reading(perf_counter(), self._cpu(), _machine_cpu(), *counters)

    async def after(self) -> Reading:
        """Read after a load: CPU time first."""
        at, cpu, machine_cpu = perf_counter(), self._cpu(), _machine_cpu()
        return Reading(at, cpu, machine_cpu, *await self._counters())

    def memory_bytes(self) -> int | None:
        """Give what the contender's own processes hold; None when it has none."""
        return sum(each.memory_info().rss for each in self._own) or None

    def _cpu(self) -> dict[str, float]:
        # The servers are children of the client: it is taken without them.
        times = self._client_process.cpu_times()
        seconds = {CLIENT: float(times.user + times.system)}
        return seconds | {name: cpu_seconds(each) for name, each in self._families.items()}

    async def _counters(self) -> tuple[dict[str, int], int, dict[str, int]]:
        transactions, wal = await self._connection.fetchrow(
            "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint,"
            " (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint"
        )
        status = await asyncio.to_thread(self._client.admin.command, "serverStatus")
        written = {
            POSTGRESQL: int(wal),
            MONGODB: int(status["wiredTiger"]["log"]["log bytes written"]),
        }
        if self._servers.kafka_data is not None:
            written[KAFKA] = await asyncio.to_thread(_segment_bytes, self._servers.kafka_data)
        committed = int(status["transactions"]["totalCommitted"])
        updates = int(status["metrics"]["commands"]["update"]["total"])
        return {POSTGRESQL: int(transactions), MONGODB: committed}, updates, written


@asynccontextmanager
async def opened(servers: Servers, pids: Mapping[str, int]) -> AsyncIterator[Meter]:
    """Connect to the servers; ``pids`` are the contender's own processes."""
    connection = await asyncpg.connect(servers.addresses.postgres_dsn)
    client = pymongo.MongoClient[dict[str, Any]](servers.addresses.mongodb_uri)
    try:
        yield Meter(servers, connection, client, pids)
    finally:
        client.close()
        await connection.close()


def cpu_seconds(process: psutil.Process) -> float:
    """Give the CPU time of a process with all the children that it has and had.

    Looked at until no child has come or gone meanwhile, so that none is counted twice or never.
    """
    seconds = 0.0
    for _ in range(_LOOKS_MAX):
        children = process.children(recursive=True)
        try:
            seconds = _own_seconds(process) + sum(map(_own_seconds, children))
        except psutil.NoSuchProcess:
            continue
        if process.children(recursive=True) == children:
            break
    return seconds


def _own_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def _machine_cpu() -> float:
    """The time that all processors have worked for anybody."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def _segment_bytes(folder: Path) -> int:
    total = 0
    for segment in folder.rglob("*.log"):
        try:
            total += segment.stat().st_size
        except FileNotFoundError:  # of a topic that was deleted
            continue
    return total
