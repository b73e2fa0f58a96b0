"""Fills a journal with units that were finished in the last days, as if it had been at work.

They are copies of one that the daemon has really finished, with ids and times of their own: so
their rows are as large as real ones, and every index has its share.
"""

from __future__ import annotations

from typing import Final

import asyncpg

from benchmarks.arena import Arena
from benchmarks.contenders.coordinator import Coordinator
from benchmarks.transfers import uncontended

_DAYS: Final = 6  # less than the retention, or they would be swept
_COLUMNS: Final = {
    "seq": "u.seq + n",
    "id": "'old-' || n",
    "digest": "md5(n::text) || md5((-n)::text)",
    "received_at": "u.received_at - ($1 - n) * ($2::int * interval '1 day') / $1",
    "deadline_at": "u.deadline_at - ($1 - n) * ($2::int * interval '1 day') / $1",
    "finished_at": "u.finished_at - ($1 - n) * ($2::int * interval '1 day') / $1",
    '"offset"': 'u."offset" - n',
    "swept": "true",
}
_COPIED: Final = (
    *("status", "worker", "mapping", "plan", "stores", "topic", "partition", "metadata"),
    *("reply_to", "traceparent", "outcome"),
)


async def fill(arena: Arena, units: int) -> int:
    """Add so many finished units; give how many transfers were really made for it."""
    (transfer,) = uncontended().take(f"{arena.name}-first", 1)
    async with Coordinator().start(arena) as running:
        status = await running.perform(transfer)
        if status != "committed":
            raise RuntimeError(f"the first transfer has ended as {status!r}")
    columns = [*_COLUMNS, *_COPIED]
    values = [*_COLUMNS.values(), *(f"u.{name}" for name in _COPIED)]
    connection = await asyncpg.connect(arena.postgres_dsn)
    try:
        await connection.execute(
            f"INSERT INTO coordinator.units ({', '.join(columns)})"
            f" SELECT {', '.join(values)}"
            " FROM coordinator.units u, generate_series(1, $1::bigint) n WHERE u.id = $3",
            units,
            _DAYS,
            transfer.id,
        )
        await connection.execute("UPDATE coordinator.journal SET last_seq = last_seq + $1", units)
        await connection.execute("VACUUM ANALYZE coordinator.units")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
    return 1
