"""What ``coordinator verify`` reads of our bookkeeping in a PostgreSQL store; nothing is locked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from coordinator.domain.discrepancies import FenceFacts, RecordFacts
from coordinator.engine.verification import Place
from coordinator.postgres_pool import Pool, connected

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
        rows = await self._fetch(_PAGE, *(after or ("",)), limit)
        return [RecordFacts(*row) for row in rows], (
            (rows[-1]["unit_id"],) if len(rows) == limit else None
        )

    async def records_of(self, ids: Collection[str]) -> Mapping[str, RecordFacts]:
        """Read the records of these units."""
        rows = await self._fetch(_OF, list(ids))
        return {row["unit_id"]: RecordFacts(*row) for row in rows}

    async def fences(self) -> Sequence[FenceFacts]:
        """Read the fences of the journal's workers here."""
        return [FenceFacts(*row) for row in await self._fetch(_FENCES)]

    async def _fetch(self, statement: str, *arguments: Any) -> Sequence[Any]:
        async with connected(self._pool, self._store) as connection:
            if not await connection.fetchval("SELECT to_regclass('coordinator.bookkeeping')"):
                return []
            rows: Sequence[Any] = await connection.fetch(statement, self._journal_id, *arguments)
        return rows
