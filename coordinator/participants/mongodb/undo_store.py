"""Undo records in their collection: found, inserted, marked and deleted inside a transaction.

A record's ``_id`` is unique, and an insertion of one that somebody else's open transaction has
inserted fails: so of an apply and a compensation of the same unit only one can commit (rule 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from coordinator.domain.errors import InvariantViolated, StoreBusy
from coordinator.domain.operation import Unit
from coordinator.participants.mongodb.bookkeeping import UNDO
from coordinator.participants.mongodb.errors import DUPLICATE_KEY, of_reply
from coordinator.participants.mongodb.transactions import Transaction
from coordinator.participants.mongodb.undo_record import (
    Identity,
    StoredUndo,
    UndoState,
    read_record,
    record_id,
    tombstone,
)
from coordinator.participants.mongodb.writes import (
    DocumentWrite,
    Statement,
    WriteKind,
    in_order,
)

_TOMBSTONE_BYTES: Final = 1_024


class UndoRecords:
    """The undo records and tombstones of one journal in one store."""

    def __init__(self, store: str, journal_id: str) -> None:
        self._store = store
        self._journal_id = journal_id

    async def find(self, transaction: Transaction, units: Sequence[Unit]) -> dict[str, StoredUndo]:
        """Read the records and tombstones of these units, by unit id."""
        ids = self._ids(unit.id for unit in units)
        return dict(map(read_record, await transaction.find(UNDO, {"_id": {"$in": ids}})))

    def insert(self, transaction: Transaction, records: Iterable[DocumentWrite]) -> None:
        """Let records be inserted; `StoreBusy` is raised if one has come there meanwhile."""
        for statement in in_order(records):
            transaction.later(statement.command(), partial(self._check_inserted, statement))

    def _check_inserted(self, statement: Statement, reply: Mapping[str, Any]) -> None:
        errors = reply.get("writeErrors")
        if errors and errors[0].get("code") == DUPLICATE_KEY:
            seq = statement.writes[errors[0]["index"]].seq
            raise StoreBusy(
                self._store, "the unit is being ended at the same time", frozenset({seq})
            )
        if errors:
            raise of_reply(self._store, reply)

    def plant(self, transaction: Transaction, identity: Identity, units: Sequence[Unit]) -> None:
        """Let tombstones be inserted, which block a late apply."""
        self.insert(
            transaction,
            (
                DocumentWrite(
                    unit.seq,
                    0,
                    UNDO,
                    WriteKind.INSERT,
                    tombstone(identity, unit),
                    _TOMBSTONE_BYTES,
                )
                for unit in units
            ),
        )

    def mark_undone(self, transaction: Transaction, unit_ids: Sequence[str]) -> None:
        """Let records be marked as undone; each must be `applied`."""
        if not unit_ids:
            return
        ids = self._ids(unit_ids)
        update = {
            "q": {"_id": {"$in": ids}, "state": UndoState.APPLIED.value},
            "u": {"$set": {"state": UndoState.UNDONE.value}},
            "multi": True,
        }

        def took(reply: Mapping[str, Any]) -> None:
            self._check(reply)
            if reply["n"] != len(ids):
                raise InvariantViolated(f"{self._store}: an undo record was no longer applied")

        transaction.later({"update": UNDO, "updates": [update]}, took)

    def delete(self, transaction: Transaction, unit_ids: Sequence[str]) -> None:
        """Let the records of units be deleted that are final for long."""
        deletion = {"q": {"_id": {"$in": self._ids(unit_ids)}}, "limit": 0}
        transaction.later({"delete": UNDO, "deletes": [deletion]}, self._check)

    def _check(self, reply: Mapping[str, Any]) -> None:
        if reply.get("writeErrors"):
            raise of_reply(self._store, reply)

    def _ids(self, unit_ids: Iterable[str]) -> list[str]:
        return [record_id(self._journal_id, unit_id) for unit_id in unit_ids]
