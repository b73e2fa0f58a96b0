"""Before a unit runs again after a lost answer, the journal is asked how it stands (I11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from coordinator.domain.errors import StoreError
from coordinator.engine.ports import Pivot
from coordinator.engine.reporting import Reporting
from coordinator.engine.schedule import Entry, Phase


async def settled(pivot: Pivot, reporting: Reporting, entries: Sequence[Entry]) -> Sequence[Entry]:
    """Drop what has ended without our knowing; entries of one phase.

    Without it a unit that is `rejected` could be applied, because what it was refused for may not
    be so any more; and one that ended long ago could be compensated again: its undo record is
    swept, and the tombstone that would be planted in its place would stay for ever.
    """
    unsettled = [each for each in entries if each.unsettled]
    if not unsettled:
        return entries
    try:
        concluded = await pivot.settle([each.unit for each in unsettled])
    except StoreError as error:
        reporting.interrupted(entries, error)
        return ()
    going_back = {each.unit.seq for each in unsettled if each.phase is Phase.COMPENSATE}
    compensating = {
        seq: cause for seq, cause in concluded.compensating.items() if seq not in going_back
    }
    news = replace(concluded, compensating=compensating)
    reporting.concluded({each.unit.seq: each for each in unsettled}, news)
    for each in unsettled:
        each.unsettled = False
    gone = {*news.ended, *news.compensating, *news.parked, *news.busy, *news.lost}
    return [each for each in entries if each.unit.seq not in gone]
