"""The daemon's metrics, for Prometheus to scrape.

Owns the names and their help texts. Cheap to bump per batch: counters take an amount, and
durations are put into their buckets here, in one pass over a batch, since the library's own
histogram takes a lock and walks its buckets for every value. No label has values without bound:
never a unit's id, a key or a message.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Info
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from coordinator import __version__

UNIT_BUCKETS_SECONDS: Final = (
    0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
BATCH_BUCKETS_UNITS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class BatchedHistogram:
    """A histogram with labels that takes many values at once."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]
    ) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._bounds = list(bounds)
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, labels: tuple[str, ...], values: Iterable[float]) -> None:
        """Count the values under the labels' values."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._bounds) + 1)
            self._sums[labels] = 0.0
        bounds, total = self._bounds, 0.0
        for value in values:
            counts[bisect_left(bounds, value)] += 1
            total += value
        self._sums[labels] += total

    def collect(self) -> Iterator[Metric]:
        """Give the family, as the registry asks for it."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        bounds = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for labels, counts in self._counts.items():
            buckets = list(zip(bounds, accumulate(counts), strict=True))
            family.add_metric(labels, buckets, self._sums[labels])
        yield family


class Metrics:
    """Every metric of one daemon, in a registry of its own. Used in the event loop's thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._finished_by_status: dict[str, Counter] = {}
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        Info("coordinator_build", "The running version.", registry=self.registry).info(
            {"version": __version__}
        )
        self.units_received = self._counter(
            "units_received", "Records read and journaled, whatever became of each."
        )
        self.units_admitted = self._counter("units_admitted", "Units whose intent was journaled.")
        self.units_duplicate = self._counter("units_duplicate", "Ids that came again (F4).")
        self.units_finished = self._counter(
            "units_finished", "Final decisions and parkings.", "status"
        )
        self.units_refused = self._counter("units_refused", "Units that did not commit.", "code")
        self.forbidden = self._counter(
            "forbidden", "Records beyond their authority, cancels too.", "topic", "breach"
        )
        self.dead_letters = self._counter("dead_letters", "Records kept as dead letters.", "code")
        self.records_set_aside = self._counter(
            "records_set_aside", "Offsets kept as dead letters unread: deadly, or too much."
        )
        self.unit_duration = self._histogram(
            "unit_duration_seconds",
            "From admission to the end.",
            ("status",),
            UNIT_BUCKETS_SECONDS,
        )
        self.batch_units = self._histogram(
            "batch_units",
            "Units per batch, by stage and store.",
            ("stage", "store"),
            BATCH_BUCKETS_UNITS,
        )
        self.stage_duration = self._histogram(
            "stage_duration_seconds",
            "Time per batch, by stage and store.",
            ("stage", "store"),
            UNIT_BUCKETS_SECONDS,
        )
        self.batch_retries = self._counter(
            "batch_retries", "Batches that ran again, by store.", "store"
        )
        self.results_unknown = self._counter(
            "results_unknown", "Replies to a commit that were lost (I11).", "store"
        )
        self.compensations = self._counter(
            "compensations", "Branches of ended compensations.", "result"
        )
        self.messages_published = self._counter(
            "messages_published", "Messages that Kafka acknowledged.", "topic"
        )
        self.publish_failures = self._counter(
            "publish_failures", "Batches for a topic that were not acknowledged.", "topic"
        )
        self.rebalances = self._counter("rebalances", "Assignments of partitions, empty ones too.")
        self.takeovers = self._counter("takeovers", "Workers whose units were taken over.")
        self.leases_lost = self._counter(
            "leases_lost", "Times at which the lease was not renewed in time."
        )
        self.units_in_flight = self._gauge("units_in_flight", "Units admitted and not yet ended.")
        self.units_in_flight_bytes = self._gauge(
            "units_in_flight_bytes", "What those units take, as backlog.max_bytes counts."
        )
        self.units_parked = self._gauge("units_parked", "Units that wait for a person.")
        self.oldest_unit_age = self._gauge(
            "oldest_unit_age_seconds", "Age of the oldest open unit not parked; 0 without any."
        )
        self.outbox_rows = self._gauge(
            "outbox_rows", "The journal's outbox rows not yet published."
        )
        self.outbox_oldest_age = self._gauge(
            "outbox_oldest_age_seconds", "Age of the oldest of them; 0 without any."
        )
        self.intake_paused = self._gauge("intake_paused", "1 while the backlog is at a bound.")
        self.intake_at_bound = self._gauge(
            "intake_at_bound", "1 while this bound holds intake back.", "bound"
        )
        self.partitions_parked = self._gauge(
            "partitions_parked", "Partitions that are not read until a person has looked."
        )
        self.consumer_lag = self._gauge(
            "consumer_lag_records", "Records not yet read.", "topic", "partition"
        )
        self.dependency_up = self._gauge("dependency_up", "0 while a server is away.", "name")
        self.transport_unprotected = self._gauge(
            "transport_unprotected",
            "1 for a connection that leaves the machine unencrypted or unverified.",
            "name",
        )
        self.event_loop_lag = self._gauge(
            "event_loop_lag_seconds", "How late the last heartbeat of the event loop was."
        )

    def finished(self, status: str, durations_seconds: Sequence[float]) -> None:
        """Count a batch's units that ended in ``status``, one duration each."""
        counter = self._finished_by_status.get(status)
        if counter is None:  # to ask for it by its label each time costs more than to count
            counter = self._finished_by_status[status] = self.units_finished.labels(status)
        counter.inc(len(durations_seconds))
        self.unit_duration.observe((status,), durations_seconds)

    def dependency_changed(self, name: str, is_up: bool) -> None:
        """Note that a server went away or came back; fits `Health`'s ``on_change``."""
        self.dependency_up.labels(name).set(1 if is_up else 0)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"coordinator_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"coordinator_{name}", text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]
    ) -> BatchedHistogram:
        histogram = BatchedHistogram(f"coordinator_{name}", text, labels, bounds)
        self.registry.register(histogram)
        return histogram
