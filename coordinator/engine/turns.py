"""In which order sharers are concluded: what both pivots, the real one and that in memory, ask.

Pure. Inside a pivot's transaction a unit may turn out not to commit: cancelled, too late, refused,
or no longer ours. If it may have been applied elsewhere it stays open until it is undone, and
what was applied on top of it, in order, waits for that; its images are told anew afterwards.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from coordinator.domain.sharing import Line
from coordinator.engine.ports import Candidate, Refusal


def in_turn(
    candidates: Sequence[Candidate],
    refusals: Sequence[Refusal],
    going: Sequence[Candidate],
    ended: Collection[int],
) -> tuple[Line | None, Sequence[Candidate], frozenset[int]]:
    """Give the line of a pivot, who of ``going`` may go, and the ``seq`` of those who may not.

    ``ended`` are final by now. For the data part the line stops nobody behind a unit whose
    refusal ends it.
    """
    units = [*(each.unit for each in candidates), *(each.unit for each in refusals)]
    line = Line.of(units)
    if line is None:
        return None, going, frozenset()
    line.harmless = frozenset(each.unit.seq for each in candidates if not each.in_doubt)
    seqs = {each.unit.seq for each in going}
    for unit in units:
        if unit.seq not in seqs and unit.seq not in ended:
            line.stop(unit)
    kept: list[Candidate] = []
    behind: set[int] = set()
    for each in going:
        if line.holds(each.unit):
            behind.add(each.unit.seq)
        else:
            kept.append(each)
    return line, kept, frozenset(behind)
