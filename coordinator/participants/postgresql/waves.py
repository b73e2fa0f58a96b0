"""Which writes of a batch can share a statement, and in which order statements must run.

Pure. A unit's operations act in its plan's order (F13, F14), so they are spread over *levels*: an
operation goes to the level of the one before it as long as both can be rows of one statement
(same table, same effect, same columns, another key), and to the next level otherwise. All units
of a batch have different keys (but for those that share a row, see `shared_rows`), so a level of
the batch is the same level of all of its units, and takes one statement per shape::

    unit 1   insert order · update account · update account       level  0       1
    unit 2   update account · delete hold                         level  0       1
    batch    0: INSERT order, UPDATE account   1: UPDATE account, DELETE hold
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.domain.decide import Effect, Image, ImageKey, Write
from coordinator.domain.operation import Unit
from coordinator.participants.postgresql.mapped_table import MappedTable, Texts

Shape = tuple[str, Effect, tuple[str, ...]]
"""(entity, effect, columns that are set)."""


class Step:
    """One operation on its way: as decided, and what the store said it became.

    ``before`` and ``after`` are the row's texts, ``image`` its image afterwards. ``chained``: an
    earlier operation of the unit wrote the key, so it is decided again on what that one left.
    """

    __slots__ = ("after", "at", "before", "chained", "image", "table", "unit", "write")

    def __init__(self, unit: Unit, table: MappedTable, write: Write, chained: bool) -> None:
        self.unit = unit
        self.table = table
        self.write = write
        self.chained = chained
        self.at: ImageKey = (write.operation.entity, write.operation.key_text)
        self.before: Texts | None = None
        self.after: Texts | None = None
        self.image: Image | None = write.after


_ORDERS_MAX = 4096
_sorted: dict[tuple[str, ...], tuple[str, ...]] = {}


def shape_of(write: Write) -> Shape:
    """Give what the rows of one statement have in common, in whatever order they were sent."""
    written = (*write.assigned, *write.unset) if write.unset else tuple(write.assigned)
    columns = _sorted.get(written)
    if columns is None:
        if len(_sorted) >= _ORDERS_MAX:
            _sorted.clear()
        columns = _sorted[written] = tuple(sorted(written))
    return (write.operation.entity, write.effect, columns)


def spread(levels: list[list[Step]], steps: Sequence[Step], above: int = -1) -> None:
    """Put one unit's steps on their levels. A step that writes nothing and follows none is left.

    They come to levels ``above`` that one: where another unit of the batch writes one of its keys.
    """
    if len(steps) == 1:
        _put(levels, above + 1, steps[0])
        return
    level = above
    last: Shape | None = None
    here: set[ImageKey] = set()
    written: set[ImageKey] = set()
    for step in steps:
        at = step.at
        step.chained = step.chained or at in written
        if step.write.effect is Effect.NOTHING and not step.chained:
            continue
        shape = shape_of(step.write)
        if shape != last or at in here:
            level += 1
            last = shape
            here.clear()
        here.add(at)
        written.add(at)
        _put(levels, level, step)


def _put(levels: list[list[Step]], level: int, step: Step) -> None:
    while len(levels) <= level:
        levels.append([])
    levels[level].append(step)
