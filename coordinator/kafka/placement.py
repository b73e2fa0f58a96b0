"""Where reading a partition begins: the journal says so, and Kafka says whether it still can.

Pure. Kafka's own committed offsets are never asked (H18): after a failover of the journal that
lost commits they would be ahead of it, and units would be skipped.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Start:
    """Read from ``offset``. ``lost`` records before it were deleted unread by retention."""

    offset: int
    lost: int = 0


@dataclass(frozen=True, slots=True)
class BeyondEnd:
    """The journal has read further than the log reaches: it is not the log that we knew."""

    position: int
    end: int


def place(position: int | None, beginning: int, end: int) -> Start | BeyondEnd:
    """Decide by the journal's next offset (None: never read) and the log's bounds."""
    if position is None:
        return Start(beginning)
    if position > end:
        return BeyondEnd(position, end)
    if position < beginning:
        return Start(beginning, lost=beginning - position)
    return Start(position)
