"""The daemons of a run: one per slot, started again whenever one ends, as a supervisor would."""

from __future__ import annotations

import asyncio
import math
import re
import signal
from collections import Counter
from pathlib import Path

import asyncpg

from coordinator.devstack.ports import free_port
from tests.acceptance.harness.config_text import config_text
from tests.acceptance.harness.daemon import STOP_SECONDS, Daemon
from tests.acceptance.harness.waiting import seen_within
from tests.acceptance.harness.world import World
from tests.chaos.history import End
from tests.chaos.stage import Stage

FENCED_EXIT_CODE = 3
READY_SECONDS = 60.0
TAKEN_OVER_SECONDS = 60.0
_LOOK_SECONDS = 0.1
_SCRAPE_SECONDS = 2.0
_SAMPLE = re.compile(r"^coordinator_(\w+?)_total(?:\{[^}]*\})? ([0-9.e+]+)$", re.MULTILINE)


class Slot:
    """A place for one daemon; ``name`` is the worker's, another one at every start."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.starts = 0
        self.name = ""
        self.daemon: Daemon | None = None
        self.was_killed = False


class Fleet:
    """Keeps every slot filled until `stop`, and remembers how each daemon ended."""

    def __init__(self, world: World, stage: Stage, folder: Path, slots: int) -> None:
        self._world = world
        self._stage = stage
        self._folder = folder
        self.slots = [Slot(number) for number in range(slots)]
        self.ends: list[End] = []
        self.alarms: list[str] = []
        self.daemons: list[Daemon] = []
        self._metrics: dict[str, Counter[str]] = {}
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Fill all slots, the first one first (it makes the topics and the journal)."""
        for slot in self.slots:
            self._tasks.append(asyncio.create_task(self._keep(slot), name=f"keep-{slot.number}"))
            if not await self.ready(slot):
                raise AssertionError(f"the first daemon of slot {slot.number} does not start")
        self._tasks += [
            asyncio.create_task(self._scrape(slot), name=f"scrape-{slot.number}")
            for slot in self.slots
        ]

    async def stop(self) -> None:
        """End all by SIGTERM; each must go in its time (F36)."""
        self._stopping = True
        for slot in self.slots:
            if slot.daemon is not None and slot.daemon.exit_code() is None:
                slot.daemon.send(signal.SIGTERM)
        keepers = self._tasks[: len(self.slots)]
        _, late = await asyncio.wait(keepers, timeout=STOP_SECONDS)
        if late:
            self.alarms.append(f"F36: {len(late)} daemons did not stop within {STOP_SECONDS} s")

    def kill_all(self) -> None:
        """Make sure that nothing is left running."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        for daemon in self.daemons:
            daemon.kill()

    def metric(self, name: str) -> int:
        """Give a counter summed over all daemons, as last scraped before each one's end."""
        return round(sum(samples[name] for samples in self._metrics.values()))

    # --- mishaps --------------------------------------------------------------------------------

    def kill(self, slot: Slot) -> None:
        """End a daemon by SIGKILL."""
        if slot.daemon is not None and slot.daemon.exit_code() is None:
            slot.was_killed = True
            slot.daemon.send(signal.SIGKILL)

    async def freeze(self, slot: Slot) -> bool:
        """Stop a daemon in its tracks until it is fenced, let it go on: it must leave, fenced.

        Gives False when there was no daemon to freeze.
        """
        if not await self.ready(slot):
            return False
        daemon, name = slot.daemon, slot.name
        assert daemon is not None
        daemon.send(signal.SIGSTOP)
        try:
            if not await seen_within(
                lambda: self._is_fenced(name), TAKEN_OVER_SECONDS, _LOOK_SECONDS
            ):
                self.alarms.append(f"I7: nobody fenced {name}, which stood still")
        finally:
            daemon.send(signal.SIGCONT)
        if not await seen_within(lambda: _has_ended(daemon), STOP_SECONDS):
            self.alarms.append(f"I9: {name} woke, fenced, and did not leave")
        elif daemon.exit_code() != FENCED_EXIT_CODE:
            self.alarms.append(f"I9: {name} woke, fenced, and left with {daemon.exit_code()}")
        return True

    async def ready(self, slot: Slot) -> bool:
        """Wait until a slot's daemon is ready; False when it takes too long."""

        async def look() -> bool:
            daemon = slot.daemon
            return daemon is not None and (await daemon.get("/readyz"))[0] == 200

        return await seen_within(look, READY_SECONDS, _LOOK_SECONDS)

    async def _is_fenced(self, name: str) -> bool:
        try:
            connection = await asyncpg.connect(self._world.dsn_of["ledger"], timeout=2)
        except (OSError, asyncpg.PostgresError, TimeoutError):
            return False  # PostgreSQL is being restarted
        try:
            return bool(
                await connection.fetchval(
                    "SELECT fenced FROM coordinator.workers WHERE name = $1", name, timeout=2
                )
            )
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            return False
        finally:
            connection.terminate()

    # --- inside ---------------------------------------------------------------------------------

    async def _keep(self, slot: Slot) -> None:
        while not self._stopping:
            code = await self._run(slot)
            killed = slot.was_killed and code == -signal.SIGKILL
            self.ends.append(End(slot.name, code, killed=killed, stopped=self._stopping))

    async def _run(self, slot: Slot) -> int:
        """Start a daemon and give its exit code when it has ended."""
        daemon = self._spawn(slot)
        await seen_within(lambda: _has_ended(daemon), math.inf, _LOOK_SECONDS)
        code = daemon.exit_code()
        assert code is not None
        return code

    def _spawn(self, slot: Slot) -> Daemon:
        slot.starts += 1
        slot.name = f"daemon-{slot.number}-{slot.starts}"
        slot.was_killed = False
        address = f"127.0.0.1:{free_port()}"
        settings = self._stage.settings_of(slot.number, self._world.settings)
        worker = settings["worker"] | {"name": slot.name}
        config = self._folder / f"{slot.name}.toml"
        config.write_text(config_text(settings | {"worker": worker, "http": {"listen": address}}))
        slot.daemon = daemon = Daemon(config, config.with_suffix(".log"), address)
        self.daemons.append(daemon)
        daemon.spawn()
        return daemon

    async def _scrape(self, slot: Slot) -> None:
        while True:
            daemon, name = slot.daemon, slot.name
            if daemon is not None:
                status, text = await daemon.get("/metrics")
                if status == 200:
                    samples = Counter[str]()
                    for found, value in _SAMPLE.findall(text):
                        samples[found] += float(value)  # type: ignore[assignment]
                    self._metrics[name] = samples
            await asyncio.sleep(_SCRAPE_SECONDS)


async def _has_ended(daemon: Daemon) -> bool:
    return daemon.exit_code() is not None
