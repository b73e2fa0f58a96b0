"""What persons did with dead letters: claimed before they are put back, audited, never twice."""

from __future__ import annotations

import getpass
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from coordinator import postgres_pool
from coordinator.domain.letters import Place
from coordinator.journal.session import reading, single_statement

_PLACES = "unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[])"
_JOINED = '(l.topic, l.partition, l."offset", l.timestamp_ms) = (p.topic, p.partition, p.at, p.ms)'


class Handling(StrEnum):
    """What became of a letter. ``replaying`` is in doubt: it may have been put back or not."""

    REPLAYING = "replaying"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


class Handled(NamedTuple):
    """Who did what with a letter, and when."""

    state: Handling
    who: str
    at: datetime


class JournalLetters:
    """The letters that persons have handled."""

    def __init__(self, pool: postgres_pool.Pool, who: str | None = None) -> None:
        self._pool = pool
        self._who = who or getpass.getuser()

    async def handled(self, places: Collection[Place]) -> Mapping[Place, Handled]:
        """Tell which of them were handled."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(
                'SELECT l.topic, l.partition, l."offset", l.timestamp_ms, l.state, l.who, l.at'
                f" FROM {_PLACES} AS p(topic, partition, at, ms)"
                f" JOIN coordinator.letters l ON {_JOINED}",
                *_columns(list(places)),
            )
        return {
            Place(*tuple(row)[:4]): Handled(Handling(row["state"]), row["who"], row["at"])
            for row in rows
        }

    async def claim(
        self, places: Sequence[Place], state: Handling, reason: str | None, *, again: bool
    ) -> frozenset[Place]:
        """Note that these are about to be put back, or discarded; give those that are ours to.

        Durable on return, with a row in the audit for each. One that somebody has handled before
        is not given, unless ``again``: then only one that somebody else claims at the same time.
        """
        async with single_statement(self._pool) as connection:
            rows = await connection.fetch(
                "WITH claimed AS ("
                " INSERT INTO coordinator.letters AS l"
                '  (topic, partition, "offset", timestamp_ms, state, who)'
                f" SELECT p.topic, p.partition, p.at, p.ms, $5, $6"
                f" FROM {_PLACES} AS p(topic, partition, at, ms)"
                ' ON CONFLICT (topic, partition, "offset", timestamp_ms) DO UPDATE'
                "  SET state = excluded.state, who = excluded.who, at = clock_timestamp() WHERE $8"
                ' RETURNING topic, partition, "offset", timestamp_ms),'
                " audited AS (INSERT INTO coordinator.audit (who, action, unit, reason)"
                "  SELECT $6, CASE $5 WHEN 'discarded' THEN 'dead-letters discard'"
                "   ELSE 'dead-letters replay' END,"
                "   c.topic || '/' || c.partition || '/' || c.\"offset\", $7 FROM claimed c)"
                " SELECT * FROM claimed",
                *_columns(places),
                state.value,
                self._who,
                reason,
                again,
            )
        return frozenset(Place(*row) for row in rows)

    async def replayed(self, places: Sequence[Place]) -> None:
        """Note that Kafka has acknowledged them."""
        async with single_statement(self._pool) as connection:
            await connection.execute(
                "UPDATE coordinator.letters l SET state = 'replayed', at = clock_timestamp()"
                f" FROM {_PLACES} AS p(topic, partition, at, ms) WHERE {_JOINED}",
                *_columns(places),
            )

    async def release(self, places: Sequence[Place]) -> None:
        """Forget a claim: it is known that Kafka has not taken them."""
        async with single_statement(self._pool) as connection:
            await connection.execute(
                "DELETE FROM coordinator.letters l"
                f" USING {_PLACES} AS p(topic, partition, at, ms)"
                f" WHERE {_JOINED} AND l.state = 'replaying'",
                *_columns(places),
            )


def _columns(places: Sequence[Place]) -> tuple[list[object], ...]:
    return (
        [each.topic for each in places],
        [each.partition for each in places],
        [each.offset for each in places],
        [each.timestamp_ms for each in places],
    )
