"""One daemon with its own databases, topics and configuration, and everything to look at them."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pymongo
from pymongo.database import Database

from coordinator.devstack import Addresses
from tests.acceptance.harness import mapping
from tests.acceptance.harness.config_text import config_text, merge
from tests.acceptance.harness.daemon import Daemon
from tests.acceptance.harness.topics import Header, Place, Record, Topics
from tests.servers import Servers

if TYPE_CHECKING:
    from tests.guarded import Guarded

Json = dict[str, Any]
_REPOSITORY = Path(__file__).parents[3]
_numbers = itertools.count(1)


class World:
    """A configuration, its databases and topics, and the daemon in it.

    ``ledger`` and ``archive`` are connections in autocommit (one at a time; take `connect` for an
    outsider that holds a transaction), ``catalog`` is the MongoDB database.
    """

    ledger: asyncpg.Connection
    archive: asyncpg.Connection

    def __init__(self, servers: Servers | Addresses | Guarded, folder: Path) -> None:
        self.servers = servers
        self.name = f"acc{uuid.uuid4().hex[:10]}"
        self.folder = folder
        self.entities = mapping.entities()
        self.dsn_of = {
            store: _dsn(servers.postgres_dsn, f"{self.name}_{store}")
            for store in ("ledger", "archive", "journal")
        }
        self._admin_dsn = servers.postgres_dsn
        self.mongodb_uri = servers.mongodb_uri
        self._mongo = pymongo.MongoClient[Json](servers.mongodb_uri)
        self.catalog: Database[Json] = self._mongo[self.name]
        self.address = f"127.0.0.1:{free_port()}"
        self.topics = Topics(servers.kafka_bootstrap, f"{self.name}.", self._tail)
        self.settings: Json = self._default_settings()
        self.daemon = Daemon(folder / "coordinator.toml", folder / "daemon.log", self.address)
        self.others: list[Daemon] = []
        self.placed: dict[str, Json] = {}
        self._databases: list[str] = []
        self._connections: list[asyncpg.Connection] = []

    def _default_settings(self) -> Json:
        topics = self.topics
        return {
            "entities": "entities.toml",
            "journal": {"store": "ledger"},
            "kafka": {
                "bootstrap_servers": topics.bootstrap,
                "group_id": self.name,
            },
            "topics": {
                "units": topics.units,
                "outcomes": topics.outcomes_topic,
                "changes": topics.changes_topic("{entity}"),
                "dead_letters": topics.dead_letters_topic,
                "reply_to": [topics.replies_topic],
            },
            "http": {"listen": self.address},
            "stores": {
                "ledger": {"kind": "postgresql", "dsn": self.dsn_of["ledger"]},
                "archive": {"kind": "postgresql", "dsn": self.dsn_of["archive"]},
                "catalog": {
                    "kind": "mongodb",
                    "uri": self.mongodb_uri,
                    "database": self.name,
                },
            },
        }

    def _tail(self) -> str:
        return self.daemon.tail()

    # --- life -----------------------------------------------------------------------------------

    async def prepare(self, overrides: Json | None = None) -> None:
        """Make databases, tables, the reply topic and the configuration; start nothing.

        `overrides` is merged into the configuration, member by member; None takes one away. So is
        what `COORDINATOR_ACCEPTANCE` holds as JSON, such as the other MongoDB driver. Entities of
        a store that is taken away go with it.
        """
        merge(self.settings, overrides or {})
        merge(self.settings, json.loads(os.environ.get("COORDINATOR_ACCEPTANCE", "{}")))
        stores = self.settings["stores"]
        for name in [name for name, each in self.entities.items() if each["store"] not in stores]:
            del self.entities[name]
        self.write_config()
        await self._make_database("ledger", mapping.LEDGER_SQL)
        await self._make_database("archive", mapping.ARCHIVE_SQL)
        await self._make_database("journal", "SELECT 1")
        self.ledger = await self.connect("ledger")
        self.archive = await self.connect("archive")
        await self.ledger.execute(mapping.SAMPLES_SQL.format(table="app.samples"))
        await self.archive.execute(mapping.SAMPLES_SQL.format(table="specimens"))
        for collection, validator in mapping.VALIDATORS.items():
            self.catalog.create_collection(collection, validator=validator)
        for collection, field in mapping.UNIQUE_INDEXES.items():
            self.catalog[collection].create_index(
                field, unique=True, partialFilterExpression={field: {"$exists": True}}
            )

    async def start(self) -> None:
        """Start the daemon, wait until it is ready, begin to read the topics."""
        present = await self.topics.names()
        if self.topics.replies_topic not in present:
            await self.topics.create({self.topics.replies_topic: {}})
        try:
            await self.daemon.start()
        except BaseException:
            self.daemon.kill()
            raise
        await self.open_topics()

    async def open_topics(self) -> None:
        """Begin to read the topics, which the daemon has made."""
        await self.topics.open(
            [
                self.topics.outcomes_topic,
                self.topics.dead_letters_topic,
                self.topics.replies_topic,
                *(self.topics.changes_topic(entity) for entity in self.entities),
            ]
        )

    async def close(self) -> None:
        """Stop the daemon, which must go well, and take everything away."""
        async with AsyncExitStack() as last_first:
            last_first.callback(self._mongo.close)
            last_first.push_async_callback(self._drop)
            for connection in self._connections:
                last_first.callback(connection.terminate)
            last_first.push_async_callback(self.topics.close)
            for daemon in (self.daemon, *self.others):
                last_first.callback(daemon.kill)
            for daemon in (self.daemon, *self.others):
                if daemon.exit_code() is None:
                    await daemon.stop()

    async def _drop(self) -> None:
        admin = await asyncpg.connect(self._admin_dsn)
        try:
            for name in self._databases:
                await admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        finally:
            await admin.close()
        self._mongo.drop_database(self.name)

    async def _make_database(self, store: str, sql: str) -> None:
        name = f"{self.name}_{store}"
        admin = await asyncpg.connect(self._admin_dsn)
        try:
            await admin.execute(f'CREATE DATABASE "{name}" STRATEGY wal_log')
        finally:
            await admin.close()
        self._databases.append(name)
        connection = await asyncpg.connect(self.dsn_of[store])
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    def write_config(self) -> None:
        """Write coordinator.toml and entities.toml as the settings and entities are now."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "coordinator.toml").write_text(config_text(self.settings))
        (self.folder / "entities.toml").write_text(config_text(self.entities))

    async def another_daemon(self) -> Daemon:
        """Start one more daemon beside the first: the same group, stores and topics."""
        address = f"127.0.0.1:{free_port()}"
        config = self.folder / f"coordinator-{len(self.others) + 2}.toml"
        config.write_text(config_text(self.settings | {"http": {"listen": address}}))
        other = Daemon(config, config.with_suffix(".log"), address)
        self.others.append(other)
        await other.start()
        return other

    # --- stores ---------------------------------------------------------------------------------

    async def connect(self, store: str) -> asyncpg.Connection:
        """Give one more connection to a PostgreSQL store; closed with the world."""
        connection = await asyncpg.connect(self.dsn_of[store])
        self._connections.append(connection)
        return connection

    async def row(self, table: str, key: Any, store: str = "ledger") -> Json | None:
        """Give a row of a table whose key column is `id`, as PostgreSQL holds it."""
        connection = self.ledger if store == "ledger" else self.archive
        found = await connection.fetchrow(f"SELECT * FROM {table} WHERE id = $1", key)
        return None if found is None else dict(found)

    def doc(self, collection: str, key: Any) -> Json | None:
        """Give a document, raw."""
        return self.catalog[collection].find_one({"_id": key})

    async def journaled(self, unit_id: str) -> bool:
        """Whether the journal knows the unit's id (F2)."""
        has_its_own = "dsn" in self.settings["journal"]
        connection = await self.connect("journal" if has_its_own else "ledger")
        found = await connection.fetchval(
            "SELECT count(*) FROM coordinator.units WHERE id = $1", unit_id
        )
        await connection.close()
        return bool(found)

    # --- units ----------------------------------------------------------------------------------

    async def submit(
        self, *operations: Json, id: str | None = None, key: str | None = None, **members: Any
    ) -> str:
        """Submit a unit of the operations and give its id."""
        return (await self.place(*operations, id=id, key=key, **members))[0]

    async def place(
        self,
        *operations: Json,
        id: str | None = None,
        key: str | None = None,
        headers: Sequence[Header] = (),
        partition: int | None = None,
        **members: Any,
    ) -> tuple[str, Place]:
        """Submit a unit; give its id and where it stands."""
        unit_id = id or new_id()
        body = {"id": unit_id, "operations": list(operations), **members}
        self.placed[unit_id] = body
        at = await self.topics.submit(body, key=key, headers=headers, partition=partition)
        return unit_id, at

    async def run(
        self, *operations: Json, id: str | None = None, key: str | None = None, **members: Any
    ) -> Json:
        """Submit a unit and give the JSON of its first outcome of any kind."""
        unit_id = await self.submit(*operations, id=id, key=key, **members)
        return await self.result(unit_id, "any")

    async def result(self, unit_id: str, kind: str = "final", seconds: float = 20.0) -> Json:
        """Wait for an outcome and give its JSON."""
        outcome: Json = (await self.topics.outcome(unit_id, kind, seconds=seconds)).json
        return outcome

    async def results(self, unit_ids: Sequence[str], kind: str = "final") -> list[Json]:
        """Wait for the outcomes of many units, in the order of their ids."""
        return [await self.result(each, kind) for each in unit_ids]

    async def committed(self, *operations: Json, **members: Any) -> list[Record]:
        """Run a unit that must commit, and give its change events (at least one)."""
        outcome = await self.run(*operations, **members)
        assert outcome["status"] == "committed", outcome
        writes = [each for each in outcome["operations"] if each.get("applied", True)]
        return await self.topics.changes(outcome["unit"], len(writes))

    async def settled(self) -> None:
        """Return when all that was submitted before is admitted and what it caused is read.

        A unit is put on each partition of the units' topic; it is admitted after all before it.
        """
        ids = []
        for partition in range(4):
            unit_id, _ = await self.place(
                {"op": "insert", "entity": "sample", "key": new_id(), "values": {}},
                partition=partition,
            )
            ids.append(unit_id)
        await self.results(ids)
        await self.topics.caught_up()

    async def cli(
        self, *arguments: str, check: bool = True, config: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the product, with this world's configuration unless another is given."""
        done = await asyncio.to_thread(
            subprocess.run,
            [
                *(sys.executable, "-m", "coordinator", *arguments),
                *("--config", str(config or self.daemon.config)),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=_REPOSITORY,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done}"
        return done


def new_id() -> str:
    """Give an id that no other test has."""
    return f"u-{uuid.uuid4().hex[:12]}"


def new_number() -> int:
    """Give an integer key that no other test of this run has."""
    return 1_000_000 + next(_numbers)


def free_port() -> int:
    """Give a port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _dsn(admin: str, database: str) -> str:
    address, _, parameters = admin.partition("?")
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}/{database}" + (
        f"?{parameters}" if parameters else ""
    )
