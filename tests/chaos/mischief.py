"""Carries a schedule of faults out, each at its second; those that last overlap with the next.

What is the same server's or the same daemon's goes one after the other, and one daemon at a time
is frozen. A fault is over when what it has taken away is back.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from contextlib import AsyncExitStack

from tests.chaos.fleet import Fleet
from tests.chaos.schedule import Fault, Kind, Server
from tests.chaos.stage import Stage

_BREATH_SECONDS = 3.0
"""How long what is back is left alone: a server that starts slowly shall not be gone for good."""


class Mischief:
    """Does what the schedule says, and counts what was done."""

    def __init__(self, stage: Stage, fleet: Fleet, say: Callable[[str], None]) -> None:
        self._stage = stage
        self._fleet = fleet
        self._say = say
        self._one_at_a_time: dict[Hashable, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.done: Counter[Kind] = Counter()

    async def run(self, faults: Sequence[Fault]) -> None:
        """Begin every fault at its time; return when all are over and everything is back."""
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                left = began + fault.at - asyncio.get_running_loop().time()
                await asyncio.sleep(max(0.0, left))
                group.create_task(self._do(fault), name=f"{fault.kind} at {fault.at}")
        self._stage.calm()

    async def _do(self, fault: Fault) -> None:
        async with AsyncExitStack() as held:
            for target in self._targets(fault):
                await held.enter_async_context(self._one_at_a_time[target])
            self._say(f"{fault.at:6.1f} s  {self._told(fault)}")
            match fault.kind:
                case Kind.KILL:
                    self._fleet.kill(self._fleet.slots[fault.slot])
                case Kind.FREEZE:
                    if not await self._fleet.freeze(self._fleet.slots[fault.slot]):
                        return
                case Kind.POSTGRES_FAST:
                    await self._stage.restart_postgres(signal.SIGINT, fault.seconds)
                case Kind.POSTGRES_IMMEDIATE:
                    await self._stage.restart_postgres(signal.SIGQUIT, fault.seconds)
                case Kind.MONGOD_KILL:
                    await self._stage.kill(Server.MONGOD, fault.seconds)
                case Kind.MONGOD_STEP_DOWN:
                    await self._stage.step_mongod_down()
                case Kind.BROKER_KILL:
                    await self._stage.kill(Server.BROKER, fault.seconds)
                case _:
                    await self._between(fault)
            self.done[fault.kind] += 1
            await asyncio.sleep(_BREATH_SECONDS)

    async def _between(self, fault: Fault) -> None:
        """Cut, freeze or deafen the connections of one daemon to one server."""
        door = self._stage.doors[fault.slot][fault.server]
        match fault.kind:
            case Kind.CUT:
                await door.close()
                await asyncio.sleep(fault.seconds)
                await door.open()
            case Kind.HANG:
                door.freeze()
                await asyncio.sleep(fault.seconds)
                door.thaw()
            case _:
                # Requests arrive and take effect, their answers never come.
                door.freeze(requests=False)
                await asyncio.sleep(fault.seconds)
                door.cut()
                door.thaw()

    def _targets(self, fault: Fault) -> tuple[Hashable, ...]:
        match fault.kind:
            case Kind.POSTGRES_FAST | Kind.POSTGRES_IMMEDIATE:
                return (Server.POSTGRES,)
            case Kind.MONGOD_KILL | Kind.MONGOD_STEP_DOWN:
                return (Server.MONGOD,)
            case Kind.BROKER_KILL:
                return (Server.BROKER,)
            case Kind.CUT | Kind.HANG | Kind.DEAFEN:
                return ((fault.slot, fault.server),)
            case Kind.FREEZE:
                return Kind.FREEZE, fault.slot
            case Kind.KILL:
                return (fault.slot,)

    def _told(self, fault: Fault) -> str:
        match fault.kind:
            case Kind.KILL | Kind.FREEZE:
                return f"{fault.kind}: {self._fleet.slots[fault.slot].name}"
            case Kind.CUT | Kind.HANG | Kind.DEAFEN:
                name = self._fleet.slots[fault.slot].name
                return f"{fault.kind}: {name} to {fault.server}, {fault.seconds} s"
            case Kind.MONGOD_STEP_DOWN:
                return str(fault.kind)
            case _:
                return f"{fault.kind}, away {fault.seconds} s"
