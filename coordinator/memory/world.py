"""The world that all workers share: the journal's database and the stores, on one clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from coordinator.domain.announce import Announcer
from coordinator.domain.entity import Mapping as EntityMapping
from coordinator.domain.operation import Unit
from coordinator.domain.plan_json import plan_from_json
from coordinator.engine.ports import OpenUnit
from coordinator.memory.journal_tables import JournalTables, UnitRow, WorkerRow
from coordinator.memory.store_tables import StoreTables
from coordinator.memory.witness import NoWitness, Witness

EPOCH = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class World:
    """The databases. ``seconds`` is the journal's clock, in seconds since `EPOCH`."""

    def __init__(
        self,
        mapping: EntityMapping,
        stores: Iterable[StoreTables],
        *,
        pivot_store: str | None,
        announcer: Announcer,
        seconds: Callable[[], float],
        witness: Witness | None = None,
    ) -> None:
        self.mapping = mapping
        self.stores = {each.name: each for each in stores}
        self.pivot_store = pivot_store
        self.announcer = announcer
        self.journal = JournalTables(mappings={mapping.fingerprint: mapping})
        self.witness: Witness = witness or NoWitness()
        self._seconds = seconds

    def now(self) -> datetime:
        """The journal's time."""
        return EPOCH + timedelta(seconds=self._seconds())

    def register(self, lanes: int, lease_ttl_seconds: float) -> int:
        """Make a new worker with a fresh lease; give its number."""
        number = self.journal.workers_drawn = self.journal.workers_drawn + 1
        expires_at = self.now() + timedelta(seconds=lease_ttl_seconds)
        self.journal.workers[number] = WorkerRow(number, lanes, expires_at)
        return number

    def unit_of(self, row: UnitRow) -> Unit:
        """Read a unit back from its row."""
        mapping = self.journal.mappings[row.mapping]
        return Unit(
            seq=row.seq,
            id=row.id,
            digest=row.digest,
            plan=plan_from_json(row.plan, mapping),
            mapping=mapping,
            received_at=row.received_at,
            deadline_at=row.deadline_at,
            metadata=row.metadata,
            reply_to=row.reply_to,
            traceparent=row.traceparent,
            origin=row.origin,
            size_bytes=len(row.plan) + len(row.metadata or b""),
        )

    def open_unit(self, row: UnitRow) -> OpenUnit:
        """Read an open unit back from its row."""
        return OpenUnit(self.unit_of(row), row.status, row.cause, row.cancel_requested)
