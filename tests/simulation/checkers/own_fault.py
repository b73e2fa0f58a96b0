"""I11: a unit is refused for what it is or meets, never because a store did not answer."""

from __future__ import annotations

from coordinator.domain.errors import ErrorCode
from tests.simulation.history import Rest


def check(rest: Rest) -> None:
    for row in rest.world.journal.units.values():
        for problem in (row.cause, row.problem):
            # No store of the shop refuses for want of rights, so this is said by us.
            if problem is not None and problem.code is ErrorCode.STORE_REFUSED:
                name = f"{row.id}#{row.seq}"
                rest.history.fail(f"I11: {name} is {row.status} because: {problem.message}")
