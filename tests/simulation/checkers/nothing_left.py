"""At rest nothing is locked but by parked units, and no bookkeeping stands without its unit."""

from __future__ import annotations

from coordinator.domain.lifecycle import Status
from tests.simulation.history import Rest


def check(rest: Rest) -> None:
    fail, journal = rest.history.fail, rest.world.journal
    for key, requests in journal.locks.items():
        for seq in requests:
            if not journal.units[seq].is_open:
                fail(f"I5: {key} is still locked by #{seq}, which is {journal.units[seq].status}")
    for store in rest.world.stores.values():
        for unit_id, record in store.undo.items():
            known = journal.ids.get(unit_id)
            if known is None:
                fail(f"rule 10: {store.name} holds a record of {unit_id}, which is no unit")
                continue
            row = journal.units[known]
            if row.swept:
                fail(f"rule 10: {store.name} holds a {record.state} of the swept {unit_id}")
            if record.state == "tombstone" and row.status is Status.COMMITTED:
                fail(f"rule 1: {store.name} holds a tombstone of the committed {unit_id}")
    if journal.outbox:
        fail(f"I8: {len(journal.outbox)} rows of the outbox were never published")
