"""What the unlocked images foretell of a batch: who is refused before anything is written.

Pure. Nothing here is binding: whoever goes on is decided again under the locks. So a sharer is
only refused here when it fails whatever becomes of those before it, and where one of them may
have been applied by an earlier attempt nothing is foretold, because the images may hold its
deltas. In the journal's store nothing is ever uncommitted between transactions: there a sharer is
foretold as the pivot will find it if all before it commit, and waits when it would be refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from coordinator.domain.decide import Image, ImageKey, Write, decide_branch
from coordinator.domain.errors import Problem, together
from coordinator.domain.operation import Unit
from coordinator.domain.sharing import Escrow, Line, Verdict


class Forecast:
    """What becomes of a batch, by ``seq``.

    ``refused``: with the problem. ``again``: an outsider is in the way. ``waits``: to be tried
    again once the sharers before it have ended. ``chained``: what sharers will write in the
    pivot's store if those before them commit.
    """

    def __init__(self, line: Line | None, pivot_store: str | None) -> None:
        self.refused: dict[int, Problem] = {}
        self.again: set[int] = set()
        self.waits: set[int] = set()
        self.chained: dict[int, tuple[Write, ...]] = {}
        self._line = line
        self._pivot_store = pivot_store
        self._doubtful_keys: set[ImageKey] = set()

    def doubt(self, units: Iterable[Unit]) -> None:
        """Take note of units of which nothing is foretold, or that may be applied already.

        Nothing sure can be told of their keys from the images, nor of those behind them.
        """
        for unit in units:
            self._doubtful_keys.update((lock.entity, lock.key_text) for lock in unit.plan.locks)

    def refuse(self, seq: int, problem: Problem) -> None:
        """Note a refusal; what several stores refuse is told together (F10)."""
        self.refused[seq] = joined(self.refused.get(seq), problem)

    def decide(
        self, store: str, units: Sequence[Unit], images: Mapping[ImageKey, Image | None]
    ) -> dict[int, tuple[Write, ...] | None]:
        """Decide the branches of one store; give the writes, ``None`` for those of sharers."""
        line = self._line
        writes: dict[int, tuple[Write, ...] | None] = {}
        sharing = None if line is None else (line, Escrow(line), dict(images))
        for unit in units:
            if sharing is not None and sharing[0].shares(unit, store):
                writes[unit.seq] = None
                self._decide_sharer(store, unit, *sharing[1:])
                continue
            decided = decide_branch(unit, store, images)
            if isinstance(decided, Problem):
                self.refuse(unit.seq, decided)
            else:
                writes[unit.seq] = decided
        return writes

    def _decide_sharer(
        self, store: str, unit: Unit, escrow: Escrow, images: dict[ImageKey, Image | None]
    ) -> None:
        keys = [(op.entity, op.key_text) for _, op in unit.branch(store)]
        if not self._doubtful_keys.isdisjoint(keys):
            self._doubtful_keys.update(keys)
            return
        verdict = escrow.judge(unit, store, images)
        decided = decide_branch(unit, store, images)
        is_pivot = store == self._pivot_store
        if isinstance(decided, Problem):
            if verdict is not Verdict.WAITS:
                self.refuse(unit.seq, decided)
                return
            self._doubtful_keys.update(keys)
            if not is_pivot or len(unit.plan.branches) > 1:
                self.waits.add(unit.seq)
            return
        if verdict is Verdict.WAITS and not is_pivot:
            self._doubtful_keys.update(keys)
            self.waits.add(unit.seq)
            return
        escrow.take(unit, store, images)
        if is_pivot:
            self.chained[unit.seq] = decided
        for write in decided:
            images[write.operation.entity, write.operation.key_text] = write.after


def joined(one: Problem | None, other: Problem) -> Problem:
    """Give what several stores refuse together, in the written order (F10)."""
    return other if one is None else together((one, other))
