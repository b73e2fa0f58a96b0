"""``python -m tests.chaos.recovery``: how fast a daemon takes over from one that was killed.

Two daemons with the default lease of 15 s. First the figure to compare with: the throughput of
one alone. Then both work on a rush of transfers, and one gets SIGKILL when it has at least a
thousand units in flight. Measured: when the other finishes the first of them, how fast it then
works on another rush, and when all is final. Figures of one machine at one moment: compare ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from coordinator.client import CoordinatorClient
from coordinator.devstack import Addresses, Devstack
from tests.acceptance.harness.daemon import Daemon
from tests.acceptance.harness.operations import adding
from tests.acceptance.harness.waiting import until
from tests.acceptance.harness.world import World
from tests.chaos import bank
from tests.chaos.history import Json
from tests.servers import Servers

LEASE_SECONDS = 15.0
IN_FLIGHT = 1_000
RUSH = 10_000
WARM_UP = 1_000
ACCOUNTS = 10_000
BEGINS_AFTER_LEASE_SECONDS = 5.0
ALL_FINAL_SECONDS = 60.0
RATIO_MIN = 0.8
PATIENCE_SECONDS = 180.0

_OPEN = "SELECT seq FROM coordinator.units WHERE worker = $1 AND finished_at IS NULL"
_ENDS = "SELECT min(finished_at), max(finished_at) FROM coordinator.units WHERE seq = ANY($1)"
_LAST_OF = "SELECT max(finished_at) FROM coordinator.units WHERE id LIKE $1"


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured. Times in seconds from the kill, rates in units per second."""

    lease_seconds: float
    in_flight: int
    began_after: float
    ended_after: float
    all_ended_after: float
    alone: float
    with_two: float
    after: float
    not_committed: int


async def measure(
    servers: Servers | Addresses,
    folder: Path,
    *,
    lease_seconds: float = LEASE_SECONDS,
    rush: int = RUSH,
    in_flight: int = IN_FLIGHT,
) -> Figures:
    """Kill one of two daemons in the middle of a rush, and measure the other."""
    async with _one_daemon(servers, folder, lease_seconds) as (world, client):
        await _work_off(client, "warm", WARM_UP)
        alone = await _work_off(client, "alone", rush)
        victim = await _second(world)
        with_two = await _work_off(client, "two", rush)
        worker = await world.ledger.fetchval("SELECT max(id) FROM coordinator.workers")
        tickets = await client.submit(_transfers("rush", rush))
        await _has_in_flight(world, worker, in_flight)
        victim.send(signal.SIGKILL)
        await victim.ended()
        killed_at: datetime = await world.ledger.fetchval("SELECT clock_timestamp()")
        left = await world.ledger.fetch(_OPEN, worker)
        seqs = [row["seq"] for row in left]
        await _first_has_ended(world, seqs, lease_seconds)
        after = await _work_off(client, "after", rush)
        outcomes = await client.outcomes(tickets, PATIENCE_SECONDS)
        first, last = await world.ledger.fetchrow(_ENDS, seqs)
        all_ended = await world.ledger.fetchval(_LAST_OF, "rush-%")
        return Figures(
            lease_seconds=lease_seconds,
            in_flight=len(seqs),
            began_after=(first - killed_at).total_seconds(),
            ended_after=(last - killed_at).total_seconds(),
            all_ended_after=(all_ended - killed_at).total_seconds(),
            alone=alone,
            with_two=with_two,
            after=after,
            not_committed=sum(not outcome.committed for outcome in outcomes),
        )


@asynccontextmanager
async def _one_daemon(
    servers: Servers | Addresses, folder: Path, lease_seconds: float
) -> AsyncIterator[tuple[World, CoordinatorClient]]:
    world = World(servers, folder)
    world.entities = dict(bank.ENTITIES)
    try:
        await world.prepare({"worker": {"lease_ttl_seconds": lease_seconds}})
        await bank.seed(world, 2 * ACCOUNTS)
        await world.start()
        async with CoordinatorClient(
            world.topics.bootstrap,
            units_topic=world.topics.units,
            outcomes_topic=world.topics.outcomes_topic,
        ) as client:
            yield world, client
    finally:
        for daemon in world.others:
            daemon.kill()
        await world.close()


async def _second(world: World) -> Daemon:
    """Start another daemon and wait until both read some of the partitions."""
    second = await world.another_daemon()

    async def is_shared() -> bool:
        held = [daemon.logs("intake.assigned") for daemon in (world.daemon, second)]
        return all(lines and 0 < len(lines[-1]["partitions"]) < 4 for lines in held)

    await until(is_shared, "the partitions are shared", 60, second.tail)
    return second


async def _work_off(client: CoordinatorClient, name: str, count: int) -> float:
    """Submit so many transfers at once; units per second until the last outcome."""
    began = time.perf_counter()
    tickets = await client.submit(_transfers(name, count))
    await client.outcomes(tickets, PATIENCE_SECONDS)
    return count / (time.perf_counter() - began)


def _transfers(name: str, count: int) -> list[Json]:
    return [
        {
            "id": f"{name}-{number}",
            "timeout_ms": 600_000,
            "operations": [
                adding("account", number % ACCOUNTS, balance="-0.01"),
                adding("wallet", ACCOUNTS + (number * 7) % ACCOUNTS, balance="0.01"),
            ],
        }
        for number in range(count)
    ]


async def _has_in_flight(world: World, worker: int, count: int) -> None:
    async def look() -> bool:
        return len(await world.ledger.fetch(_OPEN, worker)) >= count

    await until(look, f"worker {worker} has {count} units in flight", 60, world.daemon.tail)


async def _first_has_ended(world: World, seqs: list[int], lease_seconds: float) -> None:
    async def look() -> bool:
        first, _ = await world.ledger.fetchrow(_ENDS, seqs)
        return first is not None

    await until(look, "units are taken over", lease_seconds + 60, world.daemon.tail)


def mistakes(figures: Figures) -> list[str]:
    """Say which figures are not as promised."""
    found = []
    if figures.began_after > figures.lease_seconds + BEGINS_AFTER_LEASE_SECONDS:
        found.append(f"the first was finished {figures.began_after:.1f} s after the kill")
    if figures.all_ended_after > ALL_FINAL_SECONDS:
        found.append(f"the last was finished {figures.all_ended_after:.1f} s after the kill")
    if figures.not_committed:
        found.append(f"{figures.not_committed} did not commit")
    if figures.after < RATIO_MIN * figures.alone:
        found.append(f"it works at {figures.after / figures.alone:.0%} of what it did alone")
    return found


def show(console: Console, figures: Figures) -> None:
    """Print the figures."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for what, figure in {
        "units in flight at the killed daemon": f"{figures.in_flight:,}",
        f"the other finishes the first of them (lease {figures.lease_seconds:g} s)": (
            f"{figures.began_after:.1f} s after the kill"
        ),
        "and the last of them": f"{figures.ended_after:.1f} s",
        "all units of the rush are final": f"{figures.all_ended_after:.1f} s",
        "throughput of one daemon alone": f"{figures.alone:,.0f} units/s",
        "of two": f"{figures.with_two:,.0f} units/s",
        "of the one that is left": (
            f"{figures.after:,.0f} units/s, {figures.after / figures.alone:.0%} of alone"
        ),
        "not committed": str(figures.not_committed),
    }.items():
        table.add_row(what, figure)
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.recovery")
    parser.add_argument("--lease", type=float, default=LEASE_SECONDS, help="seconds of the lease")
    parser.add_argument("--rush", type=int, default=RUSH, help="units that are sent at once")
    given = parser.parse_args(arguments)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="coordinator-recovery-") as name:
        folder = Path(name)
        with Devstack(folder / "servers") as addresses:
            figures = asyncio.run(
                measure(addresses, folder, lease_seconds=given.lease, rush=given.rush)
            )
    console = Console(highlight=False)
    show(console, figures)
    found = mistakes(figures)
    for each in found:
        console.print(f"NOT AS PROMISED: {each}")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
