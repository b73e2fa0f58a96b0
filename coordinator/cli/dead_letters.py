"""``coordinator dead-letters``: look at what could not be read, put it back, or let it be."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from coordinator.cli.configuration import Config, Overrides, load
from coordinator.cli.output import is_terminal, show_json, show_record, show_rows, show_text
from coordinator.cli.times import milliseconds_since

if TYPE_CHECKING:
    from coordinator.bootstrap.letters import DeadLetters, Wanted
    from coordinator.domain.letters import Letter

T = TypeVar("T")

dead_letters_app = typer.Typer(
    help="Records that could not be read as units.", no_args_is_help=True, rich_markup_mode=None
)

Code = Annotated[str | None, typer.Option(help="Only letters of this code.")]
Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Only younger ones: 90s, 15m, 2h, 7d, or an RFC 3339 time."),
]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")]
Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="[LETTER]...", help="Which, as PARTITION/OFFSET; else give --all."),
]
Every = Annotated[bool, typer.Option("--all", help="All that are open and pass the filters.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")]
Why = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the audit.")]
_COLUMNS = ("letter", "state", "code", "origin", "value_bytes", "message")


@dead_letters_app.command("list")
def list_letters(
    code: Code = None,
    since: Since = None,
    limit: Limit = 100,
    open_: Annotated[
        bool, typer.Option("--open", help="Not those that were replayed or discarded.")
    ] = False,
    value: Annotated[bool, typer.Option("--value", help="Show values too, cut short.")] = False,
    config: Config = None,
    set_: Overrides = None,
) -> None:
    """List dead letters, in order per partition."""
    from coordinator.bootstrap.letters import Wanted, view

    wanted = Wanted(
        code=code, since_ms=milliseconds_since(since, "--since"), limit=limit, open_only=open_
    )
    found = _ask(config, set_, lambda letters: letters.select(wanted))
    rows = [view(letter, handled, _LISTED_BYTES if value else None) for letter, handled in found]
    columns = (*_COLUMNS, "value") if value else _COLUMNS
    show_rows(rows, columns, empty="There is no such dead letter.")


@dead_letters_app.command("show")
def show_letter(
    letter: Annotated[str, typer.Argument(metavar="LETTER", help="PARTITION/OFFSET.")],
    value: Annotated[bool, typer.Option("--value", help="Show the value too.")] = False,
    bytes_: Annotated[
        int, typer.Option("--bytes", min=1, max=67_108_864, help="How much of the value.")
    ] = 2_000,
    config: Config = None,
    set_: Overrides = None,
) -> None:
    """Show one dead letter; exit code 1 when it is not there."""
    from coordinator.bootstrap.letters import Wanted, view

    wanted = Wanted(ids=[_id(letter)])
    ((found, handled),) = _ask(config, set_, lambda letters: letters.select(wanted))
    show_record(view(found, handled, bytes_ if value else None))


@dead_letters_app.command("replay")
def replay(
    ids: Ids = None,
    *,
    every: Every = False,
    code: Code = None,
    since: Since = None,
    limit: Limit = 100,
    again: Annotated[
        bool, typer.Option("--again", help="Also what was put back, or discarded, before.")
    ] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    reason: Why = None,
    config: Config = None,
    set_: Overrides = None,
) -> None:
    """Put records back where they came from, byte for byte; exit code 1 when one is not."""
    wanted = _wanted(ids, every, code, since, limit, open_only=not again)

    async def work(letters: DeadLetters, found: list[Letter]) -> bool:
        good = True
        async for told in letters.replay(found, reason, again=again):
            good = good and told["result"] == "replayed"
            _tell(told)
        return good

    _change(config, set_, wanted, "Put back", work, yes=yes, dry_run=dry_run)


@dead_letters_app.command("discard")
def discard(
    ids: Ids = None,
    *,
    every: Every = False,
    code: Code = None,
    since: Since = None,
    limit: Limit = 100,
    yes: Yes = False,
    dry_run: DryRun = False,
    reason: Why = None,
    config: Config = None,
    set_: Overrides = None,
) -> None:
    """Note that letters need nothing more; Kafka keeps them as long as it keeps the topic's."""
    wanted = _wanted(ids, every, code, since, limit, open_only=True)

    async def work(letters: DeadLetters, found: list[Letter]) -> bool:
        good = True
        async for told in letters.discard(found, reason):
            good = good and told["result"] == "discarded"
            _tell(told)
        return good

    _change(config, set_, wanted, "Discard", work, yes=yes, dry_run=dry_run)


_LISTED_BYTES = 200


def _change(
    config: Path | None,
    overrides: list[str] | None,
    wanted: Wanted,
    what: str,
    work: Callable[[DeadLetters, list[Letter]], Awaitable[bool]],
    *,
    yes: bool,
    dry_run: bool,
) -> None:
    from coordinator.bootstrap.letters import view

    async def run(letters: DeadLetters) -> bool:
        found = await letters.select(wanted)
        if dry_run:
            rows = [view(letter, handled, None) for letter, handled in found]
            show_rows(rows, _COLUMNS, empty="There is no such dead letter.")
            return True
        if not found:
            show_text("There is no such dead letter.") if is_terminal() else None
            return True
        if not yes and not await asyncio.to_thread(_confirmed, f"{what} {len(found)} letters?"):
            return False
        return await work(letters, [letter for letter, _ in found])

    if not (yes or dry_run or sys.stdin.isatty()):
        raise typer.BadParameter("nobody can be asked here; give --yes or --dry-run")
    raise typer.Exit(0 if _ask(config, overrides, run) else 1)


def _confirmed(question: str) -> bool:
    return typer.confirm(question, err=True)


def _tell(told: dict[str, str]) -> None:
    if is_terminal():
        detail = f": {told['detail']}" if told["detail"] else ""
        show_text(f"{told['letter']} {told['result']}{detail}")
    else:
        show_json(told)


def _wanted(
    ids: list[str] | None,
    every: bool,
    code: str | None,
    since: str | None,
    limit: int,
    *,
    open_only: bool,
) -> Wanted:
    from coordinator.bootstrap.letters import Wanted

    if bool(ids) == every:
        raise typer.BadParameter("name letters, or give --all")
    if ids and (code is not None or since is not None):
        raise typer.BadParameter("--code and --since go with --all")
    if ids:
        return Wanted(ids=list(dict.fromkeys(map(_id, ids))))
    return Wanted(
        code=code, since_ms=milliseconds_since(since, "--since"), limit=limit, open_only=open_only
    )


def _id(text: str) -> tuple[int, int]:
    partition, slash, offset = text.partition("/")
    if not (
        slash and re.fullmatch("[0-9]{1,9}", partition) and re.fullmatch("[0-9]{1,18}", offset)
    ):
        raise typer.BadParameter(f"{text}: a letter is named PARTITION/OFFSET")
    return int(partition), int(offset)


def _ask(
    config: Path | None,
    overrides: list[str] | None,
    question: Callable[[DeadLetters], Awaitable[T]],
) -> T:
    from coordinator.bootstrap.letters import dead_letters

    settings = load(config, overrides)

    async def ask() -> T:
        async with dead_letters(settings) as letters:
            return await question(letters)

    return asyncio.run(ask())
