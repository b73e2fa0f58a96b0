"""I7: every record is answered, and every unit ends, with one final decision that is published."""

from __future__ import annotations

from coordinator.domain.lifecycle import Status
from tests.simulation.history import Rest
from tests.simulation.kafka import DEAD_LETTERS, UNITS
from tests.simulation.published import ce_id


def check(rest: Rest) -> None:
    fail = rest.history.fail
    journal = rest.world.journal
    told = {ce_id(each) for each in rest.broker.published}
    letters = {
        (dict(each.headers)["coordinator.errors.partition"],
         dict(each.headers)["coordinator.errors.offset"])
        for each in rest.broker.published
        if each.topic == DEAD_LETTERS
    }  # fmt: skip
    for sending, offset in rest.sent:
        at = f"{UNITS}-{sending.partition}-{offset}"
        match sending.kind:
            case "dead":
                if (str(sending.partition).encode(), str(offset).encode()) not in letters:
                    fail(f"I7: no dead letter tells of {at}")
            case "refused":
                if f"{sending.unit_id}/refused/{at}" not in told:
                    fail(f"I7: the early refusal of {at} was never told")
            case "unit" | "again":
                seq = journal.ids.get(sending.unit_id or "")
                if seq is None:
                    fail(f"I7: {sending.unit_id} was sent to {at} and is not in the journal")
                    continue
                row = journal.units[seq]
                if (row.origin.partition, row.origin.offset) == (sending.partition, offset):
                    continue
                if row.status is not Status.PARKED and f"{row.id}/duplicate/{at}" not in told:
                    fail(f"I7: the duplicate of {row.id} at {at} was never answered")
    alive = {worker.number for worker in rest.alive}
    for row in journal.units.values():
        if row.status is Status.PARKED:
            if f"{row.id}/parked" not in told:
                fail(f"I7: {row.id}#{row.seq} was parked and nobody told")
            if row.worker not in alive:
                fail(
                    f"I7: the parked {row.id}#{row.seq} belongs to worker {row.worker}, who is gone"
                )
        elif row.is_open:
            fail(f"I7: {row.id}#{row.seq} of worker {row.worker} stays {row.status}")
        elif f"{row.id}/outcome" not in told:
            fail(f"I7: the outcome of {row.id}#{row.seq} was never told")
