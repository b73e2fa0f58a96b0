"""The parts of one running worker, wired to each other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from coordinator import __version__
from coordinator.bootstrap.intakes import intake_rules
from coordinator.bootstrap.journal import JournalAccess
from coordinator.bootstrap.kafka_security import kafka_options
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
from coordinator.journal.epoch import Epoch
from coordinator.journal.fresh_rows import FreshRows
from coordinator.journal.journal import WorkersJournal
from coordinator.journal.operators import JournalOperators
from coordinator.journal.outbox import JournalOutbox
from coordinator.journal.pivot import JournalPivot
from coordinator.journal.workers import JournalWorkers
from coordinator.kafka.intake import UnitIntake
from coordinator.kafka.relay import Relay
from coordinator.settings import Settings

_SWEEP_POLL_SECONDS_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Assembly:
    """What the daemon supervises."""

    engine: Engine
    intake: UnitIntake
    relay: Relay
    outbox: JournalOutbox
    workers: JournalWorkers
    operators: JournalOperators
    schedule: Schedule
    bell: asyncio.Event
    outbox_bell: asyncio.Event


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


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The world beside the servers."""

    clock: Clock
    chance: Chance
    observer: Observer


@dataclass(frozen=True, slots=True)
class _Worker:
    """What the parts of one worker share."""

    settings: Settings
    journal: JournalAccess
    stores: Stores
    around: Surroundings
    announcer: Announcer
    schedule: Schedule
    bell: asyncio.Event
    outbox_bell: asyncio.Event
    fresh_rows: FreshRows


def assemble(
    settings: Settings,
    journal: JournalAccess,
    stores: Stores,
    limits_bytes: Mapping[str, int],
    around: Surroundings,
) -> Assembly:
    """Wire the parts; nothing runs yet."""
    worker = _Worker(
        settings,
        journal,
        stores,
        around,
        announcer(settings, limits_bytes),
        Schedule(),
        asyncio.Event(),
        asyncio.Event(),
        FreshRows(),
    )
    ttl = settings.worker.lease_ttl_seconds
    epoch = Epoch()
    workers = JournalWorkers(journal.pool, journal.worker, ttl, journal.mappings, epoch)
    engine = _engine(worker, workers, epoch)
    outbox = JournalOutbox(journal.pool, journal.worker, ttl, worker.fresh_rows)
    return Assembly(
        engine=engine,
        intake=UnitIntake(
            settings.kafka.bootstrap_servers,
            settings.kafka.group_id,
            [intake.topic for intake in settings.intakes],
            engine.admission,
            max_records=settings.batch.max_units,
            instance_id=settings.kafka.group_instance_id,
            unpacked_bytes_max=settings.kafka.unpacked_batch_max_bytes,
            client_options=kafka_options(settings),
        ),
        relay=Relay(
            settings.kafka.bootstrap_servers,
            outbox,
            worker.outbox_bell,
            lease_ttl_seconds=ttl,
            limits=limits_bytes,
            client_options=kafka_options(settings),
        ),
        outbox=outbox,
        workers=workers,
        operators=JournalOperators(journal.pool, worker.announcer, who="http"),
        schedule=worker.schedule,
        bell=worker.bell,
        outbox_bell=worker.outbox_bell,
    )


def _engine(worker: _Worker, workers: JournalWorkers, epoch: Epoch) -> Engine:
    settings, stores, around = worker.settings, worker.stores, worker.around
    access, schedule = worker.journal, worker.schedule
    journal = WorkersJournal(
        access.pool, access.worker, worker.announcer, access.mappings, epoch, stores.pivot_store
    )
    pivot = JournalPivot(
        access.pool,
        access.worker,
        worker.announcer,
        stores.pivot_tables,
        worker.fresh_rows,
        around.clock,
    )
    probes = {JOURNAL: journal.ping}
    probes.update({name: each.ping for name, each in stores.participants.items()})
    watch = StoreWatch(
        probes=probes,
        schedule=schedule,
        clock=around.clock,
        chance=around.chance,
        observer=around.observer,
        bell=worker.bell,
    )
    reporting = Reporting(schedule, watch, around.clock, around.chance, around.observer)
    membership = Membership(workers, schedule, around.clock)
    backward = Compensation(pivot, stores.pivot_store, stores.participants, reporting)
    return Engine(
        journal=journal,
        workers=workers,
        participants=stores.participants,
        schedule=schedule,
        admission=_admission(worker, journal, membership),
        execution=Execution(pivot, stores.pivot_store, stores.participants, reporting),
        compensation=backward,
        takeover=Takeover(
            workers=workers,
            participants=stores.participants,
            pivot_store=stores.pivot_store,
            schedule=schedule,
            membership=membership,
            observer=around.observer,
        ),
        sweeping=Sweeping(
            journal,
            stores.participants,
            around.observer,
            SweepRules(
                undo_age_seconds=settings.units.undo_retention_seconds,
                retention_days=settings.units.retention_days,
            ),
            away=lambda: schedule.away,
        ),
        watch=watch,
        membership=membership,
        clock=around.clock,
        observer=around.observer,
        rules=EngineRules(
            lanes=settings.worker.lanes,
            batch_units_max=settings.batch.max_units,
            lease_ttl_seconds=settings.worker.lease_ttl_seconds,
            sweep_poll_seconds=min(
                _SWEEP_POLL_SECONDS_MAX, settings.units.undo_retention_seconds / 4
            ),
        ),
        bell=worker.bell,
        outbox_bell=worker.outbox_bell,
    )


def _admission(worker: _Worker, journal: WorkersJournal, membership: Membership) -> Admission:
    settings, around = worker.settings, worker.around
    return Admission(
        journal=journal,
        schedule=worker.schedule,
        mapping=worker.stores.mapping,
        rules=AdmissionRules(
            max_bytes=settings.units.max_bytes,
            timeout_ms=settings.units.timeout_ms,
            intakes=intake_rules(settings, worker.stores.mapping),
            dead_letters_topic=settings.topics.dead_letters,
            backlog_units_max=settings.backlog.max_units,
            backlog_bytes_max=settings.backlog.max_bytes,
            backlog_parked_max=settings.backlog.max_parked,
            records_per_second=settings.backlog.max_units_per_second,
        ),
        announcer=worker.announcer,
        drawing=Drawing(around.clock, around.chance),
        clock=around.clock,
        observer=around.observer,
        membership=membership,
        bell=worker.bell,
        outbox_bell=worker.outbox_bell,
    )
