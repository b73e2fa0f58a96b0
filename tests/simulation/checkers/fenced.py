"""I9: a fenced worker changes nothing."""

from __future__ import annotations

from coordinator.engine.ports import JOURNAL
from coordinator.memory.witness import RowWrite, Way
from tests.simulation.history import EachStep, History


class FencedChangesNothing(EachStep):
    def wrote(self, history: History, write: RowWrite) -> None:
        if write.way is Way.STRANGER or history.world is None:
            return
        is_pivot = write.store == history.world.pivot_store
        self.changed(history, JOURNAL if is_pivot else write.store, write.worker, str(write.at))

    def changed(self, history: History, store: str, worker: int, what: str) -> None:
        if (store, worker) in history.fences:
            history.fail(f"I9: worker {worker} is fenced at {store} and still did: {what}")
