"""Sweeping: a store that is away holds up its own units only; history goes, the fences first."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, cast

import pytest

from coordinator.domain.errors import StoreUnavailable
from coordinator.engine.ports import Journal, Participant
from coordinator.engine.sweeping import Sweeping, SweepRules
from tests.engine_fakes import MemoryParticipant, SeenObserver


class History:
    """As much of a journal as sweeping sees: ``units`` maps an id to its stores."""

    def __init__(self, log: list[tuple[Any, ...]]) -> None:
        self.units: dict[str, frozenset[str]] = {}
        self.old_workers: list[int] = []
        self._log = log

    async def unswept(
        self, age_seconds: float, limit: int, stores: Collection[str]
    ) -> Sequence[tuple[str, Sequence[str]]]:
        due = [(one, tuple(needs)) for one, needs in self.units.items() if needs <= set(stores)]
        return due[:limit]

    async def swept(self, unit_ids: Sequence[str]) -> None:
        for each in unit_ids:
            del self.units[each]

    async def forget(self, retention_days: float, limit: int) -> int:
        return 0

    async def forget_history(self, retention_days: float, limit: int) -> None:
        self._log.append(("history", retention_days))

    async def buried(self, age_days: float, limit: int) -> Sequence[int]:
        assert age_days >= 1
        return self.old_workers

    async def forget_workers(self, workers: Collection[int]) -> None:
        self._log.append(("forget in the journal", *workers))


def sweeping(
    log: list[tuple[Any, ...]], history: History, away: Collection[str], *, units_max: int = 2
) -> tuple[Sweeping, dict[str, MemoryParticipant]]:
    stores = {name: MemoryParticipant(name, log) for name in ("catalog", "archive")}
    made = Sweeping(
        cast(Journal, history),
        cast(dict[str, Participant], stores),
        SeenObserver(),
        SweepRules(units_max=units_max, retention_days=0.01),
        away=lambda: away,
    )
    return made, stores


async def test_units_of_a_store_that_is_away_or_gone_do_not_stand_in_the_way() -> None:
    log: list[tuple[Any, ...]] = []
    history = History(log)
    history.units = {f"old{n}": frozenset({"archive"}) for n in range(5)}
    history.units |= {f"gone{n}": frozenset({"was removed"}) for n in range(5)}
    history.units |= {f"new{n}": frozenset({"catalog"}) for n in range(3)}
    made, _ = sweeping(log, history, {"archive"})
    assert await made.run_once(), "there is more to do"
    assert not await made.run_once()
    assert not [one for one in history.units if one.startswith("new")]
    assert log == [("sweep", "catalog", ("new0", "new1")), ("sweep", "catalog", ("new2",))]


async def test_a_worker_is_forgotten_everywhere_before_the_journal_forgets_it() -> None:
    """I9: what keeps it out at a store must not depend on what the journal has lost."""
    log: list[tuple[Any, ...]] = []
    history = History(log)
    history.old_workers = [3, 5]
    made, stores = sweeping(log, history, ())
    stores["archive"].away = StoreUnavailable("archive", "away")
    with pytest.raises(StoreUnavailable):
        await made.tidy()
    assert ("forget in the journal", 3, 5) not in log
    stores["archive"].away = None
    await made.tidy()
    assert log[1:] == [
        ("forget at", "catalog", 3, 5),
        ("forget at", "archive", 3, 5),
        ("forget in the journal", 3, 5),
        ("history", 0.01),
    ]
