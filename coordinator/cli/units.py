"""``coordinator units``: see and steer units, straight on the journal, daemon or not (F41)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from coordinator.cli.configuration import Config, Overrides, load
from coordinator.cli.output import show_record, show_rows
from coordinator.domain.lifecycle import Status

if TYPE_CHECKING:
    from coordinator.engine.units_api import UnitsApi

T = TypeVar("T")

units_app = typer.Typer(
    help="See and steer units, whether the daemon runs or not.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

UnitId = Annotated[str, typer.Argument(metavar="ID", help="The unit's id.")]
Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the log.")]
_COLUMNS = ("unit", "status", "received_at", "code", "message")


@units_app.command("list")
def list_units(
    status: Annotated[Status | None, typer.Option(help="Only units of this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 100,
    config: Config = None,
    set_: Overrides = None,
) -> None:
    """List units, the oldest first."""
    wanted = None if status is None else status.value
    views = _ask(config, set_, lambda units: units.list(wanted, limit))
    show_rows([dict(view) for view in views], _COLUMNS, empty="There is no such unit.")


@units_app.command("show")
def show_unit(unit_id: UnitId, config: Config = None, set_: Overrides = None) -> None:
    """Show one unit with its outcome; exit code 1 when it is not known."""
    from coordinator.engine.units_api import UnitUnknown

    view = _ask(config, set_, lambda units: units.show(unit_id))
    if view is None:
        raise UnitUnknown(unit_id)
    show_record(view)


@units_app.command("retry")
def retry_unit(
    unit_id: UnitId, reason: Reason = None, config: Config = None, set_: Overrides = None
) -> None:
    """Let the compensation of a parked unit run again."""
    show_record(_ask(config, set_, lambda units: units.retry(unit_id, reason)))


@units_app.command("resolve")
def resolve_unit(
    unit_id: UnitId,
    as_: Annotated[str, typer.Option("--as", metavar="STATUS", help="Only: compensated.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="What was done by hand.")],
    config: Config = None,
    set_: Overrides = None,
) -> None:
    """End a parked unit whose undoing was done by hand."""
    if as_ != Status.COMPENSATED:
        raise typer.BadParameter(
            "a parked unit can be resolved as compensated only", param_hint="--as"
        )
    if not reason.strip():
        raise typer.BadParameter("say what was done", param_hint="--reason")
    show_record(_ask(config, set_, lambda units: units.resolve(unit_id, as_, reason)))


@units_app.command("cancel")
def cancel_unit(
    unit_id: UnitId, reason: Reason = None, config: Config = None, set_: Overrides = None
) -> None:
    """Ask for the end of a unit that is not committed yet."""
    show_record(_ask(config, set_, lambda units: units.cancel(unit_id, reason)))


def _ask(
    config: Path | None, overrides: list[str] | None, question: Callable[[UnitsApi], Awaitable[T]]
) -> T:
    from coordinator.bootstrap import operator

    settings = load(config, overrides)

    async def ask() -> T:
        async with operator(settings) as units:
            return await question(units)

    return asyncio.run(ask())
