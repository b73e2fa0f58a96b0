"""Waiting for a condition, bounded, with a failure text that says what was waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_LOOK_AGAIN_SECONDS = 0.03


async def until(
    look: Callable[[], Awaitable[T]],
    what: str,
    seconds: float = 15.0,
    context: Callable[[], str] = str,
) -> T:
    """Look again and again until something true is seen; fail with `what` and the context."""
    seen = await seen_within(look, seconds)
    if not seen:
        raise AssertionError(f"not within {seconds} s: {what}\n{context()}")
    return seen


async def seen_within(
    look: Callable[[], Awaitable[T]], seconds: float, pause_seconds: float = _LOOK_AGAIN_SECONDS
) -> T:
    """Look again and again until something true is seen; give what was seen last."""
    end = time.monotonic() + seconds
    while True:
        seen = await look()
        if seen or time.monotonic() > end:
            return seen
        await asyncio.sleep(pause_seconds)
