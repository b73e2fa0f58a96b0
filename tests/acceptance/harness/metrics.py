"""What a daemon's `/metrics` says."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.harness.daemon import Daemon
from tests.acceptance.harness.waiting import until


class Scrape:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self._samples = [
            each for family in text_string_to_metric_families(text) for each in family.samples
        ]

    def values(self, name: str, /, **labels: str) -> list[float]:
        """Give the samples of that name (without `coordinator_`) that have these labels."""
        return [
            each.value
            for each in self._samples
            if each.name == f"coordinator_{name}" and labels.items() <= each.labels.items()
        ]

    def total(self, name: str, /, **labels: str) -> float:
        """Give their sum, 0 if there is none."""
        return sum(self.values(name, **labels))


async def scraped(daemon: Daemon) -> Scrape:
    """Scrape once."""
    status, text = await daemon.get("/metrics")
    return Scrape(text if status == 200 else "")


async def scraped_until(daemon: Daemon, holds: Callable[[Scrape], bool], what: str) -> Scrape:
    """Scrape until something holds; it is counted now and then only."""

    async def look() -> Scrape | None:
        scrape = await scraped(daemon)
        return scrape if holds(scrape) else None

    found = await until(look, what, 60, daemon.tail)
    assert found is not None
    return found
