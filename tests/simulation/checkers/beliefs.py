"""I11: what workers believe of their units is what the journal knows: nothing was guessed."""

from __future__ import annotations

from coordinator.domain.lifecycle import Status
from coordinator.engine.schedule import Phase
from tests.simulation.history import Rest

_PHASES = {
    Status.ACCEPTED: {Phase.EXECUTE, Phase.REFUSE},
    Status.COMPENSATING: {Phase.COMPENSATE},
    Status.PARKED: {Phase.PARKED},
}


def check(rest: Rest) -> None:
    units = rest.world.journal.units
    for worker in rest.workers:
        for seq, status in worker.seen.final.items():
            if units[seq].status is not status:
                name, is_now = worker.process.name, units[seq].status
                rest.history.fail(f"I11: {name} took #{seq} for {status}; it is {is_now}")
    for worker in rest.alive:
        schedule = worker.schedule
        if schedule is None:
            continue
        for row in rest.world.journal.open_units(worker.number):
            entry = schedule.get(row.seq)
            if entry is None or entry.phase not in _PHASES[row.status]:
                held = "unknown" if entry is None else entry.phase.name
                rest.history.fail(
                    f"I11: #{row.seq} is {row.status} and {held} to {worker.process.name}"
                )
        if len(schedule) != sum(1 for _ in rest.world.journal.open_units(worker.number)):
            rest.history.fail(f"I11: {worker.process.name} holds units that are not its own")
