"""What the straight line writes to PostgreSQL: two statements for a batch, and one to clean up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from benchmarks.straight_line.units import Batch, Image

_SCHEMA: Final = """
CREATE SCHEMA straight;
CREATE TABLE straight.units (
    seq         bigint PRIMARY KEY,
    id          text COLLATE "C" NOT NULL UNIQUE,
    digest      text NOT NULL,
    status      text NOT NULL,
    plan        bytea NOT NULL,
    received_at timestamptz NOT NULL,
    partition   int NOT NULL,
    "offset"    bigint NOT NULL,
    outcome     bytea,
    finished_at timestamptz
) WITH (fillfactor = 60);
CREATE TABLE straight.locks (
    entity    text COLLATE "C" NOT NULL,
    key       text COLLATE "C" NOT NULL,
    seq       bigint NOT NULL,
    exclusive boolean NOT NULL,
    PRIMARY KEY (entity, key, seq)
);
CREATE INDEX ON straight.locks (seq);
CREATE TABLE straight.positions (
    partition   int PRIMARY KEY,
    next_offset bigint NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE straight.outbox (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    messages bytea NOT NULL
);
-- Compressing it would take longer than writing it.
ALTER TABLE straight.outbox ALTER messages SET STORAGE EXTERNAL;
"""

_ADMIT: Final = """
WITH added AS (
    INSERT INTO straight.units
        (seq, id, digest, status, plan, received_at, partition, "offset")
    SELECT u.seq, u.id, u.digest, 'accepted', u.plan, clock_timestamp(), u.partition, u.off
    FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bytea[], $5::int[], $6::bigint[])
        AS u(seq, id, digest, plan, partition, off)
), locked AS (
    INSERT INTO straight.locks
    SELECT 'account', l.key, l.seq, true FROM unnest($1::bigint[], $7::text[]) AS l(seq, key)
    UNION ALL
    SELECT 'wallet', l.key, l.seq, true FROM unnest($1::bigint[], $8::text[]) AS l(seq, key)
), moved AS (
    INSERT INTO straight.positions
    SELECT * FROM unnest($9::int[], $10::bigint[])
    ON CONFLICT (partition) DO UPDATE SET next_offset = excluded.next_offset
)
SELECT clock_timestamp()
"""

_LOAD: Final = """
SELECT a.balance::text, a.version, (a.balance - w.amount)::text
FROM unnest($1::int[], $2::text[]::numeric[]) WITH ORDINALITY AS w(id, amount, at)
JOIN accounts a ON a.id = w.id ORDER BY w.at
"""

_PIVOT: Final = """
WITH written AS (
    UPDATE accounts a SET balance = a.balance - w.amount, version = a.version + 1
    FROM unnest($1::int[], $2::text[]::numeric[]) AS w(id, amount) WHERE a.id = w.id
    RETURNING 1
), ended AS (
    UPDATE straight.units u
    SET status = 'committed', outcome = w.outcome, finished_at = clock_timestamp()
    FROM unnest($3::bigint[], $4::bytea[]) AS w(seq, outcome) WHERE u.seq = w.seq
    RETURNING 1
), released AS (
    DELETE FROM straight.locks WHERE seq = ANY ($3::bigint[])
), outbox AS (
    INSERT INTO straight.outbox (messages) VALUES ($5) RETURNING id
)
SELECT outbox.id, (SELECT count(*) FROM written), (SELECT count(*) FROM ended) FROM outbox
"""

_CLEAN: Final = "DELETE FROM straight.outbox WHERE id = ANY ($1)"


class Journal:
    """A connection per stage, so that stages do not wait for each other."""

    def __init__(
        self,
        admitting: asyncpg.Connection,
        loading: asyncpg.Connection,
        pivoting: asyncpg.Connection,
        cleaning: asyncpg.Connection,
    ) -> None:
        self._admitting = admitting
        self._loading = loading
        self._pivoting = pivoting
        self._cleaning = cleaning

    async def admit(self, units: Batch) -> None:
        """Make units, locks and positions durable."""
        positions: dict[int, int] = {}
        for unit in units:
            positions[unit.partition] = unit.offset + 1
        at = await self._admitting.fetchval(
            _ADMIT,
            [unit.seq for unit in units],
            [unit.id for unit in units],
            [unit.digest for unit in units],
            [unit.value for unit in units],
            [unit.partition for unit in units],
            [unit.offset for unit in units],
            [str(unit.account) for unit in units],
            [str(unit.wallet) for unit in units],
            list(positions),
            list(positions.values()),
        )
        for unit in units:
            unit.received_at = at

    async def load(self, units: Batch) -> None:
        """Read the accounts, and what they will be."""
        rows = await self._loading.fetch(
            _LOAD, [unit.account for unit in units], [unit.amount for unit in units]
        )
        for unit, (before, version, after) in zip(units, rows, strict=True):
            unit.account_before = Image(before, version)
            unit.account_after = Image(after, version + 1)

    async def pivot(self, units: Batch, messages: bytes) -> int:
        """Write the rows, end the units, release the locks; give the outbox row."""
        outbox_row, written, ended = await self._pivoting.fetchrow(
            _PIVOT,
            [unit.account for unit in units],
            [unit.amount for unit in units],
            [unit.seq for unit in units],
            [unit.outcome for unit in units],
            messages,
        )
        if not written == ended == len(units):
            raise RuntimeError(f"of {len(units)} units {written} rows and {ended} units changed")
        return int(outbox_row)

    async def clean(self, rows: list[int]) -> None:
        """Delete outbox rows that were published."""
        await self._cleaning.execute(_CLEAN, rows)


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[Journal]:
    """Make the tables, and connect."""
    settings = {"synchronous_commit": "on", "jit": "off", "plan_cache_mode": "force_generic_plan"}
    connections = [await asyncpg.connect(dsn, server_settings=settings) for _ in range(4)]
    try:
        await connections[0].execute(_SCHEMA)
        yield Journal(*connections)
    finally:
        for connection in connections:
            connection.terminate()
