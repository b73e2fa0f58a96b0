"""Many units at once: found by filters, counted, confirmed, and acted on one by one.

Each unit is changed by the verb that changes one, in a transaction of its own with a row in the
audit. One that has moved on meanwhile is told and left; the others go on.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import typer

from coordinator.cli.output import is_terminal, show_json, show_rows, show_text
from coordinator.cli.times import seconds_of
from coordinator.domain.lifecycle import FINAL_STATUSES, Status

if TYPE_CHECKING:
    from coordinator.engine.units_api import UnitsApi, UnitView
    from coordinator.settings import Settings

_LOOK_SECONDS: Final = 0.5
_COLUMNS: Final = ("unit", "status", "received_at", "code", "message")


@dataclass(frozen=True, slots=True)
class Filters:
    """What the units have in common, as it was typed."""

    status: Status | None
    entity: str | None
    key: str | None
    older: str | None
    younger: str | None
    code: str | None
    text: str | None

    def __post_init__(self) -> None:
        if self.key is not None and self.entity is None:
            raise typer.BadParameter("give --entity as well", param_hint="--key")

    @property
    def is_by_status_only(self) -> bool:
        """Whether nothing but perhaps the status is given."""
        return self == replace(
            self, entity=None, key=None, older=None, younger=None, code=None, text=None
        )


def select(settings: Settings, filters: Filters, limit: int) -> Sequence[Mapping[str, Any]]:
    """Give the units that pass, the oldest first."""
    from coordinator.bootstrap import selector
    from coordinator.journal.selection import UnitFilter

    wanted = UnitFilter(
        statuses=() if filters.status is None else (filters.status,),
        entity=filters.entity,
        key=filters.key,
        older_seconds=seconds_of(filters.older, "--older"),
        younger_seconds=seconds_of(filters.younger, "--younger"),
        code=filters.code,
        text=filters.text,
    )

    async def ask() -> Sequence[Mapping[str, Any]]:
        async with selector(settings) as units:
            return await units.select(wanted, limit)

    return asyncio.run(ask())


def show_units(views: Sequence[Mapping[str, Any]]) -> None:
    """Show units as rows; a person sees beside each why it was refused or parked."""
    rows = [dict(view) for view in views]
    if is_terminal():
        for row in rows:
            why = row.get("problem") or row.get("cause") or {}
            row.update(code=why.get("code"), message=why.get("message"))
    show_rows(rows, _COLUMNS, empty="There is no such unit.")


def timeline_of(settings: Settings, unit_id: str) -> Sequence[Mapping[str, Any]]:
    """Give what happened to a unit, in order."""
    from coordinator.bootstrap import selector

    async def ask() -> Sequence[Mapping[str, Any]]:
        async with selector(settings) as units:
            return await units.timeline(unit_id)

    return asyncio.run(ask())


def act_on_all(
    settings: Settings,
    filters: Filters,
    limit: int,
    what: str,
    verb: Callable[[UnitsApi, str], Awaitable[UnitView]],
    *,
    yes: bool,
    dry_run: bool,
) -> bool:
    """Do it to all units that pass; whether all were done."""
    if not (yes or dry_run or sys.stdin.isatty()):
        raise typer.BadParameter("nobody can be asked here; give --yes or --dry-run")
    views = select(settings, filters, limit)
    if dry_run or not views:
        show_units(views)
        return True
    if not yes and not typer.confirm(f"{what} {len(views)} units?", err=True):
        return False
    return asyncio.run(_act(settings, [str(view["unit"]) for view in views], verb))


async def _act(
    settings: Settings, ids: Sequence[str], verb: Callable[[UnitsApi, str], Awaitable[UnitView]]
) -> bool:
    from coordinator.bootstrap import operator
    from coordinator.engine.units_api import ActionRefused, UnitUnknown

    good = True
    async with operator(settings) as units:
        for unit_id in ids:
            detail = ""
            try:
                await verb(units, unit_id)
            except (ActionRefused, UnitUnknown) as error:
                good, detail = False, str(error)
            result = "left" if detail else "done"
            if is_terminal():
                show_text(f"{unit_id} {result}{': ' + detail if detail else ''}")
            else:
                show_json({"unit": unit_id, "result": result, "detail": detail})
    return good


async def follow_units(units: UnitsApi, ids: Sequence[str], timeout: float | None) -> bool:
    """Show each change of each unit until all are final or the time is over.

    Whether all are committed. A unit that is not known yet is waited for.
    """
    ends_at = None if timeout is None else time.monotonic() + timeout
    seen: dict[str, tuple[object, ...]] = {}
    statuses: dict[str, Status] = {}
    while True:
        for unit_id in ids:
            if statuses.get(unit_id) in FINAL_STATUSES:
                continue
            view = await units.show(unit_id)
            if view is None:
                continue
            statuses[unit_id] = Status(view["status"])
            state = (view["status"], view.get("cancel_requested"), view.get("problem"))
            if seen.get(unit_id) != state:
                seen[unit_id] = state
                _tell(view)
        if all(statuses.get(each) in FINAL_STATUSES for each in ids):
            return all(statuses[each] is Status.COMMITTED for each in ids)
        if ends_at is not None and time.monotonic() >= ends_at:
            return False
        await asyncio.sleep(_LOOK_SECONDS)


def _tell(view: UnitView) -> None:
    why = view.get("problem") or view.get("cause")
    if is_terminal():
        detail = f": {why['code']}: {why['message']}" if why else ""
        show_text(f"{view['unit']} {view['status']}{detail}")
    else:
        show_json(dict(view))
    sys.stdout.flush()
