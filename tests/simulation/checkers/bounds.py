"""F23: no write of ours, forward or back, takes a counter past its bounds, at any moment."""

from __future__ import annotations

from coordinator.memory.witness import RowWrite, Way
from tests.simulation.history import EachStep, History
from tests.simulation.shop import SHOP


class Bounds(EachStep):
    def wrote(self, history: History, write: RowWrite) -> None:
        if write.way is Way.STRANGER or write.after is None:
            return
        if not history.only_counts(write.seq, write.at):
            return
        counter = SHOP.entities[write.at[0]].fields["n"]
        after = write.after["n"]
        before = after if write.before is None else write.before["n"]
        if after is None or before is None:
            return
        # What a stranger has brought past them is not ours to bring back.
        if after < counter.min <= before or (
            counter.max is not None and after > counter.max >= before
        ):
            history.fail(f"F23: #{write.seq} took n of {write.at} from {before} to {after}")
