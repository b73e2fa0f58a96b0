"""The table of undo records: found, planted, marked and swept, many at a time.

The record is the barrier that makes an effect happen once (I3): it is written in the transaction
of the effect, and a tombstone in its place stops an apply that comes late (rule 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from coordinator.domain.errors import InvariantViolated, StoreBusy
from coordinator.domain.operation import Unit
from coordinator.postgres_pool import Connection

_FIND = """
SELECT unit_id, digest, state, wrote, record::text FROM coordinator.undo
WHERE journal_id = $1 AND unit_id = ANY($2::text[])
"""
_FIND_LOCKED = _FIND + " ORDER BY unit_id FOR UPDATE"
_INSERT = """
INSERT INTO coordinator.undo (journal_id, unit_id, digest, state, wrote, record)
SELECT $1, unit.id, unit.digest, 'applied', unit.wrote, convert_from(unit.record, 'UTF8')::json
FROM unnest($2::text[], $3::text[], $4::boolean[], $5::bytea[])
  AS unit(id, digest, wrote, record)
ON CONFLICT DO NOTHING
RETURNING unit_id
"""
_PLANT = """
INSERT INTO coordinator.undo (journal_id, unit_id, digest, state)
SELECT $1, unit.id, unit.digest, 'tombstone'
FROM unnest($2::text[], $3::text[]) AS unit(id, digest)
ON CONFLICT DO NOTHING
RETURNING unit_id
"""
_MARK_UNDONE = """
UPDATE coordinator.undo SET state = 'undone'
WHERE journal_id = $1 AND unit_id = ANY($2::text[]) AND state = 'applied'
RETURNING unit_id
"""
_SWEEP = "DELETE FROM coordinator.undo WHERE journal_id = $1 AND unit_id = ANY($2::text[])"


class UndoState(StrEnum):
    """What became of a branch."""

    APPLIED = "applied"
    UNDONE = "undone"
    TOMBSTONE = "tombstone"


@dataclass(frozen=True, slots=True)
class StoredUndo:
    """One row. ``record`` is JSON text, ``None`` for a tombstone."""

    digest: str
    state: UndoState
    wrote: bool
    record: str | None


@dataclass(frozen=True, slots=True)
class NewUndo:
    """A branch that is being applied, to be recorded with it."""

    unit: Unit
    wrote: bool
    record: bytes


class UndoStore:
    """The undo records of one journal in one store; always inside a transaction of the caller's."""

    def __init__(self, store: str, journal_id: str) -> None:
        self._store = store
        self._journal_id = journal_id

    async def find(self, connection: Connection, units: Sequence[Unit]) -> dict[str, StoredUndo]:
        """Read what is recorded of these units, by unit id."""
        return _by_id(await connection.fetch(_FIND, self._journal_id, [unit.id for unit in units]))

    async def insert(self, connection: Connection, records: Sequence[NewUndo]) -> None:
        """Record applied branches; `StoreBusy` for those that a tombstone has just overtaken."""
        if not records:
            return
        rows = await connection.fetch(
            _INSERT,
            self._journal_id,
            [each.unit.id for each in records],
            [each.unit.digest for each in records],
            [each.wrote for each in records],
            [each.record for each in records],
        )
        if len(rows) < len(records):
            recorded = {row[0] for row in rows}
            raise StoreBusy(
                self._store,
                "a unit is being compensated at the same time",
                frozenset(each.unit.seq for each in records if each.unit.id not in recorded),
            )

    async def plant(self, connection: Connection, units: Sequence[Unit]) -> dict[str, StoredUndo]:
        """Plant tombstones where nothing is recorded; return the other records, locked.

        Waits for an apply that is on its way, and sees what became of it: the second statement's
        snapshot comes after that wait.
        """
        rows = await connection.fetch(
            _PLANT,
            self._journal_id,
            [unit.id for unit in units],
            [unit.digest for unit in units],
        )
        if len(rows) == len(units):
            return {}
        planted = {row[0] for row in rows}
        rest = [unit.id for unit in units if unit.id not in planted]
        found = _by_id(await connection.fetch(_FIND_LOCKED, self._journal_id, rest))
        if len(found) < len(rest):
            # Swept between the two statements: nothing can be said about it in this transaction.
            raise StoreBusy(
                self._store,
                "an undo record has just been swept",
                frozenset(unit.seq for unit in units if unit.id in rest and unit.id not in found),
            )
        return found

    async def mark_undone(self, connection: Connection, unit_ids: Sequence[str]) -> None:
        """Mark locked records as undone; each must be `applied`."""
        if not unit_ids:
            return
        rows = await connection.fetch(_MARK_UNDONE, self._journal_id, unit_ids)
        if len(rows) != len(unit_ids):
            raise InvariantViolated(f"{self._store}: a locked undo record was no longer applied")

    async def sweep(self, connection: Connection, unit_ids: Sequence[str]) -> None:
        """Delete the records of units that are final for long."""
        await connection.execute(_SWEEP, self._journal_id, unit_ids)


def _by_id(rows: Sequence[tuple[str, str, str, bool, str | None]]) -> dict[str, StoredUndo]:
    return {
        unit_id: StoredUndo(digest, UndoState(state), wrote, record)
        for unit_id, digest, state, wrote, record in rows
    }
