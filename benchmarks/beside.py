"""Something that goes on beside a block, and must not fail unnoticed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do ``work`` until the block ends; when it fails before, so does the block, with its error."""
    block = asyncio.current_task()
    assert block is not None
    task = asyncio.create_task(work)

    def ended(_: asyncio.Task[None]) -> None:
        if _failure(task) is not None:
            block.cancel()

    task.add_done_callback(ended)
    try:
        yield
    except asyncio.CancelledError:
        failure = _failure(task)
        if failure is None:
            raise
        block.uncancel()
        raise failure from None
    finally:
        task.remove_done_callback(ended)
        task.cancel()
        await asyncio.wait([task])


def _failure(task: asyncio.Task[None]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None
