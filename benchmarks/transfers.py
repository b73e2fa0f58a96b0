"""Transfers through Kafka: the latency of one unit alone, and ten thousand submitted at once.

``python -m benchmarks.transfers`` starts PostgreSQL, MongoDB, Kafka and one daemon in a temporary
folder. A transfer debits an account in PostgreSQL and credits a wallet in MongoDB, each with a
version, and publishes two change events and an outcome. Measured from submit to the outcome read
back from Kafka, by one client on the same machine; the CPU time is the daemon's own.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import asyncpg
import psutil
import pymongo
from bson import Decimal128, Int64

from coordinator.client import CoordinatorClient
from coordinator.devstack import Addresses, Devstack
from coordinator.devstack.ports import free_port

ACCOUNTS = 10_000
ALONE = 300
AT_ONCE = 10_000
WARM_UP = 1_000
START = 1_000

_CONFIG = """
entities = "entities.toml"
[journal]
store = "ledger"
[kafka]
bootstrap_servers = "{kafka}"
[http]
listen = "127.0.0.1:{port}"
[stores.ledger]
kind = "postgresql"
dsn = "{postgres}"
[stores.catalog]
kind = "mongodb"
uri = "{mongodb}"
database = "bench"
driver = "{driver}"
"""
_ENTITIES = """
[account]
store = "ledger"
table = "accounts"
key = "id"
version = "version"
[account.fields]
id = { type = "integer" }
balance = { type = "decimal", min = 0 }
[wallet]
store = "catalog"
collection = "wallets"
key = "_id"
version = "version"
[wallet.fields]
_id = { type = "integer" }
balance = { type = "decimal", min = 0 }
"""


def transfer(unit_id: str, number: int) -> dict[str, Any]:
    """A unit that moves 1 from an account to a wallet."""
    debit = {"op": "update", "entity": "account", "key": number, "increment": {"balance": "-1"}}
    wallet = (number * 7) % ACCOUNTS
    credit = {"op": "update", "entity": "wallet", "key": wallet, "increment": {"balance": "1"}}
    return {"id": unit_id, "timeout_ms": 600_000, "operations": [debit, credit]}


async def seed(addresses: Addresses) -> None:
    """Make the accounts and the wallets."""
    connection = await asyncpg.connect(addresses.postgres_dsn)
    await connection.execute(
        "CREATE TABLE accounts (id int PRIMARY KEY, balance numeric(12,2) NOT NULL,"
        " version int NOT NULL)"
    )
    await connection.execute(
        "INSERT INTO accounts SELECT n, $1::int, 1 FROM generate_series(0, $2::int - 1) n",
        START,
        ACCOUNTS,
    )
    await connection.close()
    with pymongo.MongoClient[dict[str, Any]](addresses.mongodb_uri) as client:
        client["bench"]["wallets"].insert_many(
            {"_id": Int64(n), "balance": Decimal128("0"), "version": Int64(1)}
            for n in range(ACCOUNTS)
        )


@contextmanager
def daemon(folder: Path, addresses: Addresses, driver: str) -> Iterator[psutil.Process]:
    """Run one daemon until the block ends."""
    port = free_port()
    (folder / "entities.toml").write_text(_ENTITIES)
    config = folder / "coordinator.toml"
    config.write_text(
        _CONFIG.format(
            kafka=addresses.kafka_bootstrap,
            postgres=addresses.postgres_dsn,
            mongodb=addresses.mongodb_uri,
            port=port,
            driver=driver,
        )
    )
    with (folder / "daemon.log").open("wb") as log:
        command = [sys.executable, "-m", "coordinator", "run", "--config", str(config)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _await_ready(port, process)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(35)


def _await_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the daemon did not become ready")


async def run(client: CoordinatorClient, count: int, name: str) -> float:
    """Submit so many transfers at once; seconds until the last outcome. All must commit."""
    began = time.perf_counter()
    tickets = await client.submit([transfer(f"{name}-{n}", n % ACCOUNTS) for n in range(count)])
    outcomes = await asyncio.gather(*(client.outcome(ticket, 300) for ticket in tickets))
    seconds = time.perf_counter() - began
    statuses = Counter(str(outcome.status) for outcome in outcomes)
    if statuses != {"committed": count}:
        raise SystemExit(f"not all committed: {statuses}")
    return seconds


async def alone(client: CoordinatorClient, count: int) -> list[float]:
    """One transfer after the other; seconds of each."""
    seconds = []
    for number in range(count):
        began = time.perf_counter()
        ticket = await client.submit(transfer(f"alone-{number}", number))
        await client.outcome(ticket, 60)
        seconds.append(time.perf_counter() - began)
    return seconds


async def measure(addresses: Addresses, process: psutil.Process) -> None:
    """Run everything and print it."""
    async with CoordinatorClient(addresses.kafka_bootstrap) as client:
        await run(client, WARM_UP, "warm")
        seconds = [each * 1000 for each in await alone(client, ALONE)]
        p99 = quantiles(seconds, n=100)[98]
        print(f"one unit alone       p50 {median(seconds):6.1f} ms   p99 {p99:6.1f} ms")
        before = process.cpu_times()
        took = await run(client, AT_ONCE, "rush")
        after = process.cpu_times()
        cpu = (after.user + after.system - before.user - before.system) / AT_ONCE * 1e6
        print(f"{AT_ONCE:,} at once       {AT_ONCE / took:6.0f} units/s   daemon {cpu:.0f} µs/unit")
        print(f"daemon's memory      {process.memory_info().rss / 2**20:6.0f} MiB")


def main() -> int:
    """Start the servers, measure, clean up."""
    driver = os.environ.get("COORDINATOR_BENCH_DRIVER", "motor")
    with tempfile.TemporaryDirectory() as name, Devstack(Path(name) / "servers") as addresses:
        asyncio.run(seed(addresses))
        with daemon(Path(name), addresses, driver) as process:
            print(f"driver {driver}, load of the machine {os.getloadavg()[0]:.1f}")
            asyncio.run(measure(addresses, process))
    return 0


if __name__ == "__main__":
    sys.exit(main())
