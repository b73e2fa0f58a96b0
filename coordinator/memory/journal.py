"""The engine's `Journal` port of one worker in memory, and a person's verbs on parked units."""

from __future__ import annotations

from coordinator.domain import announce
from coordinator.domain.lifecycle import Status, Transition, next_status
from coordinator.engine.ports import JOURNAL
from coordinator.memory.admission import MemoryAdmission
from coordinator.memory.duties import MemoryDuties
from coordinator.memory.journal_tables import Epoch
from coordinator.memory.link import Link
from coordinator.memory.readings import MemoryReadings
from coordinator.memory.world import World


class MemoryJournal(MemoryAdmission, MemoryReadings, MemoryDuties):
    """Admission, readings and duties over one world; a `coordinator.engine.ports.Journal`."""

    def __init__(self, world: World, worker: int, link: Link, epoch: Epoch) -> None:
        MemoryAdmission.__init__(self, world, worker, link, epoch)
        MemoryReadings.__init__(self, world, worker, link)
        MemoryDuties.__init__(self, world, worker, link)

    async def ping(self) -> None:
        """Answer if the journal is reachable."""
        await self._link.read(JOURNAL, "ping", lambda: self._journal.hold_fence(self._worker))


def retry(world: World, seq: int) -> None:
    """Let a parked unit's compensation run again (F11)."""
    row = world.journal.units[seq]
    before, row.status = row.status, next_status(row.status, Transition.RETRIED)
    row.problem = row.outcome = None
    world.witness.decided(seq, before, row.status)


def resolve(world: World, seq: int) -> None:
    """End a parked unit that a person has put right (F11)."""
    row = world.journal.units[seq]
    before, row.status = row.status, next_status(row.status, Transition.RESOLVED_BY_HAND)
    at = row.finished_at = world.now()
    causes = () if row.cause is None else (row.cause,)
    row.outcome = announce.outcome_value(
        announce.Verdict(row.id, row.digest, row.status, causes, row.received_at, at, row.metadata)
    )
    world.journal.release_locks(seq)
    world.journal.publish(
        announce.outcome_messages(
            world.announcer,
            unit_id=row.id,
            ce_id=f"{row.id}/outcome",
            status=Status.COMPENSATED,
            value=row.outcome,
            finished_at=at,
            reply_to=row.reply_to,
            traceparent=row.traceparent,
        )
    )
    world.witness.decided(seq, before, row.status)
