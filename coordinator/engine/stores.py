"""Which stores are away: a breaker per store, closed again by a probe.

A failed transaction opens it: the store's units wait, the others go on. A probe per store asks
again with growing pauses; the first answer lets the units go at once, because an outage must not
be followed by a long wait of our own making.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from coordinator.domain.errors import Fenced, ResultUnknown, StoreError, StoreUnavailable
from coordinator.engine.clock import Chance, Clock
from coordinator.engine.observer import Observer
from coordinator.engine.schedule import Schedule

PROBE_PAUSE_SECONDS_MIN = 0.05
PROBE_PAUSE_SECONDS_MAX = 2.0
IDLE_PROBE_SECONDS = 2.0


class StoreWatch:
    """Opens and closes the breakers."""

    def __init__(
        self,
        *,
        probes: Mapping[str, Callable[[], Awaitable[None]]],
        schedule: Schedule,
        clock: Clock,
        chance: Chance,
        observer: Observer,
        bell: asyncio.Event,
    ) -> None:
        self._probes = probes
        self._schedule = schedule
        self._clock = clock
        self._chance = chance
        self._observer = observer
        self._bell = bell
        self._alarms = {store: asyncio.Event() for store in probes}

    def failed(self, error: StoreError) -> None:
        """A transaction failed; the store is away if another one would fail just the same."""
        if not isinstance(error, StoreUnavailable | ResultUnknown):
            return
        alarm = self._alarms.get(error.store)
        if alarm is None or alarm.is_set():
            return
        self._schedule.store_away(error.store)
        self._observer.store_away(error.store, error.message)
        alarm.set()

    async def _look(self, store: str) -> None:
        try:
            await self._probes[store]()
        except StoreError as error:
            self.failed(error)

    async def probe(self, store: str, stop: asyncio.Event) -> None:
        """Run the probe of one store until told to stop."""
        alarm = self._alarms[store]
        attempt = 0
        while not stop.is_set():
            if not alarm.is_set():
                attempt = 0
                # A store that nobody writes to may go away unnoticed: ask now and then (F35).
                if not await self._clock.wait(alarm, IDLE_PROBE_SECONDS) and not stop.is_set():
                    await self._look(store)
                continue
            try:
                await self._probes[store]()
            except Fenced:
                raise
            except StoreError as error:
                if attempt:
                    self._observer.store_away(store, error.message)
                attempt += 1
                longest = min(PROBE_PAUSE_SECONDS_MAX, PROBE_PAUSE_SECONDS_MIN * 2**attempt)
                await self._clock.wait(stop, self._chance.uniform(PROBE_PAUSE_SECONDS_MIN, longest))
            else:
                alarm.clear()
                self._schedule.store_back(store)
                self._observer.store_back(store)
                self._bell.set()
