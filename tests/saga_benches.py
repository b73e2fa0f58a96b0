"""Where sagas are run: the shop of the simulation in memory, and on the real servers."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pymongo

from coordinator.domain.entity import Entity
from coordinator.engine.ports import Journal, Outbox, Participant, Pivot
from coordinator.memory.journal import MemoryJournal
from coordinator.memory.journal_tables import Epoch
from coordinator.memory.link import DirectLink
from coordinator.memory.outbox import MemoryOutbox
from coordinator.memory.participant import MemoryParticipant
from coordinator.memory.pivot import MemoryPivot
from coordinator.memory.store_tables import Rows as StoredRows
from coordinator.memory.world import World
from coordinator.participants.mongodb.driver import open_driver
from coordinator.participants.mongodb.participant import MongodbParticipant
from coordinator.participants.postgresql.participant import PostgresParticipant
from coordinator.participants.postgresql.tables import Tables
from coordinator.postgres_pool import open_pool
from tests.journal_worker import JournalWorker, a_worker
from tests.sagas import Rows, announcer
from tests.simulation.shop import ARCHIVE, CATALOG, LEDGER, SHOP, first_image, open_stores

JOURNAL_ID = "journal-1"


class MemoryBench:
    """One worker in memory."""

    def __init__(self) -> None:
        tables = open_stores(random.Random(0), with_old_tags=False)
        self.world = World(
            SHOP, tables, pivot_store=LEDGER, announcer=announcer(), seconds=lambda: 0.0
        )
        worker = self.world.register(1, 60.0)
        link = DirectLink()
        self.participants: Mapping[str, Participant] = {
            name: MemoryParticipant(self.world, name, link) for name in (CATALOG, ARCHIVE)
        }
        self.pivot: Pivot = MemoryPivot(self.world, worker, link)
        self.journal: Journal = MemoryJournal(self.world, worker, link, Epoch())
        self.outbox: Outbox = MemoryOutbox(self.world, worker, 60.0, link)
        self._worker = worker

    async def open(self) -> MemoryBench:
        for participant in self.participants.values():
            await participant.enrol(self._worker, 1)
        return self

    async def put(self, rows: Rows) -> None:
        for name, tables in self.world.stores.items():
            tables.rows = StoredRows(
                {
                    at: row
                    for at, row in rows.items()
                    if row is not None and SHOP.entities[at[0]].store == name
                }
            )
        self.world.journal.outbox.clear()

    async def records(self, unit_id: str) -> Mapping[str, str]:
        return {
            name: tables.undo[unit_id].state
            for name, tables in self.world.stores.items()
            if unit_id in tables.undo
        }

    async def locks(self) -> int:
        return len(self.world.journal.locks)


def first_rows() -> Rows:
    """The rows that the shop has at first."""
    return {
        (entity.name, str(key)): first_image(entity, key, None)
        for entity in SHOP.entities.values()
        for key in range(1, 4)
    }


class RealBench:
    """One worker on real servers."""

    def __init__(
        self,
        worker: JournalWorker,
        participants: Mapping[str, Participant],
        archive: asyncpg.Connection,
        catalog: pymongo.database.Database[dict[str, Any]],
    ) -> None:
        self.participants = participants
        self.pivot: Pivot = worker.pivot
        self.journal: Journal = _Admitting(worker)  # type: ignore[assignment]
        self.outbox: Outbox = worker.outbox
        self._worker = worker
        self._archive = archive
        self._catalog = catalog

    async def put(self, rows: Rows) -> None:
        async with self._worker.pool.acquire() as ledger:
            await ledger.execute("TRUNCATE coordinator.outbox")
            await _put_tables(ledger, LEDGER, rows)
        await _put_tables(self._archive, ARCHIVE, rows)
        for entity in _entities_of(CATALOG):
            collection = self._catalog[entity.table]
            collection.delete_many({})
            documents = [
                {name: value for name, value in row.items() if value is not None}
                for at, row in rows.items()
                if at[0] == entity.name and row is not None
            ]
            if documents:
                collection.insert_many(documents)

    async def records(self, unit_id: str) -> Mapping[str, str]:
        found = {}
        state = await self._archive.fetchval(
            "SELECT state FROM coordinator.undo WHERE unit_id = $1", unit_id
        )
        if state is not None:
            found[ARCHIVE] = state
        record = self._catalog["_coordinator_undo"].find_one({"unit": unit_id})
        if record is not None:
            found[CATALOG] = record["state"]
        return found

    async def locks(self) -> int:
        count: int = await self._worker.value("SELECT count(*) FROM coordinator.locks")
        return count


class _Admitting:
    """The part of the journal that a saga needs."""

    def __init__(self, worker: JournalWorker) -> None:
        self.positions = worker.admission.positions
        self.admit = worker.admission.admit


@asynccontextmanager
async def a_real_bench(
    journal_dsn: str, archive_dsn: str, mongodb: tuple[str, str], driver: str
) -> AsyncIterator[RealBench]:
    """Make the shop's tables and collections, and a worker on them."""
    async with AsyncExitStack() as last_first:
        ledger = await asyncpg.connect(journal_dsn)
        await _make_tables(ledger, LEDGER)
        await ledger.close()
        archive = await asyncpg.connect(archive_dsn)
        last_first.callback(archive.terminate)
        await _make_tables(archive, ARCHIVE)
        client = last_first.enter_context(pymongo.MongoClient[dict[str, Any]](mongodb[0]))
        worker = await last_first.enter_async_context(
            a_worker(journal_dsn, tables=Tables(LEDGER), announcer=announcer())
        )
        await worker.mappings.remember(SHOP)
        pool = await open_pool(archive_dsn, "sagas", lock_timeout_seconds=0.3, max_size=3)
        tables = PostgresParticipant(ARCHIVE, pool, JOURNAL_ID)
        last_first.push_async_callback(tables.close)
        documents = MongodbParticipant(CATALOG, open_driver(*mongodb, driver), JOURNAL_ID)
        last_first.push_async_callback(documents.close)
        await tables.prepare()
        await documents.prepare([each.table for each in _entities_of(CATALOG)])
        participants: dict[str, Participant] = {CATALOG: documents, ARCHIVE: tables}
        for participant in participants.values():
            await participant.enrol(worker.number, 1)
        yield RealBench(worker, participants, archive, client[mongodb[1]])


def _entities_of(store: str) -> list[Entity]:
    return [each for each in SHOP.entities.values() if each.store == store]


async def _make_tables(connection: asyncpg.Connection, store: str) -> None:
    for entity in _entities_of(store):
        columns = ", ".join(f"{each.name} {each.type}" for each in entity.columns)
        await connection.execute(
            f"CREATE TABLE public.{entity.table} ({columns}, PRIMARY KEY ({entity.key}))"
        )


async def _put_tables(connection: asyncpg.Connection, store: str, rows: Rows) -> None:
    for entity in _entities_of(store):
        await connection.execute(f"TRUNCATE public.{entity.table}")
        for at, row in rows.items():
            if at[0] == entity.name and row is not None:
                places = ", ".join(f"${n}" for n in range(1, len(row) + 1))
                await connection.execute(
                    f"INSERT INTO public.{entity.table} ({', '.join(row)}) VALUES ({places})",
                    *row.values(),
                )
