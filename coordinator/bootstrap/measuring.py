"""Keeps the metrics in step with what the parts of a worker know but do not tell.

The engine tells its observer; schedule, intake and relay only count, and the outbox is the
journal's. So they are looked at now and then: never by unit, and the journal rarely.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Protocol

from prometheus_client import Counter

from coordinator.daemon.metrics import Metrics
from coordinator.domain.errors import StoreError
from coordinator.engine.bounds import Bound
from coordinator.engine.ports import Partition
from coordinator.engine.schedule import Schedule
from coordinator.journal.outbox import Unpublished
from coordinator.kafka.intake import IntakeState
from coordinator.kafka.sending import Tally

LOOK_SECONDS = 0.5
OUTBOX_LOOK_SECONDS = 5.0


class Outbox(Protocol):
    """What is asked of `coordinator.journal.outbox.JournalOutbox`."""

    async def unpublished(self) -> Unpublished:
        """Count what is not published."""


class Measuring:
    """One worker's gauges, and the counters that other parts keep for it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._totals: dict[tuple[Counter, str], int] = {}
        self._lagging: frozenset[Partition] = frozenset()

    def look_at_schedule(self, schedule: Schedule) -> None:
        """Tell how many units are open."""
        self._metrics.units_in_flight.set(len(schedule))
        self._metrics.units_in_flight_bytes.set(schedule.weight_bytes)
        self._metrics.units_parked.set(len(schedule.parked))

    def look_at_bounds(self, reached: Collection[Bound]) -> None:
        """Tell which bounds hold intake back."""
        for bound in Bound:
            self._metrics.intake_at_bound.labels(bound.value).set(bound in reached)

    def look_at_oldest(self, schedule: Schedule, now: datetime) -> None:
        """Tell how old the oldest unit is that waits for no person."""
        oldest = schedule.oldest()
        age = 0.0 if oldest is None else (now - oldest.received_at).total_seconds()
        self._metrics.oldest_unit_age.set(max(0.0, age))

    def look_at_intake(self, state: IntakeState) -> None:
        """Tell how reading from Kafka stands; a partition that has gone takes its lag with it."""
        self._metrics.intake_paused.set(state.paused)
        self._metrics.partitions_parked.set(len(state.parked))
        self._count_up_to(self._metrics.rebalances, "", state.rebalances)
        for topic, number in self._lagging - state.lag.keys():
            self._metrics.consumer_lag.remove(topic, str(number))
        for (topic, number), records in state.lag.items():
            self._metrics.consumer_lag.labels(topic, str(number)).set(records)
        self._lagging = frozenset(state.lag)

    def look_at_relay(self, tally: Tally) -> None:
        """Tell what was published, by topic."""
        self._count_all(self._metrics.messages_published, tally.published)
        self._count_all(self._metrics.publish_failures, tally.failures)

    async def look_at_outbox(self, outbox: Outbox) -> None:
        """Tell what waits; when the journal cannot be asked, the last answer stays."""
        try:
            unpublished = await outbox.unpublished()
        except StoreError:
            return  # whoever needs the journal for more than this tells that it is away
        self._metrics.outbox_rows.set(unpublished.rows)
        self._metrics.outbox_oldest_age.set(unpublished.oldest_age_seconds)

    def _count_all(self, counter: Counter, totals: Mapping[str, int]) -> None:
        for label, total in totals.items():
            self._count_up_to(counter, label, total)

    def _count_up_to(self, counter: Counter, label: str, total: int) -> None:
        known = self._totals.get((counter, label), 0)
        if total > known:
            (counter.labels(label) if label else counter).inc(total - known)
            self._totals[counter, label] = total
