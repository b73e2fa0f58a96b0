"""I1: no store is touched before the intent is durable, and none after the end."""

from __future__ import annotations

from coordinator.domain.lifecycle import FINAL_STATUSES
from coordinator.memory.witness import RowWrite, Way
from tests.simulation.history import EachStep, History
from tests.simulation.shop import LEDGER


class IntentFirst(EachStep):
    def wrote(self, history: History, write: RowWrite) -> None:
        if write.way is not Way.FORWARD:
            return
        status = history.status(write.seq)
        if status is None:
            history.fail(f"I1: {write.store} was written for unit #{write.seq}, never journaled")
        elif status in FINAL_STATUSES and write.store != LEDGER:
            history.fail(f"I2: {write.at} was written for #{write.seq}, which is {status}")
