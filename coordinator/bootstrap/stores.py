"""The stores opened: catalogs read, the mapping resolved, a participant for each but the pivot's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from coordinator import postgres_pool
from coordinator.bootstrap import interim_mapping
from coordinator.bootstrap.journal import JournalAccess
from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.engine.ports import Participant
from coordinator.journal.workers import application_name
from coordinator.participants.postgresql.participant import PostgresParticipant
from coordinator.participants.postgresql.tables import Tables
from coordinator.settings import PostgresqlStore, Settings


@dataclass(frozen=True, slots=True)
class Stores:
    """The open stores of one worker.

    ``pivot_store`` is the one whose database holds the journal; its tables are written by the
    pivot and it has no participant.
    """

    mapping: EntityMapping
    participants: Mapping[str, Participant]
    pivot_store: str | None
    pivot_tables: Tables | None

    async def enrol(self, worker: int, lanes: int) -> None:
        """Make this worker's fences at every participant."""
        await asyncio.gather(*(each.enrol(worker, lanes) for each in self.participants.values()))

    async def close(self) -> None:
        """Let the connections go."""
        await asyncio.gather(*(each.close() for each in self.participants.values()))


async def open_stores(settings: Settings, journal: JournalAccess) -> Stores:
    """Resolve the mapping and open the participants."""
    pools = {}
    for name, store in settings.stores.items():
        if isinstance(store, PostgresqlStore):
            pools[name] = await postgres_pool.open_pool(
                store.dsn.get_secret_value(), application_name(journal.worker)
            )
    connections = {name: await pool.acquire() for name, pool in pools.items()}
    mapping = await interim_mapping.load(settings, connections)
    for name, pool in pools.items():
        await pool.release(connections[name])
    participants: dict[str, Participant] = {}
    for name, store in settings.stores.items():
        if name == settings.journal.store:
            continue
        if isinstance(store, PostgresqlStore):
            one = PostgresParticipant(name, pools[name], journal.journal_id)
            await one.prepare()
            participants[name] = one
        else:
            from coordinator.participants.mongo_interim import open_participant

            participants[name] = await open_participant(name, store, journal, mapping)
    pivot = settings.journal.store
    return Stores(mapping, participants, pivot, None if pivot is None else Tables(pivot))
