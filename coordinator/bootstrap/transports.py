"""Connections that are allowed to go unprotected: told of at every start, and counted."""

from __future__ import annotations

from coordinator.daemon.metrics import Metrics
from coordinator.log_events import LogEvent
from coordinator.logs import get_log
from coordinator.settings import Settings, connections

log = get_log()


def unprotected(settings: Settings) -> dict[str, str]:
    """Give the connections that others could read or change, each with a sentence."""
    return {
        each.name: f"It {each.why_open}. {each.switch} allows it."
        for each in connections(settings)
        if each.transport.is_open
    }


def tell_unprotected(settings: Settings, metrics: Metrics) -> None:
    """Warn of each, and set the metric for every connection."""
    found = unprotected(settings)
    for each in connections(settings):
        metrics.transport_unprotected.labels(each.name).set(each.name in found)
    for name, sentence in found.items():
        log.warning(
            LogEvent.TRANSPORT_UNPROTECTED,
            f"The connection {name} is not protected on its way. {sentence}",
            connection=name,
        )
