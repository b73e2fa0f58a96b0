"""I2: at rest a unit is applied in all its stores or in none, or is parked."""

from __future__ import annotations

from coordinator.domain.lifecycle import Status
from tests.simulation.history import Rest


def check(rest: Rest) -> None:
    history = rest.history
    for row in rest.world.journal.units.values():
        applied = {store for store in row.stores if history.stands_applied(row.seq, store)}
        fail = f"I2: {row.id}#{row.seq} is {row.status} and stands applied at {sorted(applied)}"
        if row.status is Status.COMMITTED:
            if applied != row.stores:
                history.fail(f"{fail} of {sorted(row.stores)}")
        elif row.status is Status.PARKED:
            if not applied:
                history.fail(f"{fail}: it is parked for nothing")
        elif applied and row.seq not in history.by_hand:
            history.fail(fail)
