"""F6: `compensated` when something had been written and was undone, else `rejected`."""

from __future__ import annotations

from coordinator.domain.lifecycle import Status
from tests.simulation.history import Rest


def check(rest: Rest) -> None:
    history = rest.history
    for row in rest.world.journal.units.values():
        wrote = row.seq in history.forward
        if row.status is Status.REJECTED and wrote:
            history.fail(f"F6: {row.id}#{row.seq} is rejected, and something of it was written")
        if row.status is Status.COMPENSATED and not wrote:
            history.fail(f"F6: {row.id}#{row.seq} is compensated, and nothing of it was written")
