"""How calls fail on their way: the link of a simulated worker, and the fates that a seed deals.

A call has one moment at which it takes effect in the world. A fate decides what happens around
that moment: nothing; the caller dies or freezes before or after it; the call or its answer is
lost; it takes effect late, when its caller has long been told that the result is unknown. What
takes effect belongs to the world: it happens also when the caller is dead, and must then still
pass the fence.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Any, TypeVar, cast

from coordinator.domain.errors import (
    CoordinatorError,
    InvariantViolated,
    ResultUnknown,
    StoreError,
    StoreUnavailable,
)
from coordinator.memory.link import Held
from tests.simulation.swarm import LATE_SECONDS_MAX, Swarm
from tests.simulation.virtual_loop import Process, VirtualLoop

ResultT = TypeVar("ResultT")
TRACE_LINES = 400
LATENCY_SECONDS_MAX = 0.004
SLOW_SECONDS_MAX = 0.4
GIVE_UP_SECONDS_MAX = 0.3

DEADLY = frozenset(
    {
        "admit", "load", "apply", "compensate", "conclude", "finish", "fence", "record_fenced",
        "take_over", "bury", "ours", "answer", "delete", "sweep", "swept", "enrol", "publish",
    }
)  # fmt: skip
"""The calls around which a worker may be struck; to be struck while polling is of no interest."""


class Fate(Enum):
    """What happens to one call."""

    FINE = auto()
    KILLED_BEFORE = auto()
    KILLED_AFTER = auto()
    FROZEN_BEFORE = auto()
    FROZEN_AFTER = auto()
    REQUEST_LOST = auto()
    ANSWER_LOST = auto()
    LATE = auto()
    REFUSED = auto()
    SLOW = auto()


class Faults:
    """The fates of one run, and the stores that are away. Faults stop when ``active`` is unset."""

    def __init__(self, loop: VirtualLoop, source: random.Random, swarm: Swarm) -> None:
        self.loop = loop
        self.source = source
        self.swarm = swarm
        self.active = True
        self.kills = 0
        self.kill: Callable[[Process], None] = lambda process: None
        self.freeze: Callable[[Process], None] = lambda process: None
        self.failed: Callable[[str], None] = lambda text: None
        self.trace: deque[tuple[float, str, str, str, str]] = deque(maxlen=TRACE_LINES)
        self.counts: dict[str, int] = {}
        self.late: list[tuple[Flight, ChaosLink]] = []
        self._away: dict[str, tuple[float, float]] = {}

    def note(self, who: str, where: str, what: str, how: str = "") -> None:
        self.trace.append((self.loop.time(), who, where, what, how))

    def count(self, what: str, times: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + times

    def go_away(self, store: str, seconds: float) -> None:
        now = self.loop.time()
        self._away[store] = (now, now + seconds)
        self.note("world", store, "away", f"{seconds:.2f} s")

    def away_since(self, store: str) -> float | None:
        """Since when the store does not answer, if so."""
        if not self.active or store not in self._away:
            return None
        since, until = self._away[store]
        return since if self.loop.time() < until else None

    def draw(self, what: str) -> Fate:
        if not self.active:
            return Fate.FINE
        swarm, left = self.swarm, self.source.random()
        is_deadly = what in DEADLY
        for fate, rate in (
            (Fate.REQUEST_LOST, swarm.losses / 2),
            (Fate.ANSWER_LOST, swarm.losses / 2),
            (Fate.LATE, swarm.lates),
            (Fate.REFUSED, swarm.refusals),
            (Fate.SLOW, swarm.slows),
            (Fate.KILLED_BEFORE, swarm.kills if is_deadly else 0.0),
            (Fate.KILLED_AFTER, swarm.kills if is_deadly else 0.0),
            (Fate.FROZEN_BEFORE, swarm.freezes if is_deadly else 0.0),
            (Fate.FROZEN_AFTER, swarm.freezes if is_deadly else 0.0),
        ):
            left -= rate
            if left < 0:
                return fate
        return Fate.FINE

    def strike(self, process: Process, fate: Fate) -> None:
        if fate in {Fate.KILLED_BEFORE, Fate.KILLED_AFTER}:
            if self.kills < self.swarm.kills_max:
                self.kills += 1
                self.kill(process)
        else:
            self.freeze(process)


@dataclass(eq=False, slots=True)
class Flight:
    """A call on its way to a database, and what it holds there until it has ended."""

    store: str
    what: str
    effect: Callable[[], Any]
    rows: frozenset[Hashable]
    shared: frozenset[Hashable]
    answer: asyncio.Future[Any]
    fate: Fate
    sent_at: float
    is_read: bool
    is_over: bool = False

    def is_in_the_way_of(self, other: Flight) -> bool:
        if self.store != other.store:
            return False
        return not (
            self.rows.isdisjoint(other.rows)
            and self.rows.isdisjoint(other.shared)
            and self.shared.isdisjoint(other.rows)
        )


class ChaosLink:
    """Carries the calls of one worker; implements `coordinator.memory.link.Link`."""

    def __init__(self, faults: Faults, process: Process) -> None:
        self._faults = faults
        self._process = process

    async def call(
        self,
        store: str,
        what: str,
        effect: Callable[[], ResultT],
        *,
        rows: Held = (),
        shared: Held = (),
    ) -> ResultT:
        return cast(ResultT, await self._carry(store, what, effect, rows, shared, is_read=False))

    async def read(self, store: str, what: str, effect: Callable[[], ResultT]) -> ResultT:
        return cast(ResultT, await self._carry(store, what, effect, (), (), is_read=True))

    async def _carry(
        self,
        store: str,
        what: str,
        effect: Callable[[], Any],
        rows: Held,
        shared: Held,
        *,
        is_read: bool,
    ) -> Any:
        faults = self._faults
        loop, source = faults.loop, faults.source
        fate = faults.draw(what)
        if fate is not Fate.FINE:
            faults.count(fate.name.lower())
            faults.note(self._process.name, store, what, fate.name.lower())
        if fate in {Fate.KILLED_BEFORE, Fate.FROZEN_BEFORE}:
            faults.strike(self._process, fate)
            await self._hop()
        if fate is Fate.REFUSED or faults.away_since(store) is not None:
            await self._hop()
            raise StoreUnavailable(store, "it does not answer")
        answer: asyncio.Future[Any] = loop.create_future()
        if fate in {Fate.REQUEST_LOST, Fate.ANSWER_LOST, Fate.LATE}:
            gives_up = 0.02 + source.random() * GIVE_UP_SECONDS_MAX
            unknown = partial(self._answer, answer, _lost(store, is_read))
            loop.call_later(gives_up, unknown, context=loop.world)
        if fate is Fate.REQUEST_LOST:
            return await answer
        flight = Flight(
            store,
            what,
            effect,
            frozenset(rows),
            frozenset(shared),
            answer,
            fate,
            loop.time(),
            is_read,
        )
        delay = source.random() * LATENCY_SECONDS_MAX
        if fate is Fate.LATE:
            faults.late.append((flight, self))
            delay = 0.05 + source.random() * (LATE_SECONDS_MAX - 0.05)
        elif fate is Fate.SLOW:
            delay = source.random() * SLOW_SECONDS_MAX
        loop.call_later(delay, self._arrive, flight, context=loop.world)
        return await answer

    def _arrive(self, flight: Flight) -> None:
        """The call is at the database: this is its one moment."""
        if flight.is_over:
            return
        faults = self._faults
        store, is_read = flight.store, flight.is_read
        away_since = faults.away_since(store)
        is_cut = away_since is not None and away_since >= flight.sent_at
        if away_since is not None and not (is_cut and faults.source.random() < 0.5):
            self.end(flight)
            self._answer(flight.answer, _lost(store, is_read))
            return
        if flight.rows or flight.shared:
            self._wait_for_others(flight)
        error = self._take_effect(flight)
        if flight.fate in {Fate.KILLED_AFTER, Fate.FROZEN_AFTER}:
            faults.strike(self._process, flight.fate)
        if flight.fate is Fate.ANSWER_LOST:
            return
        if is_cut:
            error = _lost(store, is_read)
        if error is not None:
            self._answer(flight.answer, error)

    def _wait_for_others(self, flight: Flight) -> None:
        """Whoever holds our rows ends first: it commits, or the server has given it up."""
        for other, link in [*self._faults.late]:
            if other is not flight and other.is_in_the_way_of(flight):
                link.end(other)
                if self._faults.source.random() < 0.7:
                    link._take_effect(other)

    def end(self, flight: Flight) -> None:
        """The call is on its way no more."""
        flight.is_over = True
        if flight.fate is Fate.LATE:
            self._faults.late.remove((flight, self))

    def _take_effect(self, flight: Flight) -> BaseException | None:
        faults, what, store = self._faults, flight.what, flight.store
        if not flight.is_over:
            self.end(flight)
        try:
            result = flight.effect()
        except CoordinatorError as error:
            faults.note(self._process.name, store, what, f"{type(error).__name__}: {error}")
            if isinstance(error, InvariantViolated):
                faults.failed(f"{what} at {store} by {self._process.name}: {error}")
            return error
        except Exception as error:
            faults.failed(f"{what} at {store} broke: {error!r}")
            raise
        if not flight.is_read:
            faults.note(self._process.name, store, what)
        if flight.fate is not Fate.ANSWER_LOST and not flight.answer.done():
            flight.answer.set_result(result)
        return None

    def _answer(self, answer: asyncio.Future[Any], error: BaseException) -> None:
        if not answer.done() and not self._process.is_dead:
            answer.set_exception(error)

    async def _hop(self) -> None:
        """Come back as a new callback: never, if the process is dead; later, if it is frozen."""
        await asyncio.sleep(0)


def _lost(store: str, is_read: bool) -> StoreError:
    if is_read:
        return StoreUnavailable(store, "the answer did not come")
    return ResultUnknown(store, "the answer did not come")
