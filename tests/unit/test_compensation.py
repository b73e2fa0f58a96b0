"""Compensation over ports: what may have ended meanwhile is asked for before it is undone again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from coordinator.domain.errors import ErrorCode, Problem, ResultUnknown, StoreError
from coordinator.domain.lifecycle import Status
from coordinator.domain.operation import Unit
from coordinator.engine.compensation import Compensation
from coordinator.engine.halving import Tried, try_in_parts
from coordinator.engine.observer import Stage
from coordinator.engine.ports import JOURNAL, Concluded, Ending, Undone
from coordinator.engine.reporting import Reporting
from coordinator.engine.schedule import Entry, Phase
from tests.unit.test_execution import unit

CAUSE = Problem(ErrorCode.CANCELLED, "cancelled")


class Ports:
    """A pivot and a participant that remember what they were asked, in order."""

    store = "catalog"

    def __init__(self, settled: Concluded | StoreError) -> None:
        self.asked: list[tuple[str, tuple[int, ...]]] = []
        self.settled = settled

    async def settle(self, units: Sequence[Unit]) -> Concluded:
        self.asked.append(("settle", tuple(each.seq for each in units)))
        if isinstance(self.settled, StoreError):
            raise self.settled
        return self.settled

    async def compensate(self, _lane: int, units: Sequence[Unit]) -> Mapping[int, Undone]:
        self.asked.append(("compensate", tuple(each.seq for each in units)))
        return {each.seq: Undone(wrote=False) for each in units}

    async def finish(self, endings: Sequence[Ending]) -> Concluded:
        self.asked.append(("finish", tuple(each.unit.seq for each in endings)))
        return Concluded(ended={each.unit.seq: (Status.REJECTED, CAUSE) for each in endings})


class Reports:
    """What was reported back, in place of `Reporting`."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, str, int]] = []
        self.branches: list[Undone] = []
        self.ended: list[int] = []
        self.compensating: list[int] = []
        self.interrupted_seqs: list[int] = []

    def concluded(self, by_seq: Mapping[int, Entry], concluded: Concluded) -> None:
        self.ended += concluded.ended
        self.compensating += concluded.compensating

    def compensated(self, branches: Iterable[Undone]) -> None:
        self.branches += branches

    def interrupted(self, entries: Sequence[Entry], _error: StoreError) -> None:
        self.interrupted_seqs += [each.unit.seq for each in entries]

    async def run_stage(
        self, stage: Stage, store: str, units: Sequence[Unit], attempt: Callable[..., Any]
    ) -> Tried[Any]:
        self.stages.append((stage.value, store, len(units)))
        return await try_in_parts(units, attempt)


def entry(seq: int, *, unsettled: bool) -> Entry:
    return Entry(unit(seq, "catalog"), 9.0, Phase.COMPENSATE, problem=CAUSE, unsettled=unsettled)


async def compensate(ports: Ports, *entries: Entry) -> Reports:
    reports = Reports()
    backward = Compensation(
        cast(Any, ports), "ledger", {"catalog": cast(Any, ports)}, cast(Reporting, reports)
    )
    await backward.compensate(0, entries)
    return reports


async def test_a_unit_that_ended_without_our_knowing_gets_no_second_tombstone() -> None:
    """Its records may be swept: a tombstone planted now would stay for ever."""
    ports = Ports(Concluded(ended={1: (Status.REJECTED, CAUSE)}, compensating={2: CAUSE, 3: CAUSE}))
    told = await compensate(
        ports, entry(1, unsettled=True), entry(2, unsettled=True), entry(4, unsettled=False)
    )
    assert ports.asked == [("settle", (1, 2)), ("compensate", (2, 4)), ("finish", (2, 4))]
    assert told.ended == [1, 2, 4]
    assert 2 not in told.compensating, "it is in hand already"


async def test_nothing_is_undone_again_while_it_cannot_be_settled() -> None:
    ports = Ports(ResultUnknown(JOURNAL, "lost"))
    told = await compensate(ports, entry(1, unsettled=True))
    assert ports.asked == [("settle", (1,))]
    assert told.interrupted_seqs == [1]


async def test_who_has_lost_no_answer_is_not_asked_for() -> None:
    ports = Ports(Concluded())
    await compensate(ports, entry(1, unsettled=False))
    assert ports.asked == [("compensate", (1,)), ("finish", (1,))]


async def test_what_was_found_is_told_once_the_journal_has_ended_it() -> None:
    class Later(Ports):
        async def finish(self, endings: Sequence[Ending]) -> Concluded:
            return Concluded(
                ended={1: (Status.REJECTED, CAUSE)}, parked={2: CAUSE}, busy=frozenset({3})
            )

    told = await compensate(Later(Concluded()), *(entry(seq, unsettled=False) for seq in (1, 2, 3)))
    assert told.branches == [Undone(wrote=False)] * 2
    assert told.stages == [("compensation", "catalog", 3), ("compensation", "journal", 3)]
