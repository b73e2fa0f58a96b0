"""Execution over ports: an answer that was lost is settled before anything is applied."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

from coordinator.domain.errors import (
    BatchRefused,
    ErrorCode,
    Problem,
    ResultUnknown,
    StoreBusy,
    StoreError,
)
from coordinator.domain.lifecycle import Status
from coordinator.domain.operation import Plan, Unit
from coordinator.domain.preview import Loaded, Preview
from coordinator.engine.execution import Execution
from coordinator.engine.halving import Tried, try_in_parts
from coordinator.engine.observer import Stage
from coordinator.engine.ports import JOURNAL, Applied, Candidate, Concluded, Refusal
from coordinator.engine.reporting import Reporting
from coordinator.engine.schedule import Entry

PROBLEM = Problem(ErrorCode.CONSTRAINT_VIOLATED, "refused")


def unit(seq: int, *stores: str) -> Unit:
    plan = Plan((), dict.fromkeys(stores, ()), ())
    made: dict[str, Any] = {"seq": seq, "id": f"u{seq}", "plan": plan}
    return cast(Unit, SimpleNamespace(**made, branch=lambda _store: ()))


class Ports:
    """A pivot and a participant that remember what they were asked, in order."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[int, ...]]] = []
        self.settled = Concluded()
        self.load_refuses: set[int] = set()
        self.apply_refuses: set[int] = set()
        self.previews: list[Preview] = []
        self.decision = Concluded()
        self.store = "catalog"

    def _note(self, what: str, units: Sequence[Unit]) -> None:
        self.asked.append((what, tuple(each.seq for each in units)))

    async def settle(self, units: Sequence[Unit]) -> Concluded:
        self._note("settle", units)
        return self.settled

    async def load(self, units: Sequence[Unit]) -> Loaded:
        self._note("load", units)
        if self.load_refuses & {each.seq for each in units}:
            raise BatchRefused("catalog", PROBLEM)
        return Loaded({}, {})

    async def apply(self, _lane: int, units: Sequence[Unit], preview: Preview) -> Applied:
        self._note("apply", units)
        self.previews.append(preview)
        refused = {each.seq: PROBLEM for each in units if each.seq in self.apply_refuses}
        return Applied({each.seq: () for each in units if each.seq not in refused}, refused)

    async def conclude(
        self, candidates: Sequence[Candidate], refusals: Sequence[Refusal], _preview: Preview
    ) -> Concluded:
        self._note("commit", [each.unit for each in candidates])
        self._note("refuse", [each.unit for each in refusals])
        return self.decision


class Reports:
    """What was reported back, in place of `Reporting`."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, str, int]] = []
        self.concluded_seqs: list[int] = []
        self.interrupted_seqs: list[int] = []
        self.aside_seqs: list[int] = []
        self.refused_seqs: list[int] = []
        self.after: dict[int, list[int]] = {}

    def set_aside(self, entry: Entry, *_: object, **__: object) -> None:
        self.aside_seqs.append(entry.unit.seq)

    def refuse(self, entry: Entry, _problem: Problem) -> None:
        self.refused_seqs.append(entry.unit.seq)

    def alone_after(self, entry: Entry, others: Sequence[int]) -> None:
        self.after[entry.unit.seq] = list(others)

    def concluded(self, by_seq: Mapping[int, Entry], concluded: Concluded) -> None:
        self.concluded_seqs += concluded.ended

    def interrupted(self, entries: Sequence[Entry], _error: StoreError) -> None:
        self.interrupted_seqs += [each.unit.seq for each in entries]

    async def run_stage(
        self, stage: Stage, store: str, units: Sequence[Unit], attempt: Callable[..., Any]
    ) -> Tried[Any]:
        self.stages.append((stage.value, store, len(units)))
        return await try_in_parts(units, attempt)


def execution(ports: Ports, reports: Reports, wary_units: int = 1) -> Execution:
    stores = dict.fromkeys(("catalog", "archive"), cast(Any, ports))
    return Execution(cast(Any, ports), "ledger", stores, cast(Reporting, reports), wary_units)


async def test_a_unit_whose_decision_was_lost_is_settled_first() -> None:
    """I11, I2: it was `rejected`; what it was refused for may be otherwise now."""
    ports, reports = Ports(), Reports()
    ports.settled = Concluded(ended={1: (Status.REJECTED, PROBLEM)})
    one = Entry(unit(1, "catalog"), deadline=9.0, unsettled=True)
    two = Entry(unit(2, "catalog"), deadline=9.0)
    await execution(ports, reports).execute(0, [one, two])
    assert ports.asked == [
        ("settle", (1,)),
        ("load", (2,)),
        ("apply", (2,)),
        ("commit", (2,)),
        ("refuse", ()),
    ]
    assert reports.concluded_seqs == [1]


async def test_nothing_is_applied_while_it_cannot_be_settled() -> None:
    class Away(Ports):
        async def settle(self, units: Sequence[Unit]) -> Concluded:
            raise ResultUnknown(JOURNAL, "lost")

    ports, reports = Away(), Reports()
    await execution(ports, reports).execute(0, [Entry(unit(1, "catalog"), 9.0, unsettled=True)])
    assert ("apply", (1,)) not in ports.asked
    assert reports.interrupted_seqs == [1]


async def test_a_unit_that_cannot_even_be_read_does_not_stop_its_batch() -> None:
    """Rule 9."""
    ports, reports = Ports(), Reports()
    ports.load_refuses = {2}
    entries = [Entry(unit(seq, "catalog"), 9.0) for seq in (1, 2, 3)]
    await execution(ports, reports).execute(0, entries)
    assert ("apply", (1, 3)) in ports.asked
    assert ("refuse", (2,)) in ports.asked


async def test_what_the_pivot_could_not_write_is_refused_once_nothing_earlier_is_open() -> None:
    """Rule 9: 2 stands behind nobody, 4 behind 3, which an outsider holds up."""
    ports, reports = Ports(), Reports()
    ports.decision = Concluded(
        ended={1: (Status.COMMITTED, None)}, failing={2: PROBLEM, 4: PROBLEM}, busy=frozenset({3})
    )
    entries = [Entry(unit(seq, "ledger"), 9.0) for seq in (1, 2, 3, 4)]
    await execution(ports, reports).execute(0, entries)
    assert reports.refused_seqs == [2]
    assert reports.after == {4: [3]}


async def test_a_unit_is_not_refused_while_an_earlier_one_of_its_batch_is_open() -> None:
    """Rule 9: what the earlier one has done or will do may be why it fails."""

    class Blaming(Ports):
        async def conclude(
            self, candidates: Sequence[Candidate], refusals: Sequence[Refusal], _preview: Preview
        ) -> Concluded:
            seqs = {each.unit.seq for each in candidates}
            if 1 in seqs:
                raise StoreBusy(JOURNAL, "held", frozenset({1}))
            raise BatchRefused(JOURNAL, PROBLEM, dict.fromkeys(seqs, PROBLEM))

    reports = Reports()
    entries = [Entry(unit(seq, "catalog"), 9.0) for seq in (1, 2)]
    await execution(Blaming(), reports).execute(0, entries)
    assert (reports.aside_seqs, reports.after, reports.refused_seqs) == ([1], {2: [1]}, [])
    alone = Reports()
    await execution(Blaming(), alone).execute(0, entries[1:])
    assert (alone.after, alone.refused_seqs) == ({}, [2])


async def test_each_stage_is_told_with_its_store() -> None:
    ports, reports = Ports(), Reports()
    entries = [Entry(unit(1, "ledger", "catalog"), 9.0), Entry(unit(2, "ledger"), 9.0)]
    await execution(ports, reports).execute(0, entries)
    assert reports.stages == [
        ("load", "ledger", 2),
        ("load", "catalog", 1),
        ("apply", "catalog", 1),
        ("pivot", "journal", 2),
    ]


async def test_a_store_that_refuses_nothing_is_read_in_its_apply_only() -> None:
    ports, reports = Ports(), Reports()
    runs = execution(ports, reports, wary_units=3)

    async def reads(*units: Unit) -> list[str]:
        ports.asked.clear()
        reports.stages.clear()
        await runs.execute(0, [Entry(each, 9.0) for each in units])
        return [store for stage, store, _ in reports.stages if stage == "load"]

    assert await reads(unit(1, "ledger", "catalog"), unit(2, "catalog")) == ["ledger", "catalog"]
    assert await reads(unit(3, "catalog")) == ["catalog"], "two of three are not enough"
    assert await reads(unit(4, "ledger", "catalog")) == ["ledger"], "the pivot's is always read"
    assert ("apply", (4,)) in ports.asked
    # What one store refuses must not have been applied at another.
    assert await reads(unit(5, "catalog", "archive")) == ["catalog", "archive"]
    ports.apply_refuses = {6}
    assert await reads(unit(6, "catalog")) == []
    assert ("refuse", (6,)) in ports.asked
    ports.apply_refuses = set()
    assert await reads(unit(7, "catalog")) == ["catalog"], "wary again"


async def test_a_unit_that_was_not_read_is_known_to_be_new() -> None:
    """Or its store would look for an undo record of an earlier attempt."""
    ports, reports = Ports(), Reports()
    runs = execution(ports, reports, wary_units=0)
    again = Entry(unit(2, "catalog"), 9.0, in_doubt=True)
    await runs.execute(0, [Entry(unit(1, "catalog"), 9.0), again])
    [preview] = ports.previews
    assert [preview.tried_before(seq) for seq in (1, 2)] == [False, True]
