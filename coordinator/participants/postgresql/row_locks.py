"""Locking the rows that nobody else holds, and telling held rows from missing ones."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.participants.postgresql.mapped_table import Texts
from coordinator.participants.postgresql.statements import RowLock, Statements
from coordinator.postgres_pool import Connection


async def lock_rows(
    connection: Connection, statements: Statements, strength: RowLock, keys: Sequence[str]
) -> tuple[dict[int, Texts], frozenset[int]]:
    """Lock the rows of ``keys`` without waiting; one round trip, two if a row was not returned.

    Returns, by the index of the key: the rows that are locked now, at the version that is locked
    (a number first, then their texts), and which ones a stranger holds. What is in neither is
    missing: a skipped row is not a missing row, so those are read again (rule 9).
    """
    rows = await connection.fetch(statements.lock(strength), keys)
    locked: dict[int, Texts] = {row[0] - 1: row for row in rows}
    if len(locked) == len(keys):
        return locked, frozenset()
    unseen = [at for at in range(len(keys)) if at not in locked]
    found = await connection.fetch(statements.exist, [keys[at] for at in unseen])
    return locked, frozenset(unseen[row[0] - 1] for row in found)
