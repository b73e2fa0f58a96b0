"""One simulated daemon: the real engine, wired as `coordinator.bootstrap.assembly` does it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from coordinator.domain.errors import Fenced, Problem, StoreError
from coordinator.domain.lifecycle import Status
from coordinator.domain.operation import Origin, Unit
from coordinator.domain.submission import DeadLetter, RefusedCancel, RefusedEarly
from coordinator.engine.admission import Admission, AdmissionRules, IntakeRules
from coordinator.engine.compensation import Compensation
from coordinator.engine.drawing import Drawing
from coordinator.engine.engine import Engine, EngineRules
from coordinator.engine.execution import Execution
from coordinator.engine.membership import Membership
from coordinator.engine.observer import Stage
from coordinator.engine.ports import JOURNAL, Admitted, Participant
from coordinator.engine.reporting import Reporting
from coordinator.engine.schedule import Schedule
from coordinator.engine.stores import StoreWatch
from coordinator.engine.sweeping import Sweeping, SweepRules
from coordinator.engine.takeover import Takeover
from coordinator.memory.clock import MemoryClock, SeededChance
from coordinator.memory.journal import MemoryJournal
from coordinator.memory.journal_tables import Epoch
from coordinator.memory.outbox import MemoryOutbox
from coordinator.memory.participant import MemoryParticipant
from coordinator.memory.pivot import MemoryPivot
from coordinator.memory.workers import MemoryWorkers
from coordinator.memory.world import World
from tests.simulation.faults import ChaosLink, Faults
from tests.simulation.kafka import DEAD_LETTERS, UNITS, Broker, Consumer, Relay
from tests.simulation.submissions import UNIT_BYTES_MAX
from tests.simulation.virtual_loop import Process

ResultT = TypeVar("ResultT")
LEASE_TTL_SECONDS = 2.0


class Seen:
    """The observer of one worker: what it believes to be final, and lines for the trace."""

    def __init__(self, faults: Faults, process: Process) -> None:
        self._faults = faults
        self._name = process.name
        self.final: dict[int, Status] = {}

    def _note(self, unit: Unit, what: str, why: str = "") -> None:
        self._faults.note(self._name, f"{unit.id}#{unit.seq}", what, why)

    def received(self, records: int) -> None:
        self._faults.count("received", records)

    def admitted(self, admitted: Admitted) -> None:
        seqs = ",".join(f"{each.id}#{each.seq}" for each in admitted.units)
        self._faults.note(self._name, JOURNAL, "admitted", seqs)

    def pace_changed(self, topic: str, per_second: int, *, is_slow: bool) -> None:
        pass

    def refused_early(self, refused: RefusedEarly, origin: Origin) -> None:
        self._faults.count("refused early")

    def cancel_refused(self, refused: RefusedCancel, origin: Origin) -> None:
        self._faults.count("cancels refused")

    def dead_letter(self, letter: DeadLetter, origin: Origin) -> None:
        self._faults.count("dead letters")

    def record_set_aside(self, origin: Origin, next_offset: int) -> None:
        self._faults.count("set aside unread")

    def finished(self, unit: Unit, status: Status, problem: Problem | None) -> None:
        self.final[unit.seq] = status
        self._faults.count(status.value)
        self._note(unit, status.value, "" if problem is None else problem.code.value)

    def parked(self, unit: Unit, problem: Problem) -> None:
        self._faults.count("parked")
        self._note(unit, "parked", problem.code.value)

    def compensating(self, unit: Unit, cause: Problem) -> None:
        self._note(unit, "compensating", cause.code.value)

    def compensated(self, undone: int, untouched: int, parked: int) -> None:
        self._faults.count("branches undone", undone)
        self._faults.count("branches untouched", untouched)

    def set_aside(self, unit: Unit, why: str, attempts: int) -> None:
        self._faults.count("set aside")
        self._note(unit, "set aside", why)

    def store_away(self, store: str, reason: str) -> None:
        self._faults.note(self._name, store, "seems away", reason)

    def store_back(self, store: str) -> None:
        self._faults.note(self._name, store, "is back")

    def stage_done(self, stage: Stage, store: str, units: int, seconds: float) -> None:
        self._faults.count(f"batches of {stage}")

    def batch_failed(self, phase: str, store: str, units: int, attempts: int, reason: str) -> None:
        self._faults.count("batches in parts")

    def result_unknown(self, store: str) -> None:
        self._faults.count("lost replies")

    def lease_late(self) -> None:
        self._faults.count("late leases")

    def swept(self, units: int) -> None:
        self._faults.count("sweeps")

    def taken_over(self, worker: int, units: int) -> None:
        self._faults.count("takeovers")
        self._faults.note(self._name, JOURNAL, "took over", f"{units} units of worker {worker}")

    def duty_failed(self, duty: str, error: StoreError) -> None:
        self._faults.note(self._name, error.store, f"{duty} failed", error.message)


class Worker:
    """A daemon in a process of the virtual loop; ``started`` once it runs units."""

    def __init__(self, world: World, broker: Broker, faults: Faults, process: Process) -> None:
        self.world = world
        self.broker = broker
        self.faults = faults
        self.process = process
        self.number = 0
        self.schedule: Schedule | None = None
        self.seen = Seen(faults, process)
        self.ended: Callable[[Worker, BaseException], None] = lambda worker, error: None
        self.ready: Callable[[], None] = lambda: None
        self.tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._spawn("start", self._start())

    def _spawn(self, name: str, work: Awaitable[None]) -> None:
        context = self.faults.loop.context_of(self.process)
        task = self.faults.loop.create_task(self._guarded(work), name=name, context=context)
        self.tasks.append(task)

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:
            self.ended(self, error)

    async def _start(self) -> None:
        faults, swarm = self.faults, self.faults.swarm
        rate = 1 + faults.source.uniform(-swarm.skew, swarm.skew)
        clock = MemoryClock(faults.loop.time, rate=rate, ahead_seconds=100 * (rate - 1))
        link = ChaosLink(faults, self.process)
        register = partial(self.world.register, swarm.lanes, LEASE_TTL_SECONDS)
        self.number = await self._insist(lambda: link.call(JOURNAL, "register", register))
        participants = {
            name: MemoryParticipant(self.world, name, link)
            for name in self.world.stores
            if name != self.world.pivot_store
        }
        for participant in participants.values():
            await self._insist(partial(participant.enrol, self.number, swarm.lanes))
        epoch = Epoch()
        workers = MemoryWorkers(self.world, self.number, LEASE_TTL_SECONDS, link, epoch)
        clock.journal_says(await self._insist(workers.beat))
        self._assemble(link, clock, workers, participants, epoch)
        self.ready()

    async def _insist(self, act: Callable[[], Awaitable[ResultT]]) -> ResultT:
        while True:
            try:
                return await act()
            except StoreError:
                await asyncio.sleep(0.1)

    def _assemble(
        self,
        link: ChaosLink,
        clock: MemoryClock,
        workers: MemoryWorkers,
        memory_participants: dict[str, MemoryParticipant],
        epoch: Epoch,
    ) -> None:
        world, faults, swarm = self.world, self.faults, self.faults.swarm
        participants: dict[str, Participant] = dict(memory_participants)
        chance = SeededChance(random.Random(faults.source.getrandbits(64)))
        journal = MemoryJournal(world, self.number, link, epoch)
        pivot = MemoryPivot(world, self.number, link)
        outbox = MemoryOutbox(world, self.number, LEASE_TTL_SECONDS, link)
        schedule = self.schedule = Schedule()
        bell, outbox_bell = asyncio.Event(), asyncio.Event()
        probes = {JOURNAL: journal.ping}
        probes.update({name: each.ping for name, each in memory_participants.items()})
        watch = StoreWatch(
            probes=probes,
            schedule=schedule,
            clock=clock,
            chance=chance,
            observer=self.seen,
            bell=bell,
        )
        reporting = Reporting(schedule, watch, clock, chance, self.seen)
        membership = Membership(workers, schedule, clock)
        admission = Admission(
            journal=journal,
            schedule=schedule,
            mapping=world.mapping,
            rules=AdmissionRules(
                max_bytes=UNIT_BYTES_MAX,
                timeout_ms=8_000,
                intakes={UNITS: IntakeRules()},
                dead_letters_topic=DEAD_LETTERS,
                backlog_units_max=swarm.backlog_units_max,
                backlog_bytes_max=1_000_000,
            ),
            announcer=world.announcer,
            drawing=Drawing(clock, chance),
            clock=clock,
            observer=self.seen,
            membership=membership,
            bell=bell,
            outbox_bell=outbox_bell,
        )
        engine = Engine(
            journal=journal,
            workers=workers,
            participants=participants,
            schedule=schedule,
            admission=admission,
            execution=Execution(
                pivot,
                world.pivot_store,
                participants,
                reporting,
                wary_units=self.number % 3 * 5,
            ),
            compensation=Compensation(pivot, world.pivot_store, participants, reporting),
            takeover=Takeover(
                workers=workers,
                participants=participants,
                pivot_store=world.pivot_store,
                schedule=schedule,
                membership=membership,
                observer=self.seen,
            ),
            sweeping=Sweeping(
                journal,
                participants,
                self.seen,
                SweepRules(undo_age_seconds=swarm.undo_age_seconds, retention_days=7.0),
                away=lambda: schedule.away,
            ),
            watch=watch,
            membership=membership,
            clock=clock,
            observer=self.seen,
            rules=EngineRules(
                lanes=swarm.lanes,
                batch_units_max=swarm.batch_units_max,
                lease_ttl_seconds=LEASE_TTL_SECONDS,
                tick_seconds=0.5,
                elsewhere_poll_seconds=0.2,
                takeover_poll_seconds=0.7,
                sweep_poll_seconds=3.0,
            ),
            bell=bell,
            outbox_bell=outbox_bell,
        )
        stop = asyncio.Event()
        for name, task in engine.tasks().items():
            self._spawn(name, task(stop))
        consumer = Consumer(self.broker, admission, clock, faults)
        self.broker.consumers[self.process.name] = consumer
        self._spawn("intake", consumer.run())
        relay = Relay(
            self.broker, outbox, outbox_bell, clock, faults, self.process, LEASE_TTL_SECONDS
        )
        self._spawn("relay", relay.run())


def is_fencing(error: BaseException) -> bool:
    """Whether a worker ended as it should when another one has taken its units over."""
    return isinstance(error, Fenced)
