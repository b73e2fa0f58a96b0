"""One simulated run: a world, three workers, Kafka, faults for a while, then rest and judgement."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from coordinator.domain.announce import Announcer
from coordinator.domain.lifecycle import Status
from coordinator.engine.ports import JOURNAL
from coordinator.memory.journal import resolve, retry
from coordinator.memory.world import World
from tests.simulation.checkers import AT_REST, EACH_STEP
from tests.simulation.faults import Faults
from tests.simulation.history import History, Rest
from tests.simulation.kafka import CHANGES, OUTCOMES, UNITS, Broker
from tests.simulation.shop import LEDGER, SHOP, open_stores
from tests.simulation.strangers import come_by
from tests.simulation.submissions import Sending, sendings
from tests.simulation.swarm import draw_swarm
from tests.simulation.virtual_loop import Process, VirtualLoop
from tests.simulation.worker import Worker, is_fencing

WORKERS = 3
REST_SECONDS_MAX = 90.0
LOOK_SECONDS = 0.25
SETTLED_SECONDS = 1.5
FREEZE_SECONDS_MAX = 6.0
TRACE_LINES_SHOWN = 50
LOOP_STEPS_MAX = 400_000


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a run. ``violations`` is empty when every promise was kept."""

    seed: int
    violations: tuple[str, ...]
    counts: dict[str, int]
    trace: tuple[str, ...]
    virtual_seconds: float


@dataclass
class Simulation:
    """Everything of one seed; `simulate` runs it."""

    seed: int
    units: int
    settings: Mapping[str, float] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    sent: list[tuple[Sending, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.source = random.Random(self.seed)
        self.swarm = replace(
            draw_swarm(self.source, self.units),
            **self.settings,  # type: ignore[arg-type]
        )
        self.loop = VirtualLoop(  # type: ignore[abstract]
            self._fork(), shuffled=self.swarm.shuffled
        )
        self.faults = Faults(self.loop, self._fork(), self.swarm)
        self.history = History(EACH_STEP, self.fail)
        stores = open_stores(self._fork(), with_old_tags=self.swarm.old_tags)
        self.first_rows = {
            at: row for store in stores for at, row in store.rows.items() if row is not None
        }
        self.world = World(
            SHOP,
            stores,
            pivot_store=LEDGER,
            announcer=Announcer("simulation", "0", OUTCOMES, CHANGES),
            seconds=self.loop.time,
            witness=self.history,
        )
        self.history.world = self.world
        self.broker = Broker({(UNITS, each): [] for each in range(self.swarm.partitions)})
        self.faults.kill, self.faults.freeze = self.kill, self.freeze
        self.faults.failed = self.loop.failed = self.fail
        self.left = 0
        self.quiet_since: float | None = None

    def _fork(self) -> random.Random:
        return random.Random(self.source.getrandbits(64))

    def fail(self, text: str) -> None:
        if text not in self.violations:
            self.violations.append(text)
            self.faults.note("checker", "VIOLATION", text)

    # --- workers --------------------------------------------------------------------------------

    def alive(self) -> list[Worker]:
        return [worker for worker in self.workers if not worker.process.is_dead]

    def spawn(self) -> None:
        process = Process(f"w{len(self.workers) + 1}")
        worker = Worker(self.world, self.broker, self.faults, process)
        worker.ended, worker.ready = self.ended, self.share_out
        self.workers.append(worker)
        worker.start()

    def kill(self, process: Process) -> None:
        if process.is_dead:
            return
        process.is_dead = True
        self.faults.note(process.name, "", "is gone")
        self.broker.consumers.pop(process.name, None)
        delay = self.source.choice((0.05, 0.5, 3.0)) * self.source.random()
        self.loop.call_later(delay, self.spawn, context=self.loop.world)
        self.loop.call_later(self.source.random(), self.share_out, context=self.loop.world)

    def freeze(self, process: Process) -> None:
        if process.is_frozen or process.is_dead:
            return
        process.is_frozen = True
        seconds = self.source.random() * self.source.choice((0.3, FREEZE_SECONDS_MAX))
        self.faults.note(process.name, "", "is frozen", f"{seconds:.2f} s")
        self.loop.call_later(seconds, self.thaw, process, context=self.loop.world)
        self.loop.call_later(self.source.random(), self.share_out, context=self.loop.world)

    def thaw(self, process: Process) -> None:
        self.faults.note(process.name, "", "goes on")
        self.loop.thaw(process)
        self.share_out()

    def ended(self, worker: Worker, error: BaseException) -> None:
        if is_fencing(error):
            self.faults.count("fenced workers")
        else:
            self.fail(f"I10: {worker.process.name} broke: {error!r}")
        self.kill(worker.process)

    def share_out(self) -> None:
        members = [worker.process for worker in self.alive() if not worker.process.is_frozen]
        self.broker.share_out(self.source, members, self.faults)

    # --- what happens ---------------------------------------------------------------------------

    def send(self, sending: Sending) -> None:
        offset = self.broker.append(sending.partition, sending.value)
        self.sent.append((sending, offset))
        self.left -= 1

    def schedule_everything(self) -> None:
        loop, swarm, source = self.loop, self.swarm, self._fork()
        for _ in range(WORKERS):
            self.spawn()
        records = sendings(self._fork(), swarm)
        self.left = len(records)
        for each in records:
            loop.call_at(0.1 + each.at_seconds, self.send, each, context=loop.world)
        for _ in range(swarm.spells):
            store = source.choice((JOURNAL, *self.world.stores))
            at = source.random() * swarm.chaos_seconds
            seconds = source.random() * source.choice((0.2, 3.0))
            loop.call_at(at, self.faults.go_away, store, seconds, context=loop.world)
        for _ in range(swarm.strangers):
            at = source.random() * swarm.chaos_seconds
            loop.call_at(at, come_by, self.world, self.faults, source, context=loop.world)
        for _ in range(swarm.rebalances):
            loop.call_at(source.random() * swarm.chaos_seconds, self.share_out, context=loop.world)
        for _ in range(swarm.persons):
            loop.call_at(
                source.random() * (swarm.chaos_seconds + 10), self.person, context=loop.world
            )
        loop.call_at(swarm.chaos_seconds + 2.0, self.calm, context=loop.world)
        loop.call_at(LOOK_SECONDS, self.look, context=loop.world)

    def calm(self) -> None:
        """No more faults; who is frozen goes on in time."""
        self.faults.active = False
        self.faults.note("world", "", "is calm")

    def person(self) -> None:
        """Retry or resolve a parked unit."""
        parked = [
            row.seq for row in self.world.journal.units.values() if row.status is Status.PARKED
        ]
        if not parked:
            return
        seq = self.source.choice(parked)
        self.quiet_since = None
        self.faults.count("verbs")
        if self.source.random() < 0.6:
            self.faults.note("person", JOURNAL, "retry", f"#{seq}")
            retry(self.world, seq)
        else:
            self.faults.note("person", JOURNAL, "resolve", f"#{seq}")
            self.history.by_hand.add(seq)
            resolve(self.world, seq)

    # --- rest -----------------------------------------------------------------------------------

    def look(self) -> None:
        now = self.loop.time()
        if self.is_quiet():
            self.quiet_since = now if self.quiet_since is None else self.quiet_since
        else:
            self.quiet_since = None
        self.loop.call_later(LOOK_SECONDS, self.look, context=self.loop.world)

    def is_quiet(self) -> bool:
        if self.faults.active or self.left or self.faults.late:
            return False
        journal = self.world.journal
        alive = {
            worker.number
            for worker in self.alive()
            if worker.schedule is not None and not worker.process.is_frozen
        }
        if len(alive) < WORKERS or journal.outbox:
            return False
        for partition, log in self.broker.logs.items():
            if log and journal.positions.get(partition) != len(log):
                return False
        for row in journal.units.values():
            if row.is_open and (row.status is not Status.PARKED or row.worker not in alive):
                return False
        return all(journal.units[each.seq].is_open for each in journal.newcomers.values())

    def is_over(self) -> bool:
        if self.violations or self.loop.steps > LOOP_STEPS_MAX:
            return True
        since = self.quiet_since
        return since is not None and self.loop.time() >= since + SETTLED_SECONDS

    def judge(self) -> None:
        rest = Rest(
            self.world,
            self.broker,
            self.history,
            self.sent,
            self.alive(),
            self.workers,
            self.first_rows,
        )
        for check in AT_REST:
            check(rest)

    def lines(self) -> tuple[str, ...]:
        return tuple(
            f"{at:8.3f}  {who:<9} {where:<12} {what} {how}".rstrip()
            for at, who, where, what, how in self.faults.trace
        )


def simulate(seed: int, units: int = 50, settings: Mapping[str, float] | None = None) -> Result:
    """Run one seed to its end and judge it; ``settings`` overrule what it draws."""
    was_enabled = gc.isenabled()
    gc.disable()  # finalizers would schedule callbacks, and when they run is nobody's choice
    try:
        return contextvars.Context().run(_simulate, seed, units, settings or {})
    finally:
        if was_enabled:
            gc.enable()


def _simulate(seed: int, units: int, settings: Mapping[str, float]) -> Result:
    run = Simulation(seed, units, settings)
    asyncio._set_running_loop(run.loop)
    run.schedule_everything()
    came_to_rest = run.loop.run(REST_SECONDS_MAX, run.is_over)
    if not came_to_rest or run.loop.steps > LOOP_STEPS_MAX:
        run.fail(f"I7: no rest after {run.loop.time():.0f} s and {run.loop.steps} steps")
    if not run.violations or not came_to_rest:
        run.judge()
    run.faults.counts["kills"] = run.faults.kills
    result = Result(seed, tuple(run.violations), run.faults.counts, run.lines(), run.loop.time())
    run.loop.close()
    return result
