"""I7: every record is answered, and every unit ends, with one final decision that is published."""

from __future__ import annotations

from coordinator.domain.lifecycle import Status
from coordinator.memory.journal_tables import UnitRow
from tests.simulation.history import Rest
from tests.simulation.kafka import DEAD_LETTERS, UNITS
from tests.simulation.published import ce_id, dead_letters
from tests.simulation.submissions import Sending


def check(rest: Rest) -> None:
    told = {ce_id(each) for each in rest.broker.published}
    letters = dead_letters(rest.broker.published, DEAD_LETTERS)
    for sending, offset in rest.sent:
        at = f"{UNITS}-{sending.partition}-{offset}"
        match sending.kind:
            case "dead":
                if (sending.partition, offset) not in letters:
                    rest.history.fail(f"I7: no dead letter tells of {at}")
            case "refused":
                if f"{sending.unit_id}/refused/{at}" not in told:
                    rest.history.fail(f"I7: the early refusal of {at} was never told")
            case "unit" | "again":
                _check_unit(rest, told, sending, offset, at)
    alive = {worker.number for worker in rest.alive}
    for row in rest.world.journal.units.values():
        _check_end(rest, told, alive, row)


def _check_unit(rest: Rest, told: set[str], sending: Sending, offset: int, at: str) -> None:
    fail, journal = rest.history.fail, rest.world.journal
    seq = journal.ids.get(sending.unit_id or "")
    if seq is None:
        fail(f"I7: {sending.unit_id} was sent to {at} and is not in the journal")
        return
    row = journal.units[seq]
    is_answered = f"{row.id}/duplicate/{at}" in told
    if (row.origin.partition, row.origin.offset) == (sending.partition, offset):
        if is_answered:
            fail(f"F4: {at} made {row.id} and was answered as its duplicate")
    elif row.status is not Status.PARKED and not is_answered:
        fail(f"I7: the duplicate of {row.id} at {at} was never answered")


def _check_end(rest: Rest, told: set[str], alive: set[int], row: UnitRow) -> None:
    fail, name = rest.history.fail, f"{row.id}#{row.seq}"
    if row.status is Status.PARKED:
        if f"{row.id}/parked" not in told:
            fail(f"I7: {name} was parked and nobody told")
        if row.worker not in alive:
            fail(f"I7: the parked {name} is of worker {row.worker}, who is gone")
    elif row.is_open:
        fail(f"I7: {name} of worker {row.worker} stays {row.status}")
    elif f"{row.id}/outcome" not in told:
        fail(f"I7: the outcome of {name} was never told")
