"""The daemon put together: start, run under the supervisor, drain.

Start is a sequence of steps, each of which is tried until its server answers (F35): the journal,
the stores' catalogs, Kafka's topics, this worker's registration, its fences. Until it is through,
``/livez`` is 200 and ``/readyz`` 503 with the names of what is away. A mistake in configuration or
mapping ends it at once with exit code 2 and every mistake.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from coordinator import __version__
from coordinator.bootstrap.assembly import Assembly, Surroundings, assemble
from coordinator.bootstrap.journal import JournalAccess, open_journal
from coordinator.bootstrap.measuring import LOOK_SECONDS, OUTBOX_LOOK_SECONDS, Measuring
from coordinator.bootstrap.stores import Stores, open_stores
from coordinator.bootstrap.topics import ensure_all_topics
from coordinator.bootstrap.transports import tell_unprotected
from coordinator.daemon.health import Health, heartbeat
from coordinator.daemon.http import HttpServer
from coordinator.daemon.metrics import Metrics
from coordinator.daemon.observing import LoggingObserver
from coordinator.daemon.supervisor import Supervisor
from coordinator.daemon.system_clock import SystemChance, SystemClock
from coordinator.domain.errors import StoreError
from coordinator.engine.ports import JOURNAL
from coordinator.fault_points import FaultPoint, reach
from coordinator.journal.epoch import Epoch
from coordinator.journal.workers import JournalWorkers
from coordinator.log_events import LogEvent
from coordinator.logs import get_log
from coordinator.settings import Settings

log = get_log()
ResultT = TypeVar("ResultT")

_PAUSE_SECONDS_MIN = 0.2
_PAUSE_SECONDS_MAX = 5.0


async def run_daemon(settings: Settings) -> int:
    """Run until a signal or a failure; give the exit code (F36)."""
    daemon = _Daemon(settings)
    return int(await daemon.run())


class _Daemon:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._measuring = Measuring(self._metrics)
        self._health = Health(redact=settings.redact, on_change=self._metrics.dependency_changed)
        self._http = HttpServer(
            settings.http.listen, self._health, self._metrics, redact=settings.redact
        )
        self._clock = SystemClock()
        self._chance = SystemChance()
        self._supervisor = Supervisor(on_draining=self._health.draining)
        self._health.dead_tasks = self._supervisor.dead
        self._observer = LoggingObserver(
            self._health, self._metrics, self._clock.now, settings.journal.store
        )

    async def run(self) -> int:
        log.info(
            LogEvent.DAEMON_STARTING,
            f"Coordinator {__version__} starts.",
            worker=self._settings.worker.name,
            version=__version__,
        )
        tell_unprotected(self._settings, self._metrics)
        self._supervisor.add("http", self._serve, may_end=True)
        self._supervisor.add("loop", lambda: heartbeat(self._health))
        self._supervisor.add("start", self._start, may_end=True)
        self._supervisor.on_leave("http", self._http.close)
        return await self._supervisor.run()

    async def _serve(self) -> None:
        await self._http.start()

    async def _start(self) -> None:
        began = time.monotonic()
        settings = self._settings
        journal = await self._insist(lambda: open_journal(settings))
        self._supervisor.on_leave("journal", journal.close, budget_seconds=1.0)
        # The lease has begun to run; whatever we have to wait for, it must not run out.
        started = asyncio.Event()
        self._supervisor.add(
            "first-heartbeats", lambda: self._beat_until(journal, started), may_end=True
        )
        stores = await self._insist(
            lambda: open_stores(settings, journal.journal_id, journal.session_name)
        )
        self._supervisor.on_leave("stores", stores.close, budget_seconds=1.0)
        limits = await self._insist(lambda: ensure_all_topics(settings, stores.mapping))
        await self._insist(lambda: self._enrol(journal, stores))
        around = Surroundings(self._clock, self._chance, self._observer)
        assembly = assemble(settings, journal, stores, limits, around)
        self._clock.journal_says(await self._insist(assembly.workers.beat))
        self._supervise(assembly)
        started.set()
        self._http.units = assembly.operators
        for name in (JOURNAL, "kafka", *settings.stores):
            if not self._health.is_away(name):
                self._health.back(name)  # a metric that is there from the start can be watched
        self._health.ready()
        log.info(
            LogEvent.DAEMON_READY,
            "The daemon is ready: configuration, mapping and every server are checked.",
            worker=journal.worker,
            duration_ms=round((time.monotonic() - began) * 1000, 1),
        )

    async def _beat_until(self, journal: JournalAccess, started: asyncio.Event) -> None:
        ttl = self._settings.worker.lease_ttl_seconds
        workers = JournalWorkers(journal.pool, journal.worker, ttl, journal.mappings, Epoch())
        while not await self._clock.wait(started, ttl / 4):
            with suppress(StoreError):
                await workers.beat()

    async def _enrol(self, journal: JournalAccess, stores: Stores) -> None:
        await journal.mappings.remember(stores.mapping)
        reach(FaultPoint.ENROL_BEFORE)
        await stores.enrol(journal.worker, self._settings.worker.lanes)
        reach(FaultPoint.ENROL_AFTER)

    def _supervise(self, assembly: Assembly) -> None:
        """Give every task to the supervisor, and the drain its steps."""
        intake_stop, engine_stop, last_stop = asyncio.Event(), asyncio.Event(), asyncio.Event()
        intake = self._watched("intake", assembly.intake.run, intake_stop)
        relay = self._watched("relay", assembly.relay.run, last_stop)
        forward = []
        for name, task in assembly.engine.tasks().items():
            keeps_on = name == "heartbeat" or name.startswith("probe-")
            done = self._watched(name, task, last_stop if keeps_on else engine_stop)
            if name.startswith("lane-"):
                forward.append(done)
        self._supervisor.add("health", lambda: self._look_around(assembly, last_stop))
        self._supervisor.add("outbox", lambda: self._look_at_outbox(assembly, last_stop))

        async def stop_intake() -> None:
            intake_stop.set()
            await intake.wait()

        async def finish_batches() -> None:
            engine_stop.set()
            assembly.bell.set()
            for done in forward:
                await done.wait()

        async def flush_relay() -> None:
            last_stop.set()
            assembly.outbox_bell.set()
            await relay.wait()

        self._supervisor.on_drain("intake", stop_intake, budget_seconds=6)
        self._supervisor.on_drain("batches", finish_batches, budget_seconds=10)
        self._supervisor.on_drain("relay", flush_relay, budget_seconds=6)
        self._supervisor.on_drain("lease", assembly.workers.leave, budget_seconds=2)

    def _watched(
        self, name: str, task: Callable[[asyncio.Event], Awaitable[object]], stop: asyncio.Event
    ) -> asyncio.Event:
        """Supervise a task; give the event that tells its end."""
        ended = asyncio.Event()

        async def run() -> None:
            try:
                await task(stop)
            finally:
                ended.set()

        self._supervisor.add(name, run)
        return ended

    async def _look_around(self, assembly: Assembly, stop: asyncio.Event) -> None:
        """Keep readiness and metrics in step with what schedule, intake and relay know."""
        while not stop.is_set():
            intake = assembly.intake.state()
            if intake.connected:
                if self._health.is_away("kafka"):
                    self._health.back("kafka")
            else:
                self._health.away("kafka", "no broker answers")
            self._measuring.look_at_schedule(assembly.schedule)
            self._measuring.look_at_bounds(assembly.engine.admission.bounds_reached())
            self._measuring.look_at_intake(intake)
            self._measuring.look_at_relay(assembly.relay.tally)
            await self._clock.wait(stop, LOOK_SECONDS)

    async def _look_at_outbox(self, assembly: Assembly, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._measuring.look_at_oldest(assembly.schedule, self._clock.now())
            await self._measuring.look_at_outbox(assembly.outbox)
            await self._clock.wait(stop, OUTBOX_LOOK_SECONDS)

    async def _insist(self, act: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Try until the servers answer; one warning per attempt, with backoff (F35)."""
        attempt = 0
        away: set[str] = set()
        while True:
            try:
                result = await act()
            except StoreError as error:
                attempt += 1
                away |= self._note_away(error, attempt)
                longest = min(_PAUSE_SECONDS_MAX, _PAUSE_SECONDS_MIN * 2**attempt)
                await asyncio.sleep(self._chance.uniform(_PAUSE_SECONDS_MIN, longest))
                continue
            for name in away:
                self._health.back(name)
            return result

    def _note_away(self, error: StoreError, attempt: int) -> set[str]:
        names = {error.store}
        if error.store == JOURNAL and self._settings.journal.store is not None:
            names.add(self._settings.journal.store)
        for name in names:
            self._health.away(name, error.message)
        log.warning(
            LogEvent.DEPENDENCY_AWAY,
            "A server does not answer; the daemon waits for it.",
            store=error.store,
            attempt=attempt,
            reason=error.message,
        )
        return names
