"""Sweeping: undo records a while after their unit is final, journal rows after the retention.

A journal row goes only when every participant has confirmed its sweep (DESIGN 5.5), because an
undo record without a unit means that the journal has lost its tail (rule 10).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from coordinator.domain.errors import StoreError
from coordinator.engine.observer import Observer
from coordinator.engine.ports import Journal, Participant
from coordinator.fault_points import FaultPoint, reach

_WORKERS_MAX = 100
_WORKER_AGE_DAYS_MIN = 1.0


@dataclass(frozen=True, slots=True)
class SweepRules:
    """When what may go. ``units_max`` bounds one round."""

    undo_age_seconds: float = 600.0
    retention_days: float = 7.0
    units_max: int = 1000


class Sweeping:
    """Deletes what nobody needs any more, in small rounds."""

    def __init__(
        self,
        journal: Journal,
        participants: Mapping[str, Participant],
        observer: Observer,
        rules: SweepRules,
        away: Callable[[], Collection[str]],
    ) -> None:
        self._away = away
        self._journal = journal
        self._participants = participants
        self._observer = observer
        self._rules = rules

    async def tidy(self) -> None:
        """Forget workers, mappings and verbs that are history; a few at a time.

        The fences go first: a worker whose row is left is found again when a store was away.
        """
        rules = self._rules
        age_days = max(rules.retention_days, _WORKER_AGE_DAYS_MIN)
        workers = await self._journal.buried(age_days, _WORKERS_MAX)
        if workers:
            for participant in self._participants.values():
                await participant.forget_workers(workers)
            await self._journal.forget_workers(workers)
        await self._journal.forget_history(rules.retention_days, rules.units_max)

    async def run_once(self) -> bool:
        """Sweep one round at every store, then forget old units; whether there is more to do."""
        rules = self._rules
        present = self._participants.keys() - self._away()
        due = await self._journal.unswept(rules.undo_age_seconds, rules.units_max, present)
        failed: set[str] = set()
        for store, participant in self._participants.items():
            ids = [unit_id for unit_id, stores in due if store in stores]
            if not ids:
                continue
            try:
                reach(FaultPoint.SWEEP_STORE_BEFORE, store)
                await participant.sweep(ids)
                reach(FaultPoint.SWEEP_STORE_AFTER, store)
            except StoreError as error:
                failed.add(store)
                self._observer.duty_failed(f"sweep at {store}", error)
        done = [unit_id for unit_id, stores in due if not failed.intersection(stores)]
        if done:
            await self._journal.swept(done)
            self._observer.swept(len(done))
        forgotten = await self._journal.forget(rules.retention_days, rules.units_max)
        return rules.units_max in (len(done), forgotten)
