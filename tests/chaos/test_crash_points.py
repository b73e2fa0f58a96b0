"""Every fault point: the process dies there, freezes past its lease, or loses the answer.

Another daemon, or the same one, must end every unit, and everything must hold as seen from
outside. `make test` runs one action at the points where most is at stake; `make crash-test` runs
all of them.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from coordinator.fault_points import VARIABLE, FaultPoint
from tests.acceptance.harness.waiting import until
from tests.acceptance.harness.world import World
from tests.chaos.workload import ACCOUNTS, Workload, seed, submit, violations
from tests.servers import KAFKA, MONGODB, POSTGRES, Servers

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

LEASE_SECONDS = 2
FENCED_EXIT_CODE = 3

_P = FaultPoint
REACHED_BY_WORK = [
    _P.ADMIT_BEFORE,
    _P.ADMIT_AFTER,
    _P.APPLY_BEFORE,
    _P.APPLY_FENCED,
    _P.APPLY_WRITTEN,
    _P.APPLY_AFTER,
    _P.PIVOT_BEFORE,
    _P.PIVOT_HELD,
    _P.PIVOT_WRITTEN,
    _P.PIVOT_CONCLUDED,
    _P.PIVOT_AFTER,
    _P.COMPENSATE_BEFORE,
    _P.COMPENSATE_FENCED,
    _P.COMPENSATE_WRITTEN,
    _P.COMPENSATE_AFTER,
    _P.FINISH_BEFORE,
    _P.FINISH_CONCLUDED,
    _P.FINISH_AFTER,
    _P.NEWCOMERS_BEFORE,
    _P.NEWCOMERS_WRITTEN,
    _P.NEWCOMERS_AFTER,
    _P.HEARTBEAT_BEFORE,
    _P.HEARTBEAT_AFTER,
    _P.RELAY_CLAIMED,
    _P.RELAY_SENT,
    _P.RELAY_ACKNOWLEDGED,
    _P.RELAY_DELETED,
]
REACHED_BY_TAKEOVER = [
    _P.REGISTER_BEFORE,
    _P.REGISTER_AFTER,
    _P.ENROL_BEFORE,
    _P.ENROL_AFTER,
    _P.FENCE_JOURNAL_BEFORE,
    _P.FENCE_JOURNAL_AFTER,
    _P.FENCE_STORE_BEFORE,
    _P.FENCE_STORE_AFTER,
    _P.FENCE_RECORDED,
    _P.TAKE_OVER_BEFORE,
    _P.TAKE_OVER_AFTER,
    _P.BURY_BEFORE,
    _P.BURY_AFTER,
]
LOSES = {
    _P.ADMIT_AFTER,
    _P.APPLY_AFTER,
    _P.PIVOT_AFTER,
    _P.COMPENSATE_AFTER,
    _P.FINISH_AFTER,
    _P.NEWCOMERS_AFTER,
    _P.TAKE_OVER_AFTER,
    _P.FENCE_STORE_AFTER,
}
SHORT = {
    ("kill", _P.ADMIT_AFTER),
    ("kill", _P.APPLY_AFTER),
    ("kill", _P.PIVOT_CONCLUDED),
    ("kill", _P.TAKE_OVER_AFTER),
    ("freeze", _P.PIVOT_WRITTEN),
    ("lose", _P.APPLY_AFTER),
    ("lose", _P.PIVOT_AFTER),
    ("lose", _P.COMPENSATE_AFTER),
}
LONG = os.environ.get("COORDINATOR_CRASH_TEST") == "all"
_rounds = itertools.count(1)


def cases() -> list[tuple[str, FaultPoint]]:
    """The (action, point) pairs of this run."""
    points = [*REACHED_BY_WORK, *REACHED_BY_TAKEOVER]
    every = [(action, point) for point in points for action in ("kill", "freeze")]
    every += [("lose", point) for point in points if point in LOSES]
    return every if LONG else [case for case in every if case in SHORT]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A world whose daemons come and go; nothing runs at the beginning of a round."""
    servers.prefetch((POSTGRES, MONGODB, KAFKA))
    made = World(servers, tmp_path_factory.mktemp("crash"))
    try:
        await made.prepare({"worker": {"lease_ttl_seconds": LEASE_SECONDS}})
        await made.start()
        made.daemon.kill()
        yield made
    finally:
        made.daemon.kill()
        await made.close()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("action", "point"), cases(), ids=lambda value: str(value).replace(".", "-")
)
async def test_a_fault_at(world: World, action: str, point: FaultPoint) -> None:
    """All invariants, after a fault right there."""
    workload = Workload()
    await seed(world, workload, next(_rounds) * ACCOUNTS)
    spelled = f"freeze:{LEASE_SECONDS * 2.5}" if action == "freeze" else action
    faults = {VARIABLE: f"{point}={spelled}"}
    if point in REACHED_BY_TAKEOVER:
        await _leave_work_behind(world, workload)
        await _run_into(world, faults, point, action)
    else:
        await submit(world, workload)
        await _run_into(world, faults, point, action)
    await _finish(world, workload)
    assert await violations(world, workload) == [], world.daemon.tail(40)


async def _leave_work_behind(world: World, workload: Workload) -> None:
    """Have a daemon die with its units applied and not committed."""
    world.daemon.spawn({VARIABLE: f"{_P.PIVOT_BEFORE}=kill"})
    await submit(world, workload)
    await world.daemon.ended(60)


async def _run_into(world: World, faults: dict[str, str], point: FaultPoint, action: str) -> None:
    """Start a daemon and wait until it has met its fault."""
    before = world.daemon.log_text().count(f"fault point {point}")
    world.daemon.spawn(faults)

    async def met() -> bool:
        return world.daemon.log_text().count(f"fault point {point}") > before

    await until(met, f"the daemon reaches {point}", 60.0, world.daemon.tail)
    if action == "kill":
        await world.daemon.ended(20)


async def _finish(world: World, workload: Workload) -> None:
    """Let a daemon without faults end everything, beside the one that was frozen if it is there."""
    first = world.daemon.exit_code()
    helper = None
    if first is None:
        helper = await world.another_daemon()
    else:
        await world.daemon.start()
    for unit_id in workload.all:
        await world.topics.outcome(unit_id, "final", seconds=60.0)

    async def at_rest() -> bool:
        return not await world.ledger.fetchval("SELECT EXISTS (TABLE coordinator.outbox)")

    await until(at_rest, "the outbox is empty", 30.0, world.daemon.tail)
    await world.topics.caught_up()
    # Its own end is judged elsewhere; a fenced one has left already, with its own exit code.
    code = world.daemon.exit_code()
    assert code in (None, FENCED_EXIT_CODE), world.daemon.tail(40)
    world.daemon.kill()
    if helper is not None:
        helper.kill()
