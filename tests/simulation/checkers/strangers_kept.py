"""I6: an undo never overwrites what somebody else wrote after us, unless the entity says so."""

from __future__ import annotations

from coordinator.domain.entity import ForeignWritePolicy
from coordinator.memory.witness import RowWrite, Way
from tests.simulation.history import EachStep, History
from tests.simulation.shop import SHOP


class StrangersKept(EachStep):
    def wrote(self, history: History, write: RowWrite) -> None:
        if write.way is not Way.UNDO:
            return
        entity = SHOP.entities[write.at[0]]
        if entity.on_foreign_write is ForeignWritePolicy.FORCE:
            return
        ours = [each for each in history.forward.get(write.seq, ()) if each.at == write.at]
        left, found = ours[-1].after, write.before
        if history.only_counts(write.seq, write.at):
            if any(history.only_counts(each, write.at) for each in history.by_hand):
                return
            # It may have been shared: the version that we left is that of our last write there.
            left = [e for e in history.by_key[write.at] if e.way is not Way.STRANGER][-1].after
        if left is None or found is None:
            if left is not found:
                history.fail(f"I6: the undo of #{write.seq} wrote over a stranger's {write.at}")
            return
        names = {name for each in ours for name in each.written}
        if any(each.before is None or each.after is None for each in ours):
            names = set(left)
        for name in sorted(names):
            if left.get(name) != found.get(name):
                history.fail(
                    f"I6: the undo of #{write.seq} wrote over a stranger's {name} of {write.at}"
                )
