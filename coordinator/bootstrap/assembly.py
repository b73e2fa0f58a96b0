"""The parts of one running worker, wired to each other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from coordinator import __version__
from coordinator.bootstrap.journal import JournalAccess
from coordinator.bootstrap.stores import Stores
from coordinator.domain.announce import Announcer
from coordinator.engine.admission import Admission, AdmissionRules
from coordinator.engine.clock import Chance, Clock
from coordinator.engine.compensation import Compensation
from coordinator.engine.drawing import Drawing
from coordinator.engine.engine import Engine, EngineRules
from coordinator.engine.execution import Execution
from coordinator.engine.membership import Membership
from coordinator.engine.observer import Observer
from coordinator.engine.ports import JOURNAL
from coordinator.engine.reporting import Reporting
from coordinator.engine.schedule import Schedule
from coordinator.engine.stores import StoreWatch
from coordinator.engine.sweeping import Sweeping, SweepRules
from coordinator.engine.takeover import Takeover
from coordinator.journal.journal import WorkersJournal
from coordinator.journal.operators import JournalOperators
from coordinator.journal.outbox import JournalOutbox
from coordinator.journal.pivot import JournalPivot
from coordinator.journal.workers import JournalWorkers
from coordinator.kafka.intake import UnitIntake
from coordinator.kafka.relay import Relay
from coordinator.settings import Settings


@dataclass(frozen=True, slots=True)
class Assembly:
    """What the daemon supervises."""

    engine: Engine
    intake: UnitIntake
    relay: Relay
    workers: JournalWorkers
    operators: JournalOperators
    schedule: Schedule
    bell: asyncio.Event
    outbox_bell: asyncio.Event

    def kafka_connected(self) -> bool:
        """Whether a broker answers the intake."""
        return self.intake.state().connected


def announcer(settings: Settings, limits_bytes: Mapping[str, int]) -> Announcer:
    """Where things are announced, by the settings and the topics' limits."""
    return Announcer(
        name=settings.kafka.group_id,
        version=__version__,
        outcomes_topic=settings.topics.outcomes,
        changes_topic=settings.topics.changes,
        tombstones=settings.changes.tombstones,
        limits_bytes=limits_bytes,
    )


def assemble(
    settings: Settings,
    journal: JournalAccess,
    stores: Stores,
    limits_bytes: Mapping[str, int],
    *,
    clock: Clock,
    chance: Chance,
    observer: Observer,
) -> Assembly:
    """Wire the parts; nothing runs yet."""
    ttl = settings.worker.lease_ttl_seconds
    announces = announcer(settings, limits_bytes)
    pool, worker = journal.pool, journal.worker
    workers = JournalWorkers(pool, worker, ttl, journal.mappings)
    ours = WorkersJournal(pool, worker, announces, journal.mappings, stores.pivot_store)
    outbox = JournalOutbox(pool, worker, ttl)
    pivot = JournalPivot(pool, worker, announces, stores.pivot_tables)
    schedule = Schedule()
    bell, outbox_bell = asyncio.Event(), asyncio.Event()
    probes = {JOURNAL: ours.ping}
    probes.update({name: each.ping for name, each in stores.participants.items()})
    watch = StoreWatch(
        probes=probes,
        schedule=schedule,
        clock=clock,
        chance=chance,
        observer=observer,
        bell=bell,
    )
    reporting = Reporting(schedule, watch, clock, chance, observer)
    membership = Membership(workers, schedule, clock)
    admission = Admission(
        journal=ours,
        schedule=schedule,
        mapping=stores.mapping,
        rules=AdmissionRules(
            max_bytes=settings.units.max_bytes,
            timeout_ms=settings.units.timeout_ms,
            reply_topics=frozenset(settings.topics.reply_to),
            dead_letters_topic=settings.topics.dead_letters,
            backlog_units_max=settings.backlog.max_units,
        ),
        announcer=announces,
        drawing=Drawing(clock, chance),
        clock=clock,
        observer=observer,
        membership=membership,
        bell=bell,
        outbox_bell=outbox_bell,
    )
    participants = stores.participants
    engine = Engine(
        journal=ours,
        workers=workers,
        participants=participants,
        schedule=schedule,
        admission=admission,
        execution=Execution(pivot, stores.pivot_store, participants, reporting),
        compensation=Compensation(pivot, stores.pivot_store, participants, reporting),
        takeover=Takeover(
            workers=workers,
            participants=participants,
            pivot_store=stores.pivot_store,
            schedule=schedule,
            membership=membership,
            observer=observer,
        ),
        sweeping=Sweeping(
            ours, participants, observer, SweepRules(retention_days=settings.units.retention_days)
        ),
        watch=watch,
        membership=membership,
        clock=clock,
        observer=observer,
        rules=EngineRules(
            lanes=settings.worker.lanes,
            batch_units_max=settings.batch.max_units,
            lease_ttl_seconds=ttl,
        ),
        bell=bell,
        outbox_bell=outbox_bell,
    )
    return Assembly(
        engine=engine,
        intake=UnitIntake(
            settings.kafka.bootstrap_servers,
            settings.kafka.group_id,
            [settings.topics.units],
            admission,
            max_records=settings.batch.max_units,
        ),
        relay=Relay(
            settings.kafka.bootstrap_servers,
            outbox,
            outbox_bell,
            lease_ttl_seconds=ttl,
            limits=limits_bytes,
        ),
        workers=workers,
        operators=JournalOperators(pool, announces, who="http"),
        schedule=schedule,
        bell=bell,
        outbox_bell=outbox_bell,
    )
