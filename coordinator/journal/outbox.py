"""The outbox and the relay's lease.

Rows are claimed by being there, never by following the id: an id that is drawn early may become
visible late. Its order is right all the same, per key: the id of a row is drawn after the row
locks of its units, and a unit on the same key is concluded only after the former has committed.

What changes the outbox is conditional on the relay's row naming this worker, and holds that row
while it changes (I8): a relay that lost its lease without knowing stores and deletes nothing. An
expired lease that nobody has taken is still enough.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from coordinator import postgres_pool
from coordinator.domain.errors import StoreBusy
from coordinator.domain.publishing import Message
from coordinator.engine.ports import JOURNAL
from coordinator.journal.fresh_rows import FreshRows
from coordinator.journal.packing import pack, unpack
from coordinator.journal.session import reading, single_statement

ROWS_COUNTED_MAX = 100_000
"""More rows are not counted: after a long outage of Kafka the count would be work itself (I12)."""

_LEADING = "WITH lease AS MATERIALIZED (SELECT FROM coordinator.relay WHERE worker = $1 FOR SHARE)"
_WHETHER_LEADING = "SELECT EXISTS (SELECT FROM lease)"


@dataclass(frozen=True, slots=True)
class Unpublished:
    """How much the whole outbox holds, whichever worker wrote it, and how old the oldest row is."""

    rows: int
    oldest_age_seconds: float


class JournalOutbox:
    """What the relay of one worker reads and deletes."""

    def __init__(
        self,
        pool: postgres_pool.Pool,
        worker: int,
        lease_ttl_seconds: float,
        fresh_rows: FreshRows,
    ) -> None:
        self._pool = pool
        self._worker = worker
        self._ttl = lease_ttl_seconds
        self._fresh_rows = fresh_rows

    async def hold_lease(self) -> bool:
        """Take or renew the relay's lease; whether it is ours until its TTL has passed."""
        async with single_statement(self._pool) as connection:
            held = await connection.fetchval(
                "UPDATE coordinator.relay r SET worker = $1,"
                " expires_at = clock_timestamp() + $2::float8 * interval '1 second'"
                " WHERE (r.worker = $1 OR r.expires_at < clock_timestamp()"
                "   OR NOT EXISTS (SELECT 1 FROM coordinator.heartbeats h"
                "                  WHERE h.worker = r.worker))"
                " AND EXISTS (SELECT 1 FROM coordinator.workers w"
                "             WHERE w.id = $1 AND NOT w.fenced) RETURNING true",
                self._worker,
                self._ttl,
            )
        self._fresh_rows.relay(bool(held))
        return bool(held)

    async def release_lease(self) -> None:
        """Let the lease expire now if it is ours, so that another relay goes on at once."""
        async with single_statement(self._pool) as connection:
            await connection.execute(
                "UPDATE coordinator.relay SET expires_at = '-infinity' WHERE worker = $1",
                self._worker,
            )

    async def claim(
        self, rows_max: int, skip: Collection[int] = ()
    ) -> Sequence[tuple[int, Sequence[Message]]]:
        """Read the oldest rows in id order but those in ``skip``; they stay until deleted."""
        fresh = self._fresh_rows.known()
        async with reading(self._pool) as connection:
            rows = await connection.fetch(
                "SELECT id, CASE WHEN id <> ALL ($3) THEN messages END AS messages"
                " FROM coordinator.outbox WHERE id <> ALL ($2) ORDER BY id LIMIT $1",
                rows_max,
                list(skip),
                list(fresh),
            )
        return [(row, fresh[row] if packed is None else unpack(packed)) for row, packed in rows]

    async def delete(self, rows: Sequence[int]) -> None:
        """Delete rows whose messages were all acknowledged or set aside.

        Raises `StoreBusy`, like the other two that change something, when another worker relays.
        """
        await self._change(
            "DELETE FROM coordinator.outbox WHERE id = ANY ($2) AND EXISTS (SELECT FROM lease)",
            list(rows),
        )
        self._fresh_rows.drop(rows)

    async def set_aside(self, topic: str, messages: Sequence[Message]) -> None:
        """Keep the messages of a topic that refuses under its own queue.

        Their rows stay: they may hold messages of other topics, and go by `delete` alone.
        """
        await self._change(
            "INSERT INTO coordinator.outbox_aside (topic, message)"
            " SELECT $2, m.message FROM unnest($3::bytea[]) WITH ORDINALITY AS m(message, at)"
            " WHERE EXISTS (SELECT FROM lease) ORDER BY m.at",
            topic,
            [pack([message]) for message in messages],
        )

    async def claim_aside(self, topic: str, limit: int) -> Sequence[tuple[int, Message]]:
        """Read the oldest messages that were set aside for a topic, in order."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch(
                "SELECT id, message FROM coordinator.outbox_aside WHERE topic = $1"
                " ORDER BY id LIMIT $2",
                topic,
                limit,
            )
        return [(row["id"], unpack(row["message"])[0]) for row in rows]

    async def delete_aside(self, ids: Sequence[int]) -> None:
        """Delete set-aside messages that were acknowledged."""
        await self._change(
            "DELETE FROM coordinator.outbox_aside"
            " WHERE id = ANY ($2) AND EXISTS (SELECT FROM lease)",
            list(ids),
        )

    async def topics_aside(self) -> frozenset[str]:
        """The topics that have messages set aside."""
        async with reading(self._pool) as connection:
            rows = await connection.fetch("SELECT DISTINCT topic FROM coordinator.outbox_aside")
        return frozenset(row["topic"] for row in rows)

    async def unpublished(self) -> Unpublished:
        """Count the rows, up to `ROWS_COUNTED_MAX`; changes nothing.

        By the key alone, since a scan would read all that a long queue has left in the table.
        What is set aside for a topic that refuses is not in it.
        """
        async with reading(self._pool) as connection:
            row = await connection.fetchrow(
                "SELECT count(*) AS rows, coalesce(extract(epoch FROM clock_timestamp()"
                " - (SELECT created_at FROM coordinator.outbox ORDER BY id LIMIT 1)), 0)::float8"
                " AS age FROM (SELECT id FROM coordinator.outbox ORDER BY id LIMIT $1) AS first",
                ROWS_COUNTED_MAX,
            )
        return Unpublished(row["rows"], max(0.0, row["age"]))

    async def _change(self, statement: str, *arguments: object) -> None:
        """Run one statement that depends on ``lease`` for its effect."""
        async with single_statement(self._pool) as connection:
            leading = await connection.fetchval(
                f"{_LEADING}, change AS ({statement}) {_WHETHER_LEADING}",
                self._worker,
                *arguments,
            )
        if not leading:
            raise StoreBusy(JOURNAL, "Another worker relays the outbox; nothing was changed.")
