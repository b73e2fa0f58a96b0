"""The coordinator: its daemon as a process of its own with default settings, and its client.

From `submit` to the outcome read back from Kafka, by the package that a service imports. What is
configured is where things are; nothing is tuned.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from time import perf_counter
from typing import Final, Protocol

import aiohttp

from benchmarks import child
from benchmarks.arena import Arena
from benchmarks.contenders.contender import Ended, Submit
from benchmarks.transfers import Transfer
from coordinator.client import CoordinatorClient, Outcome, Ticket
from coordinator.devstack.ports import free_port

OUTCOME_SECONDS_MAX: Final = 120.0

_CONFIG: Final = """
entities = "entities.toml"
[journal]
store = "ledger"
[kafka]
bootstrap_servers = "{kafka}"
group_id = "{name}"
[topics]
units = "{units}"
outcomes = "{outcomes}"
changes = "{name}.changes.{{entity}}"
dead_letters = "{dead_letters}"
[http]
listen = "127.0.0.1:{port}"
[stores.ledger]
kind = "postgresql"
dsn = "{postgres}"
[stores.catalog]
kind = "mongodb"
uri = "{mongodb}"
database = "{name}"
driver = "{driver}"
"""
_ENTITIES: Final = """
[account]
store = "ledger"
table = "accounts"
key = "id"
version = "version"
[account.fields]
id = { type = "integer" }
balance = { type = "decimal" }
[wallet]
store = "catalog"
collection = "wallets"
key = "_id"
version = "version"
[wallet.fields]
_id = { type = "integer" }
balance = { type = "decimal", min = 0 }
"""


class Client(Protocol):
    """How transfers reach the topic, and outcomes come back."""

    async def submit(self, transfers: Sequence[Transfer], ended: Ended) -> None:
        """Submit many; see `Submit`."""

    async def perform(self, transfer: Transfer) -> str:
        """Submit one and wait for its outcome."""


OpenClient = Callable[[Arena], AbstractAsyncContextManager[Client]]


@asynccontextmanager
async def package_client(arena: Arena) -> AsyncIterator[Client]:
    """Give the client of the package, as a service would use it."""
    async with CoordinatorClient(
        arena.kafka, units_topic=arena.topics.units, outcomes_topic=arena.topics.outcomes
    ) as client:
        yield _PackageClient(client)


class _PackageClient:
    """A `Client`."""

    def __init__(self, client: CoordinatorClient) -> None:
        self._client = client
        self._held: set[Ticket] = set()

    async def perform(self, transfer: Transfer) -> str:
        """Submit one and wait for its outcome."""
        ticket = await self._client.submit(transfer.as_unit())
        return (await self._client.outcome(ticket, OUTCOME_SECONDS_MAX)).status.value

    async def submit(self, transfers: Sequence[Transfer], ended: Ended) -> None:
        """Submit many at once."""
        began = perf_counter()
        tickets = await self._client.submit([each.as_unit() for each in transfers])
        self._held.update(tickets)
        for ticket in tickets:
            ticket.answer.final.add_done_callback(partial(self._answered, ticket, began, ended))

    def _answered(
        self, ticket: Ticket, began: float, ended: Ended, answer: Awaitable[Outcome]
    ) -> None:
        self._held.discard(ticket)
        final = ticket.answer.final
        if not final.cancelled() and final.exception() is None:  # else the client is closed
            ended(began, final.result().status.value)


class Coordinator:
    """A `Contender`."""

    missing: str | None = None

    def __init__(
        self,
        name: str = "coordinator",
        title: str = "coordinator",
        open_client: OpenClient = package_client,
    ) -> None:
        self.name = name
        self.title = title
        self._open_client = open_client

    @asynccontextmanager
    async def start(self, arena: Arena) -> AsyncIterator[RunningDaemon]:
        """Start daemon and client."""
        async with running_daemon(arena) as process, self._open_client(arena) as client:
            yield RunningDaemon(process.pid, client)


class RunningDaemon:
    """A `Running`: something that takes units from Kafka, and a client."""

    def __init__(self, pid: int, client: Client) -> None:
        self.pids: Mapping[str, int] = {"daemon": pid}
        self.submit: Submit | None = client.submit
        self.perform = client.perform


@asynccontextmanager
async def running_daemon(arena: Arena) -> AsyncIterator[child.Child]:
    """Run the coordinator's daemon in an arena; raises `ChildFailed`."""
    folder = arena.servers.folder / arena.name
    folder.mkdir(exist_ok=True)
    port = free_port()
    (folder / "entities.toml").write_text(_ENTITIES)
    config = folder / "coordinator.toml"
    config.write_text(
        _CONFIG.format(
            name=arena.name,
            kafka=arena.kafka,
            postgres=arena.postgres_dsn,
            mongodb=arena.mongodb_uri,
            units=arena.topics.units,
            outcomes=arena.topics.outcomes,
            dead_letters=arena.topics.dead_letters,
            port=port,
            driver=arena.driver,
        )
    )

    async def is_ready(_: child.Child) -> bool:
        return await _answers(f"http://127.0.0.1:{port}/readyz")

    command = ("-m", "coordinator", "run", "--config", str(config))
    async with child.running(command, folder / "daemon.log", is_ready) as process:
        yield process


async def _answers(address: str) -> bool:
    timeout = aiohttp.ClientTimeout(total=2)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(address) as response,
        ):
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
