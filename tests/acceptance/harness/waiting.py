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
    end = time.monotonic() + seconds
    while True:
        seen = await look()
        if seen:
            return seen
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}\n{context()}")
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
