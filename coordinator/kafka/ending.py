"""Ends a driver's client in bounded time, in a task of its own.

aiokafka cancels its own tasks while it stops, some of them twice, and then lets the cancellation
out to whoever called `stop`: our task would end as if somebody had cancelled it, without a word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

_AFTER_CANCEL_SECONDS = 0.3


async def end_within(stopping: Coroutine[Any, Any, Any], seconds: float) -> bool:
    """Run ``stopping`` for so long at most; whether it came to its end without an error."""
    task = asyncio.create_task(stopping, name="kafka-end")
    done, _ = await asyncio.wait([task], timeout=seconds)
    if not done:
        task.cancel()
        await asyncio.wait([task], timeout=_AFTER_CANCEL_SECONDS)
    if not task.done():
        return False
    return not task.cancelled() and task.exception() is None
