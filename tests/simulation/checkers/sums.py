"""Sums of increments are exact: no delta is lost, none counts twice (I2, I3)."""

from __future__ import annotations

from coordinator.memory.witness import Way
from tests.simulation.history import Rest


def check(rest: Rest) -> None:
    for at, first in rest.first_rows.items():
        writes = rest.history.by_key.get(at, ())
        taken_back = {write.seq for write in writes if write.way is Way.UNDO}
        expected = first["n"] + sum(
            write.delta
            for write in writes
            if write.way is Way.STRANGER
            or (write.way is Way.FORWARD and write.seq not in taken_back)
        )
        row = rest.world.stores[rest.world.mapping.entities[at[0]].store].rows[at]
        if row is None or row["n"] != expected:
            rest.history.fail(f"sum: n of {at} should be {expected}, the row is {row}")
