"""Connections that are allowed to go unprotected: told of at every start, and counted."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.daemon.metrics import Metrics
from coordinator.domain.errors import ConfigurationInvalid
from coordinator.hosts import all_on_this_machine
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


def refuse_members_elsewhere(settings: Settings, store: str, members: Sequence[str]) -> None:
    """Raise `ConfigurationInvalid` when a replica set names members beyond this machine.

    The driver goes where the members tell it, whatever machine the URI names, unless it connects
    to one of them directly.
    """
    for each in connections(settings):
        if each.name != store or each.place[-1] != "uri":
            continue
        if each.transport.is_verified or each.transport.is_direct or each.allow_plaintext:
            continue
        if not all_on_this_machine(members):
            raise ConfigurationInvalid(
                [
                    f"stores.{store}.uri: leads off this machine, since the replica set names "
                    f"{', '.join(sorted(members))}; {each.remedy}"
                ]
            )
