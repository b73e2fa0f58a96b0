"""The loads: one client, many clients, saturation, a rush.

A client waits for the outcome of its transfer before it begins the next. Saturation is one
submitter that keeps many units open, which only makes sense where submitting and the outcome are
two things.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import perf_counter
from typing import Final, Protocol

from benchmarks.contenders.contender import Running
from benchmarks.traffic import Traffic


class Load(Protocol):
    """How transfers are put to a contender."""

    @property
    def name(self) -> str:
        """As it is shown and stored."""

    async def drive(self, running: Running, traffic: Traffic) -> None:
        """Go on until the traffic is stopped and everything that was begun has ended."""


@dataclass(frozen=True, slots=True)
class Clients:
    """So many clients at once."""

    count: int

    @property
    def name(self) -> str:
        """As it is shown and stored."""
        return f"{self.count} client{'s' if self.count > 1 else ''}"

    async def drive(self, running: Running, traffic: Traffic) -> None:
        """Let every client do one transfer after the other."""

        async def client() -> None:
            for transfer in traffic:
                began = perf_counter()
                traffic.note(began, await running.perform(transfer))

        async with asyncio.TaskGroup() as group:
            for _ in range(self.count):
                group.create_task(client())


@dataclass(frozen=True, slots=True)
class Saturation:
    """One submitter that keeps so many units open."""

    open_units: int

    @property
    def name(self) -> str:
        """As it is shown and stored."""
        return "saturation"

    async def drive(self, running: Running, traffic: Traffic) -> None:
        """Submit as many as are missing whenever some have ended."""
        submit = running.submit
        if submit is None:
            raise TypeError(f"{type(running).__name__} has nothing to submit to")
        missing = self.open_units
        changed = asyncio.Event()
        failure: Exception | None = None

        def ended(began: float, status: str) -> None:
            nonlocal missing, failure
            missing += 1
            changed.set()
            try:
                traffic.note(began, status)
            except Exception as error:  # it would be lost in the callback
                failure = error

        while failure is None:
            changed.clear()
            transfers = traffic.take(missing)
            if transfers:
                missing -= len(transfers)
                await submit(transfers, ended)
            elif missing == self.open_units:
                return
            await changed.wait()
        raise failure


ONE_CLIENT: Final = Clients(1)
MANY_CLIENTS: Final = Clients(32)
CROWD: Final = Clients(128)
SATURATION: Final = Saturation(600)
