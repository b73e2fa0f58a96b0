"""``coordinator units``: see and steer units, straight on the journal, daemon or not (F41)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from coordinator.cli.configuration import Config, Overrides, load
from coordinator.cli.output import show_record
from coordinator.cli.unit_batches import (
    Filters,
    act_on_all,
    follow_units,
    select,
    show_units,
    timeline_of,
)
from coordinator.domain.lifecycle import Status

if TYPE_CHECKING:
    from coordinator.engine.units_api import UnitsApi, UnitView

T = TypeVar("T")

units_app = typer.Typer(
    help="See and steer units, whether the daemon runs or not.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

UnitId = Annotated[str, typer.Argument(metavar="ID", help="The unit's id.")]
OneOrAll = Annotated[
    str | None, typer.Argument(metavar="[ID]", help="The unit's id; without it give --all.")
]
Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the log.")]
Every = Annotated[bool, typer.Option("--all", help="All units that pass the filters.")]
OfStatus = Annotated[Status | None, typer.Option("--status", help="Only units of this status.")]
OfEntity = Annotated[
    str | None, typer.Option("--entity", help="Only units with operations or references there.")
]
OfKey = Annotated[str | None, typer.Option("--key", help="With --entity: only on this key.")]
Older = Annotated[
    str | None, typer.Option("--older", metavar="SPAN", help="Accepted before: 90s, 15m, 2h, 7d.")
]
Younger = Annotated[
    str | None, typer.Option("--younger", metavar="SPAN", help="Accepted since: 90s, 15m, 2h, 7d.")
]
OfCode = Annotated[
    str | None, typer.Option("--code", help="Only units that were refused or parked for it.")
]
OfText = Annotated[
    str | None, typer.Option("--text", help="Only units whose id or reasons hold this text.")
]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="With --all: do not ask.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="With --all: only tell which units it would be.")
]


@units_app.command("list")
def list_units(
    *,
    status: OfStatus = None,
    entity: OfEntity = None,
    key: OfKey = None,
    older: Older = None,
    younger: Younger = None,
    code: OfCode = None,
    text: OfText = None,
    limit: Limit = 100,
    config: Config = None,
    set_: Overrides = None,
) -> None:
    """List units, the oldest first."""
    filters = Filters(status, entity, key, older, younger, code, text)
    if filters.is_by_status_only:
        wanted = None if status is None else status.value
        views = _ask(config, set_, lambda units: units.list(wanted, limit))
    else:
        views = select(load(config, set_), filters, limit)
    show_units(views)


@units_app.command("show")
def show_unit(
    unit_id: UnitId,
    timeline: Annotated[
        bool, typer.Option("--timeline", help="Show also what happened to it, in order.")
    ] = False,
    config: Config = None,
    set_: Overrides = None,
) -> None:
    """Show one unit with its outcome; exit code 1 when it is not known."""
    from coordinator.engine.units_api import UnitUnknown

    view = _ask(config, set_, lambda units: units.show(unit_id))
    if view is None:
        raise UnitUnknown(unit_id)
    if timeline:
        view = {**view, "timeline": timeline_of(load(config, set_), unit_id)}
    show_record(view)


@units_app.command("follow")
def follow(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The units' ids.")],
    timeout: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="How long at most [default: for ever]."),
    ] = None,
    config: Config = None,
    set_: Overrides = None,
) -> None:
    """Show every change of units until all are final; exit code 0 when all are committed."""
    following = _ask(config, set_, lambda units: follow_units(units, ids, timeout))
    raise typer.Exit(0 if following else 1)


@units_app.command("retry")
def retry_unit(
    unit_id: OneOrAll = None,
    *,
    reason: Reason = None,
    every: Every = False,
    entity: OfEntity = None,
    key: OfKey = None,
    older: Older = None,
    younger: Younger = None,
    code: OfCode = None,
    text: OfText = None,
    limit: Limit = 1000,
    yes: Yes = False,
    dry_run: DryRun = False,
    config: Config = None,
    set_: Overrides = None,
) -> None:
    """Let the compensation of a parked unit, or of many, run again."""
    filters = Filters(Status.PARKED, entity, key, older, younger, code, text)
    _one_or_all(
        config,
        set_,
        unit_id,
        every,
        filters,
        lambda units, each: units.retry(each, reason),
        what="Retry",
        limit=limit,
        yes=yes,
        dry_run=dry_run,
    )


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
    unit_id: OneOrAll = None,
    *,
    reason: Reason = None,
    every: Every = False,
    entity: OfEntity = None,
    key: OfKey = None,
    older: Older = None,
    younger: Younger = None,
    text: OfText = None,
    limit: Limit = 1000,
    yes: Yes = False,
    dry_run: DryRun = False,
    config: Config = None,
    set_: Overrides = None,
) -> None:
    """Ask for the end of a unit, or of many, that are not committed yet."""
    filters = Filters(Status.ACCEPTED, entity, key, older, younger, None, text)
    _one_or_all(
        config,
        set_,
        unit_id,
        every,
        filters,
        lambda units, each: units.cancel(each, reason),
        what="Cancel",
        limit=limit,
        yes=yes,
        dry_run=dry_run,
    )


def _one_or_all(
    config: Path | None,
    overrides: list[str] | None,
    unit_id: str | None,
    every: bool,
    filters: Filters,
    verb: Callable[[UnitsApi, str], Awaitable[UnitView]],
    *,
    what: str,
    limit: int,
    yes: bool,
    dry_run: bool,
) -> None:
    if (unit_id is None) != every:
        raise typer.BadParameter("give the id of a unit, or --all with filters")
    if unit_id is not None:
        if yes or dry_run or not filters.is_by_status_only:
            raise typer.BadParameter("filters, --yes and --dry-run go with --all")
        show_record(_ask(config, overrides, lambda units: verb(units, unit_id)))
        return
    done = act_on_all(load(config, overrides), filters, limit, what, verb, yes=yes, dry_run=dry_run)
    raise typer.Exit(0 if done else 1)


def _ask(
    config: Path | None, overrides: list[str] | None, question: Callable[[UnitsApi], Awaitable[T]]
) -> T:
    from coordinator.bootstrap import operator

    settings = load(config, overrides)

    async def ask() -> T:
        async with operator(settings) as units:
            return await question(units)

    return asyncio.run(ask())
