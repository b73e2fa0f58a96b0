"""I3: an operation takes effect at most once, and is undone at most once."""

from __future__ import annotations

from coordinator.memory.witness import RowWrite, Way
from tests.simulation.history import EachStep, History


class Once(EachStep):
    def wrote(self, history: History, write: RowWrite) -> None:
        if write.way is Way.STRANGER:
            return
        is_forward = write.way is Way.FORWARD
        earlier = (history.forward if is_forward else history.undone).get(write.seq, ())
        for each in earlier:
            if each.at == write.at and (each.position == write.position or not is_forward):
                how = write.way.name.lower()
                history.fail(f"I3: #{write.seq} wrote {write.at} twice ({how})")
        undone = history.undone.get(write.seq, ()) if is_forward else ()
        if any(each.store == write.store for each in undone):
            history.fail(f"I3: #{write.seq} wrote {write.at} after its undo")
