"""What ``coordinator verify`` reads of our bookkeeping in a PostgreSQL store; nothing is locked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

from coordinator.domain.discrepancies import FenceFacts, RecordFacts
from coordinator.engine.verification import Place
from coordinator.postgres_pool import Connection, Pool, connected

_PAGE = """
SELECT unit_id, digest, state FROM coordinator.undo
WHERE journal_id = $1 AND unit_id > $2 ORDER BY unit_id LIMIT $3
"""
_OF = """
SELECT unit_id, digest, state FROM coordinator.undo
WHERE journal_id = $1 AND unit_id = ANY ($2::text[])
"""
_FENCES = """
SELECT worker, lane, fenced FROM coordinator.fences WHERE journal_id = $1 ORDER BY worker, lane
"""


class PostgresReader:
    """One journal's bookkeeping in one store; where there is none yet, it is empty."""

    def __init__(self, pool: Pool, store: str, journal_id: str) -> None:
        self._pool = pool
        self._store = store
        self._journal_id = journal_id

    @property
    def store(self) -> str:
        """The store's name in the configuration."""
        return self._store

    async def records(
        self, after: Place | None, limit: int
    ) -> tuple[Sequence[RecordFacts], Place | None]:
        """Read a page of undo records and tombstones, by unit id."""
        (first,) = after or ("",)
        async with self._connected() as connection:
            if connection is None:
                return [], None
            rows = await connection.fetch(_PAGE, self._journal_id, first, limit)
        last = (rows[-1]["unit_id"],) if len(rows) == limit else None
        return [RecordFacts(*row) for row in rows], last

    async def records_of(self, ids: Collection[str]) -> Mapping[str, RecordFacts]:
        """Read the records of these units."""
        async with self._connected() as connection:
            if connection is None:
                return {}
            rows = await connection.fetch(_OF, self._journal_id, list(ids))
        return {row["unit_id"]: RecordFacts(*row) for row in rows}

    async def fences(self) -> Sequence[FenceFacts]:
        """Read the fences of the journal's workers here."""
        async with self._connected() as connection:
            if connection is None:
                return []
            rows = await connection.fetch(_FENCES, self._journal_id)
        return [FenceFacts(*row) for row in rows]

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection | None]:
        """Lend a connection; None where our tables are not made yet."""
        async with connected(self._pool, self._store) as connection:
            is_there = await connection.fetchval("SELECT to_regclass('coordinator.bookkeeping')")
            yield connection if is_there else None
