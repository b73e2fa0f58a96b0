"""I4 and rule 2: direction is one-way, and journaled before anything is undone."""

from __future__ import annotations

from coordinator.domain.lifecycle import TRANSITIONS, Status
from tests.simulation.history import EachStep, History


class OneWay(EachStep):
    def decided(self, history: History, seq: int, before: Status | None, after: Status) -> None:
        if before is None:
            if after is not Status.ACCEPTED:
                history.fail(f"I4: #{seq} began as {after}")
        elif after not in TRANSITIONS[before].values():
            history.fail(f"I4: #{seq} went from {before} to {after}")

    def recorded(self, history: History, store: str, seq: int, state: str) -> None:
        status = history.status(seq)
        if state != "applied" and status is not Status.COMPENSATING:
            history.fail(f"rule 2: {store} recorded {state} for #{seq}, which is {status}")
