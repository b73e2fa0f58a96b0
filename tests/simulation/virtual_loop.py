"""An event loop on virtual time, in which whole processes can stand still or die.

Owns order and time: the next callback is picked by the seed's chance, and when none is ready time
jumps to the next timer. Each callback belongs to the process in whose context it was scheduled. A
frozen process runs nothing until it is thawed (as by SIGSTOP, its timers go off late, all at
once); a dead one never runs again. What belongs to no process is the world's.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from asyncio import events
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


class Process:
    """A worker's process; ``held`` is what it has missed while it was frozen."""

    __slots__ = ("held", "is_dead", "is_frozen", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_frozen = False
        self.is_dead = False
        self.held: list[Handle] = []


OWNER: contextvars.ContextVar[Process | None] = contextvars.ContextVar("owner", default=None)


class Handle:
    """One callback to come."""

    __slots__ = ("arguments", "callback", "context", "is_cancelled", "owner")

    def __init__(
        self,
        callback: Callable[..., object],
        arguments: tuple[Any, ...],
        context: contextvars.Context,
    ) -> None:
        self.callback = callback
        self.arguments = arguments
        self.context = context
        self.owner = context.get(OWNER)
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


def _present(context: contextvars.Context | None) -> contextvars.Context:
    return contextvars.copy_context() if context is None else context


class VirtualLoop(asyncio.AbstractEventLoop):
    """Runs callbacks of all processes in an order that follows from the seed."""

    def __init__(self, source: random.Random, *, shuffled: bool) -> None:
        self._now = 0.0
        self._ready: list[Handle] = []
        self._timers: list[tuple[float, int, Handle]] = []
        self._count = 0
        self._random = source.random
        self._shuffled = shuffled
        self._is_over = False
        self.world = contextvars.copy_context()
        self.failed: Callable[[str], None] = lambda text: None
        self.steps = 0

    # --- what asyncio asks of a loop ------------------------------------------------------------

    def time(self) -> float:
        return self._now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self._is_over

    def is_closed(self) -> bool:
        return self._is_over

    def call_soon(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Handle:
        handle = Handle(callback, args, _present(context))
        if not self._is_over:
            self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Handle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Handle:
        handle = Handle(callback, args, _present(context))
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, ResultT],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[ResultT]:
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._is_over:
            self.failed(f"{context.get('message')}: {context.get('exception')!r}")

    # --- processes ------------------------------------------------------------------------------

    def context_of(self, process: Process) -> contextvars.Context:
        context = self.world.copy()
        context.run(OWNER.set, process)
        return context

    def thaw(self, process: Process) -> None:
        process.is_frozen = False
        self._ready += process.held
        process.held = []

    # --- running --------------------------------------------------------------------------------

    def run(self, until: float, is_done: Callable[[], bool]) -> bool:
        """Run until it is done, or till virtual time ``until``; whether it is done."""
        events._set_running_loop(self)
        try:
            while not is_done():
                if not self._ready and not self._advance(until):
                    return False
                self._run_one()
        finally:
            events._set_running_loop(None)
        return True

    def close(self) -> None:
        self._is_over = True
        self._ready.clear()
        self._timers.clear()

    def _advance(self, until: float) -> bool:
        timers = self._timers
        while timers and timers[0][2].is_cancelled:
            heapq.heappop(timers)
        if not timers or timers[0][0] > until:
            return False
        self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            handle = heapq.heappop(timers)[2]
            if not handle.is_cancelled:
                self._ready.append(handle)
        return True

    def _run_one(self) -> None:
        ready = self._ready
        at = int(self._random() * len(ready)) if self._shuffled else 0
        handle = ready.pop(at)
        if handle.is_cancelled:
            return
        owner = handle.owner
        if owner is not None:
            if owner.is_dead:
                return
            if owner.is_frozen:
                owner.held.append(handle)
                return
        self.steps += 1
        handle.context.run(handle.callback, *handle.arguments)
