"""What an operator may ask about units: the port behind ``/v1/units`` and ``coordinator units``.

`coordinator.journal.operators` implements it; the daemon and the commands use it
alike, because everything that a person does works on the journal's rows (F41).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from coordinator.domain.errors import CoordinatorError

UnitView = Mapping[str, Any]
"""At least ``unit``, ``status`` and ``outcome`` (None while there is none), JSON-ready."""


class UnitUnknown(CoordinatorError):
    """No unit of this id is in the journal."""

    def __init__(self, unit_id: str) -> None:
        super().__init__(f"There is no unit {unit_id}.")
        self.unit_id = unit_id


class ActionRefused(CoordinatorError):
    """The unit's status does not allow this, such as a retry of one that is not parked."""


class UnitsApi(Protocol):
    """Units as an operator sees and steers them. All may raise `StoreUnavailable`."""

    async def show(self, unit_id: str) -> UnitView | None:
        """Give one unit, or None when the journal does not know it."""

    async def list(self, status: str | None, limit: int) -> Sequence[UnitView]:
        """Give up to ``limit`` units, the oldest first; all statuses when ``status`` is None."""

    async def retry(self, unit_id: str, reason: str | None) -> UnitView:
        """Let a parked unit's compensation run again. Raises `UnitUnknown`, `ActionRefused`."""

    async def resolve(self, unit_id: str, as_status: str, reason: str) -> UnitView:
        """End a parked unit that a person has put right (F11). Raises as `retry`."""

    async def cancel(self, unit_id: str, reason: str | None) -> UnitView:
        """Ask for the compensation of a unit that is not committed (F8). Raises as `retry`."""
