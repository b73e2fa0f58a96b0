"""What the daemon counts of what the engine tells it."""

from __future__ import annotations

from datetime import UTC, datetime

from prometheus_client import CollectorRegistry

from coordinator.daemon.health import Health
from coordinator.daemon.metrics import Metrics
from coordinator.daemon.observing import LoggingObserver


def _value(registry: CollectorRegistry, name: str, store: str) -> float | None:
    return registry.get_sample_value(f"coordinator_{name}_total", {"store": store})


def test_batches_in_parts_and_lost_replies_are_counted_per_store() -> None:
    metrics = Metrics()
    observer = LoggingObserver(Health(), metrics, lambda: datetime.now(UTC), None)
    observer.batch_failed("apply at catalog", "catalog", 10, 4, "refused")
    observer.batch_failed("pivot", "journal", 10, 4, "refused")
    observer.batch_failed("pivot", "journal", 10, 4, "refused")
    observer.result_unknown("catalog")
    assert _value(metrics.registry, "batch_retries", "catalog") == 1
    assert _value(metrics.registry, "batch_retries", "journal") == 2
    assert _value(metrics.registry, "results_unknown", "catalog") == 1
    assert _value(metrics.registry, "results_unknown", "journal") is None
