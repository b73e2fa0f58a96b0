"""No metric is declared that nobody sets, and what others count for it is taken over rightly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from coordinator.bootstrap.measuring import Measuring
from coordinator.bootstrap.transports import tell_unprotected
from coordinator.daemon.health import Health
from coordinator.daemon.http import HttpServer
from coordinator.daemon.metrics import Metrics
from coordinator.daemon.observing import LoggingObserver
from coordinator.domain.authority import Breach
from coordinator.domain.entity import FieldType
from coordinator.domain.errors import ErrorCode, Problem, StoreUnavailable
from coordinator.domain.lifecycle import Status
from coordinator.domain.operation import Origin
from coordinator.domain.submission import DeadLetter, RefusedCancel, RefusedEarly
from coordinator.engine.bounds import Bound
from coordinator.engine.observer import Stage
from coordinator.engine.ports import JOURNAL, Admitted, Partition
from coordinator.engine.schedule import Entry, Schedule
from coordinator.journal.outbox import Unpublished
from coordinator.kafka.intake import IntakeState
from coordinator.kafka.sending import Tally
from coordinator.settings import Settings, load_settings
from tests.units import RECEIVED_AT, entity, insert, mapping, unit

Sample = tuple[str, str, tuple[tuple[str, str], ...]]
"""A family, a sample of it, and its labels."""

SHOP = mapping(entity("account", {"id": FieldType.INTEGER}, store="ledger"))
ORIGIN = Origin("units", 0, 5)
PROBLEM = Problem(ErrorCode.NOT_FOUND, "gone")


class Outbox:
    def __init__(self) -> None:
        self.now: Unpublished | None = None

    async def unpublished(self) -> Unpublished:
        if self.now is None:
            raise StoreUnavailable(JOURNAL, "away")
        return self.now


class Daemon:
    """What moves the metrics of a daemon, without one."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.health = Health(on_change=self.metrics.dependency_changed)
        self.measuring = Measuring(self.metrics)
        self.observer = LoggingObserver(
            self.health, self.metrics, lambda: RECEIVED_AT + timedelta(seconds=1), None
        )

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"coordinator_{name}", labels)


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


def intake(
    lag: Mapping[Partition, int],
    *,
    parked: Collection[Partition] = (),
    paused: bool = False,
    rebalances: int = 0,
) -> IntakeState:
    return IntakeState(
        connected=True,
        joined=True,
        paused=paused,
        assigned=frozenset(lag),
        parked=frozenset(parked),
        lag=lag,
        rebalances=rebalances,
    )


def tell_everything(observer: LoggingObserver) -> None:
    """Everything that an engine may tell, once, that is counted."""
    one = unit(SHOP, insert("account", 1))
    observer.received(3)
    observer.admitted(Admitted(RECEIVED_AT, frozenset(), (one,), frozenset(), 1, (), (), ()))
    observer.cancel_refused(RefusedCancel("u", Breach.CANCEL), ORIGIN)
    observer.dead_letter(DeadLetter(ErrorCode.MALFORMED, "no unit"), ORIGIN)
    observer.record_set_aside(ORIGIN, 6)
    observer.stage_done(Stage.PIVOT, JOURNAL, 1, 0.01)
    observer.batch_failed("pivot at journal", JOURNAL, 2, 3, "refused")
    observer.result_unknown(JOURNAL)
    observer.compensated(1, 1, 1)
    observer.taken_over(7, 1)
    observer.lease_late()
    observer.finished(one, Status.REJECTED, PROBLEM)


def samples(text: str) -> dict[Sample, float]:
    return {
        (family.name, each.name, tuple(sorted(each.labels.items()))): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
        if not each.name.endswith("_created")
    }


def unprotected_settings(folder: Path) -> Settings:
    config = folder / "coordinator.toml"
    config.write_text(Path("config/coordinator.toml").read_text())
    overrides = {"kafka.bootstrap_servers": "broker:9092", "kafka.allow_plaintext": "true"}
    return load_settings(config, overrides, {})


async def test_every_declared_metric_is_set_by_somebody(daemon: Daemon, tmp_path: Path) -> None:
    """Only the parts that set metrics in a daemon are moved here, never a metric by itself."""
    fresh = samples(generate_latest(Metrics().registry).decode())
    tell_everything(daemon.observer)
    schedule = Schedule()
    entry = Entry(unit(SHOP, insert("account", 2)), deadline=9.0)
    schedule.add(entry)
    schedule.park(entry)
    daemon.measuring.look_at_schedule(schedule)
    older = Entry(unit(SHOP, insert("account", 3)), deadline=9.0)
    schedule.add(older)
    daemon.measuring.look_at_oldest(schedule, RECEIVED_AT + timedelta(seconds=4))
    state = intake({("units", 0): 5}, parked={("units", 0)}, paused=True, rebalances=1)
    daemon.measuring.look_at_intake(state)
    daemon.measuring.look_at_bounds({Bound.PARKED})
    daemon.measuring.look_at_relay(Tally(Counter(outcomes=3), Counter(outcomes=1)))
    outbox = Outbox()
    outbox.now = Unpublished(2, 1.5)
    await daemon.measuring.look_at_outbox(outbox)
    tell_unprotected(unprotected_settings(tmp_path), daemon.metrics)
    daemon.health.back("catalog")
    daemon.health.loop_lag_seconds = 0.25
    text = await scraped(daemon)

    names = {family.name for family in Metrics().registry.collect()}
    declared = {name for name in names if name.startswith("coordinator_")}
    assert len(declared) > 25
    seen = samples(text)
    moved = {sample[0] for sample, value in seen.items() if value != fresh.get(sample, 0.0)}
    assert declared - moved == {"coordinator_build"}, "a constant; nothing else may stand still"


async def scraped(daemon: Daemon) -> str:
    server = HttpServer("127.0.0.1:0", daemon.health, daemon.metrics)
    await server.start()
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{server.port}/metrics") as response,
        ):
            return await response.text()
    finally:
        await server.close()


def test_what_is_forbidden_is_counted_by_topic_and_by_how_it_went_too_far(daemon: Daemon) -> None:
    problem = Problem(ErrorCode.FORBIDDEN, "No.", "operations.0.op", 0)
    for breach in (Breach.GRANT, Breach.GRANT, Breach.FORGED):
        refused = RefusedEarly("u", None, (problem,), None, None, breach=breach)
        daemon.observer.refused_early(refused, ORIGIN)
    daemon.observer.refused_early(RefusedEarly("u", None, (PROBLEM,), None, None), ORIGIN)
    assert daemon.value("forbidden_total", topic="units", breach="grant") == 2
    assert daemon.value("forbidden_total", topic="units", breach="forged") == 1
    assert daemon.value("units_refused_total", code="forbidden") == 3


def test_batches_are_told_apart_by_stage_and_store(daemon: Daemon) -> None:
    daemon.observer.stage_done(Stage.APPLY, "catalog", 100, 0.02)
    daemon.observer.stage_done(Stage.APPLY, "archive", 50, 3.0)
    assert daemon.value("batch_units_sum", stage="apply", store="catalog") == 100
    assert daemon.value("batch_units_sum", stage="apply", store="archive") == 50
    assert daemon.value("stage_duration_seconds_sum", stage="apply", store="archive") == 3.0
    assert daemon.value("stage_duration_seconds_count", stage="apply", store="catalog") == 1


def test_compensated_branches_are_counted_by_what_was_found(daemon: Daemon) -> None:
    daemon.observer.compensated(2, 1, 0)
    daemon.observer.compensated(1, 0, 0)
    assert daemon.value("compensations_total", result="undone") == 3
    assert daemon.value("compensations_total", result="untouched") == 1
    assert daemon.value("compensations_total", result="parked") is None


def test_what_others_count_is_taken_over_once(daemon: Daemon) -> None:
    tally = Tally()
    tally.published["outcomes"] += 3
    daemon.measuring.look_at_relay(tally)
    daemon.measuring.look_at_relay(tally)
    assert daemon.value("messages_published_total", topic="outcomes") == 3
    tally.published["outcomes"] += 2
    tally.failures["changes"] += 1
    daemon.measuring.look_at_relay(tally)
    assert daemon.value("messages_published_total", topic="outcomes") == 5
    assert daemon.value("publish_failures_total", topic="changes") == 1
    for rebalances in (1, 1, 3):
        daemon.measuring.look_at_intake(intake({}, rebalances=rebalances))
    assert daemon.value("rebalances_total") == 3


def test_a_partition_that_goes_takes_its_lag_with_it(daemon: Daemon) -> None:
    daemon.measuring.look_at_intake(intake({("units", 0): 5, ("units", 1): 0}, paused=True))
    assert daemon.value("consumer_lag_records", topic="units", partition="0") == 5
    assert daemon.value("consumer_lag_records", topic="units", partition="1") == 0
    assert daemon.value("intake_paused") == 1
    daemon.measuring.look_at_intake(intake({("units", 1): 2}))
    assert daemon.value("consumer_lag_records", topic="units", partition="0") is None
    assert daemon.value("consumer_lag_records", topic="units", partition="1") == 2
    assert daemon.value("intake_paused") == 0


async def test_while_the_journal_is_away_the_outbox_keeps_its_last_figures(daemon: Daemon) -> None:
    outbox = Outbox()
    outbox.now = Unpublished(4, 2.5)
    await daemon.measuring.look_at_outbox(outbox)
    outbox.now = None
    await daemon.measuring.look_at_outbox(outbox)
    assert daemon.value("outbox_rows") == 4
    assert daemon.value("outbox_oldest_age_seconds") == 2.5


def test_the_oldest_unit_is_the_one_admitted_first_that_waits_for_no_person(
    daemon: Daemon,
) -> None:
    schedule = Schedule()
    late, early, parked = (
        Entry(unit(SHOP, insert("account", key), seq=seq), deadline=9.0)
        for key, seq in ((4, 30), (5, 20), (6, 10))
    )
    early.unit = early.unit._replace(received_at=RECEIVED_AT - timedelta(seconds=60))
    for each in (late, early, parked):  # what is taken over comes late, and is older
        schedule.add(each)
    schedule.park(parked)
    daemon.measuring.look_at_oldest(schedule, RECEIVED_AT + timedelta(seconds=5))
    assert daemon.value("oldest_unit_age_seconds") == 65
    schedule.end(20)
    daemon.measuring.look_at_oldest(schedule, RECEIVED_AT + timedelta(seconds=5))
    assert daemon.value("oldest_unit_age_seconds") == 5
    schedule.end(30)
    daemon.measuring.look_at_oldest(schedule, RECEIVED_AT + timedelta(seconds=5))
    assert daemon.value("oldest_unit_age_seconds") == 0
