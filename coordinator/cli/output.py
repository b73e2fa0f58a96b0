"""How results are shown: tables on a terminal, JSON lines to everything else."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from coordinator.plain_text import one_line, plain_json


def is_terminal() -> bool:
    """Whether a person is looking at stdout."""
    return sys.stdout.isatty()


def show_line(text: str) -> None:
    """Write a plain line to stdout."""
    sys.stdout.write(text + "\n")


def show_text(text: str) -> None:
    """Write a line that holds what a stranger chose: no control reaches the terminal."""
    show_line(one_line(text))


def show_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, empty: str) -> None:
    """Show rows: all members as JSON lines, or the named columns as a table.

    ``empty`` is what a person reads when there is none.
    """
    if not is_terminal():
        for row in rows:
            show_json(row)
        return
    if not rows:
        show_line(empty)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row.get(column))) for column in columns))
    Console().print(table)


def show_record(record: Mapping[str, Any]) -> None:
    """Show one thing: a JSON line, or indented JSON for a person."""
    if is_terminal():
        from rich.console import Console
        from rich.highlighter import JSONHighlighter

        text = json.dumps(record, default=str, ensure_ascii=False, indent=2)
        Console().print(JSONHighlighter()(plain_json(text)), soft_wrap=True)
    else:
        show_json(record)


def show_json(record: Mapping[str, Any]) -> None:
    """Write one JSON line."""
    text = json.dumps(record, default=str, ensure_ascii=False, separators=(",", ":"))
    show_line(plain_json(text))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str | int | float):
        return one_line(str(value))
    return plain_json(json.dumps(value, default=str, ensure_ascii=False))
