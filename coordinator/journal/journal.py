"""The engine's `Journal` port of one worker, put together from its parts."""

from __future__ import annotations

from coordinator import postgres_pool
from coordinator.domain.announce import Announcer
from coordinator.journal.admission import JournalAdmission
from coordinator.journal.duties import JournalDuties
from coordinator.journal.epoch import Epoch
from coordinator.journal.mappings import JournaledMappings
from coordinator.journal.readings import JournalReadings
from coordinator.journal.session import reading


class WorkersJournal(JournalAdmission, JournalReadings, JournalDuties):
    """Admission, readings and duties over one pool; a `coordinator.engine.ports.Journal`."""

    def __init__(
        self,
        pool: postgres_pool.Pool,
        worker: int,
        announcer: Announcer,
        mappings: JournaledMappings,
        epoch: Epoch,
        pivot_store: str | None,
    ) -> None:
        JournalAdmission.__init__(self, pool, worker, pivot_store, epoch)
        JournalReadings.__init__(self, pool, worker)
        JournalDuties.__init__(self, pool, worker, announcer, mappings)

    async def ping(self) -> None:
        """Answer if the journal is reachable and writable."""
        async with reading(self._pool) as connection:
            await connection.execute("SELECT coordinator.hold_fence($1)", self._worker)
