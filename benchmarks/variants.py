"""The coordinator on days that are less good: what each costs against the uncontended one.

All at saturation, or as near to it as the variant lets it come.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter
from typing import Final

import psutil

from benchmarks import arena, meters
from benchmarks.arena import Arena
from benchmarks.beside import beside
from benchmarks.contenders.coordinator import Coordinator, package_client, running_daemon
from benchmarks.contenders.lean_client import lean_client
from benchmarks.loads import SATURATION
from benchmarks.measurements import Conditions, Measured, Measurement, Note, arena_name
from benchmarks.measuring import measure
from benchmarks.old_journal import fill
from benchmarks.samples import Sample
from benchmarks.statistics import percentile
from benchmarks.traffic import Traffic
from benchmarks.transfers import (
    Workload,
    one_hot_key,
    refused_by_mongodb,
    refused_by_postgresql,
    uncontended,
    zipf,
)

_CHUNK: Final = 1_000
_LOOK_SECONDS: Final = 0.05


def variants(
    *, old_units: int = 1_000_000, backlog_units: int = 100_000, rush_units: int = 10_000
) -> Sequence[Measurement]:
    """Give the uncontended coordinator, and all variants."""
    return [
        Measured(Coordinator(), [SATURATION]),
        _of("one-hot-key", "every credit to one wallet", one_hot_key),
        _of("zipf", "keys by Zipf 0.99", zipf),
        _of("refused-by-mongodb", "5 % pay to a missing wallet", refused_by_mongodb),
        _of("refused-by-postgresql", "5 % refused by a CHECK, undone", refused_by_postgresql),
        _of("five-by-five", "5 + 5 operations a unit", lambda: uncontended(5)),
        _of("twenty-by-twenty", "20 + 20 operations a unit", lambda: uncontended(20, 40_000)),
        Measured(
            Coordinator(open_client=lean_client),
            [SATURATION],
            name="lean-client",
            title="a client that does the least",
        ),
        OldJournal(old_units),
        Rush(rush_units),
        Backlog(backlog_units),
    ]


def _of(name: str, title: str, make_workload: Callable[[], Workload]) -> Measurement:
    return Measured(
        Coordinator(), [SATURATION], name=name, title=title, make_workload=make_workload
    )


class OldJournal:
    """A journal that remembers many finished units. Its arena is kept: filling it takes long."""

    name = "old-journal"
    missing: str | None = None

    def __init__(self, units: int) -> None:
        self.title = f"a journal of {units:,} finished units"
        self._units = units
        self._kept = AsyncExitStack()
        self._arena: Arena | None = None
        self._moved = 0

    async def take(self, conditions: Conditions, round_: int, note: Note) -> None:
        """Measure at saturation."""
        place = self._arena
        if place is None:
            place = self._arena = await self._kept.enter_async_context(
                arena.opened(conditions.servers, arena_name(self.name, round_), conditions.driver)
            )
            self._moved += await fill(place, self._units)
        async with (
            Coordinator().start(place) as running,
            meters.opened(conditions.servers, running.pids) as meter,
        ):
            workload = uncontended()
            traffic = Traffic(workload.transfers(f"{place.name}-{round_}"), workload.statuses)
            note(
                await measure(
                    self.name, round_, SATURATION, running, traffic, meter, conditions.pace
                )
            )
            self._moved += traffic.ended["committed"]
            await place.check(self._moved)

    async def close(self) -> None:
        """Drop the arena."""
        await self._kept.aclose()


class Rush:
    """Many units submitted in one call, by the client of the package."""

    name = "rush"
    missing: str | None = None

    def __init__(self, units: int) -> None:
        self.title = f"{units:,} units in one call"
        self._units = units

    async def take(self, conditions: Conditions, round_: int, note: Note) -> None:
        """Submit them all and wait for the last outcome."""
        name = arena_name(self.name, round_)
        async with (
            arena.opened(conditions.servers, name, conditions.driver) as place,
            running_daemon(place) as process,
            package_client(place) as client,
            meters.opened(conditions.servers, {"daemon": process.pid}) as meter,
        ):
            ends = _Ends(self._units)
            transfers = uncontended().take(name, self._units)
            before = await meter.before()
            await client.submit(transfers, ends.note)
            await ends.all_noted()
            memory_bytes = meter.memory_bytes()
            after = await meter.after()
            cost = meters.cost(before, after, self._units)
            note(ends.sample(self.name, "at once", round_, ends.first_began, cost, memory_bytes))
            await place.check(self._units)

    async def close(self) -> None:
        """Nothing is kept."""


class Backlog:
    """Many units wait in Kafka when the daemon starts. Measured from the first outcome on."""

    name = "backlog"
    missing: str | None = None

    def __init__(self, units: int) -> None:
        self.title = f"a backlog of {units:,} units"
        self._units = units

    async def take(self, conditions: Conditions, round_: int, note: Note) -> None:
        """Let the topic fill, start the daemon and wait for the last outcome."""
        name = arena_name(self.name, round_)
        async with (
            arena.opened(conditions.servers, name, conditions.driver) as place,
            lean_client(place) as client,
        ):
            ends = _Ends(self._units)
            transfers = uncontended().take(name, self._units)
            for done in range(0, self._units, _CHUNK):
                await client.submit(transfers[done : done + _CHUNK], ends.note)
            async with (
                running_daemon(place) as process,
                meters.opened(conditions.servers, {"daemon": process.pid}) as meter,
                _peak(process.pid) as peak,
            ):
                before = await meter.before()
                units_before = ends.count
                await ends.all_noted()
                after = await meter.after()
                cost = meters.cost(before, after, self._units - units_before)
                note(ends.sample(self.name, "drain", round_, ends.first_at, cost, peak.bytes))
            await place.check(self._units)

    async def close(self) -> None:
        """Nothing is kept."""


class _Ends:
    """Waits for so many outcomes."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._seconds: list[float] = []
        self._all = asyncio.Event()
        self._failure: str | None = None
        self.first_began = 0.0
        self.first_at = 0.0
        self._last_at = 0.0

    @property
    def count(self) -> int:
        """How many have come."""
        return len(self._seconds)

    def note(self, began: float, status: str) -> None:
        """Note one."""
        now = self._last_at = perf_counter()
        if not self._seconds:
            self.first_at, self.first_began = now, began
        self._seconds.append(now - began)
        if status != "committed":
            self._failure = status
        if self._failure or len(self._seconds) == self._expected:
            self._all.set()

    async def all_noted(self) -> None:
        """Wait for the last; raises when one is not committed."""
        await self._all.wait()
        if self._failure is not None:
            raise RuntimeError(f"a transfer has ended as {self._failure!r}")

    def sample(
        self,
        name: str,
        load: str,
        round_: int,
        since: float,
        cost: meters.Cost,
        memory_bytes: int | None,
    ) -> Sample:
        """Sum up, from then to the last outcome."""
        return Sample(
            name,
            load,
            round_,
            self._expected,
            self._last_at - since,
            percentile(self._seconds, 50) * 1000,
            percentile(self._seconds, 99) * 1000,
            cost,
            memory_bytes,
        )


class _Peak:
    bytes = 0


@asynccontextmanager
async def _peak(pid: int) -> AsyncIterator[_Peak]:
    """Look at a process's memory again and again."""
    peak = _Peak()
    process = psutil.Process(pid)

    async def look() -> None:
        while True:
            peak.bytes = max(peak.bytes, process.memory_info().rss)
            await asyncio.sleep(_LOOK_SECONDS)

    async with beside(look()):
        yield peak
