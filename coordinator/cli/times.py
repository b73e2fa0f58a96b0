"""Spans and times as people type them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import typer

_SPAN = re.compile(r"([0-9]{1,9})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def seconds_of(text: str | None, option: str) -> float | None:
    """Read a span such as 90s, 15m, 2h, 7d."""
    if text is None:
        return None
    span = _SPAN.fullmatch(text)
    if span is None:
        raise typer.BadParameter(f"{text}: write 90s, 15m, 2h or 7d", param_hint=option)
    return timedelta(**{_UNITS[span[2]]: int(span[1])}).total_seconds()


def milliseconds_since(text: str | None, option: str) -> int | None:
    """Read a span back from now, or a time with its offset, as milliseconds of the epoch."""
    if text is None:
        return None
    try:
        if _SPAN.fullmatch(text):
            at = datetime.now(UTC) - timedelta(seconds=seconds_of(text, option) or 0)
        else:
            at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError
        return max(0, int(at.timestamp() * 1000))
    except (ValueError, OverflowError):
        message = f"{text}: write 90s, 15m, 2h, 7d, or a time with its offset"
        raise typer.BadParameter(message, param_hint=option) from None
