"""The mappings that plans were made with, by fingerprint (rule 8)."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator import postgres_pool
from coordinator.domain.entity import Mapping
from coordinator.domain.errors import InvariantViolated
from coordinator.domain.mapping_json import mapping_as_json, mapping_from_json
from coordinator.journal.session import reading, single_statement


class JournaledMappings:
    """Remembers the live mapping in the journal, and reads older ones back."""

    def __init__(self, pool: postgres_pool.Pool, worker: int) -> None:
        self._pool = pool
        self._worker = worker
        self._known: dict[str, Mapping] = {}

    async def remember(self, mapping: Mapping) -> None:
        """Make the mapping durable before any plan of it is, and kept while this worker lives."""
        async with single_statement(self._pool) as connection:
            await connection.execute(
                "WITH needed AS (UPDATE coordinator.workers SET mapping = $1 WHERE id = $3)"
                " INSERT INTO coordinator.mappings (fingerprint, content) VALUES ($1, $2)"
                # Young again, so that it is not forgotten between this moment and the commit.
                " ON CONFLICT (fingerprint) DO UPDATE SET created_at = clock_timestamp()",
                mapping.fingerprint,
                mapping_as_json(mapping),
                self._worker,
            )
        self._known[mapping.fingerprint] = mapping

    async def load(self, fingerprints: Iterable[str]) -> dict[str, Mapping]:
        """Give the mappings of these fingerprints."""
        wanted = set(fingerprints)
        missing = wanted - self._known.keys()
        if missing:
            async with reading(self._pool) as connection:
                rows = await connection.fetch(
                    "SELECT fingerprint, content FROM coordinator.mappings"
                    " WHERE fingerprint = ANY ($1)",
                    list(missing),
                )
            for row in rows:
                self._known[row["fingerprint"]] = mapping_from_json(row["content"])
        lost = wanted - self._known.keys()
        if lost:
            raise InvariantViolated(f"the journal lacks the mappings {sorted(lost)}")
        return {fingerprint: self._known[fingerprint] for fingerprint in wanted}
