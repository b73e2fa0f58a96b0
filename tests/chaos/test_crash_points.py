"""Every fault point: the process dies there, stands still past its lease, or gets no answer.

Another daemon, or the same one, must end every unit, and everything must hold as seen from
outside. `make test` runs the cases where most is at stake; `make crash-test` runs all of them.

Which actions a point can have follows from one rule: to die and to stand still are possible
everywhere; an answer is lost where the effect is done, and a store refuses to answer where it is
not (`FaultPoint.answer`). A point at the stores is tried at a store of each kind, a verb's with
each verb.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from coordinator.fault_points import FaultPoint
from tests.acceptance.harness.outsider import holding
from tests.acceptance.harness.world import World
from tests.chaos.crew import FENCED_EXIT_CODE, PATIENCE_SECONDS, Crew, Member
from tests.chaos.tally import Tell
from tests.chaos.ways import (
    FORGETFUL,
    VERBS,
    WAYS,
    Case,
    Command,
    a_person_resolves,
    a_person_retries,
    applied,
    put_back_what_was_too_large,
    restored,
)
from tests.chaos.workload import (
    ACCOUNTS,
    Workload,
    come_to_rest,
    forgotten,
    left_behind,
    seed,
    status_of,
    submit,
    swept,
    undo_records,
    violations,
)
from tests.servers import KAFKA, MONGODB, POSTGRES, Servers

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

LEASE_SECONDS = 2
STORES = ("archive", "catalog")
LEAVING = {"leave", "release"}
FORGETTING = {"forget", "forget_workers"}
AT_STORES = {"apply", "compensate", "fence_store", "fence_recorded", "sweep_store"}
_P = FaultPoint
SHORT = {
    Case("kill", _P.ADMIT_AFTER),
    Case("kill", _P.APPLY_AFTER, "catalog"),
    Case("kill", _P.PIVOT_CONCLUDED),
    Case("kill", _P.TAKE_OVER_AFTER),
    Case("freeze", _P.PIVOT_WRITTEN),
    Case("lose", _P.APPLY_AFTER, "archive"),
    Case("lose", _P.PIVOT_AFTER),
    Case("kill", _P.FORETOLD_AFTER),
    Case("lose", _P.FORETOLD_AFTER),
    Case("lose", _P.COMPENSATE_AFTER, "catalog"),
}
LONG = os.environ.get("COORDINATOR_CRASH_TEST") == "all"


def every_case() -> Iterator[Case]:
    """Every fault that there can be."""
    for point in FaultPoint:
        for action in filter(None, ("kill", "freeze", point.answer)):
            for where in places(point):
                yield Case(action, point, where)


def places(point: FaultPoint) -> tuple[str, ...]:
    """The stores or verbs at which a point is tried."""
    if point.step == "verb":
        return tuple(VERBS)
    return STORES if point.step in AT_STORES else ("",)


CASES = [case for case in every_case() if LONG or case in SHORT]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def crew(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Crew]:
    """A world whose daemons come and go."""
    servers.prefetch((POSTGRES, MONGODB, KAFKA))
    world = World(servers, tmp_path_factory.mktemp("crash"))
    try:
        await world.prepare(
            {
                "worker": {"lease_ttl_seconds": LEASE_SECONDS},
                "units": {"undo_retention_seconds": LEASE_SECONDS},
            }
        )
        made = Crew(world, world.ledger)
        try:
            await world.topics.create({world.topics.replies_topic: {}})
            await made.on_duty()
            await world.open_topics()
            yield made
            await _nothing_is_left_behind(made)
        finally:
            made.kill()
    finally:
        await world.close()


_first_accounts = itertools.count(ACCOUNTS, ACCOUNTS)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_fault_at(crew: Crew, record_property: Tell, case: Case) -> None:
    """All invariants, after a fault right there."""
    world, workload = crew.world, Workload()
    record_property(case.action, 1)
    await seed(world, workload, next(_first_accounts))
    if case.point.step == "verb":
        await _at_a_verb(crew, workload, case)
    else:
        victim = await WAYS[case.point.step](crew, workload, case)
        await _go_on(crew, victim, case)
        if case.point.step == "aside":
            await put_back_what_was_too_large(world)
        await come_to_rest(world, workload)
        if case.action == "freeze":
            await crew.alone()
            record_property("fenced", await _wakes(victim, case))
    await come_to_rest(world, workload)
    found = await violations(world, workload)
    found += await _of_sweeps(crew, workload, case)
    for status, count in Counter(status_of(world, unit) for unit in workload.all).items():
        record_property(f"unit {status}", count)
    record_property("taken over", await crew.new_takeovers())
    record_property("violations", len(found))
    assert found == [], crew.tail()


async def _of_sweeps(crew: Crew, workload: Workload, case: Case) -> list[str]:
    """Say what a sweep left behind: of this round if it was about sweeps, else of the former."""
    found = []
    if case.point.step in {"sweep_store", "swept"}:
        await swept(crew.world, workload)
        found += await left_behind(crew.world, workload)
    if case.point.step == "forget":
        await forgotten(crew.world, workload)
    if case.point.step in FORGETTING:
        await (await crew.on_duty()).leave()
    if crew.rounds:
        await swept(crew.world, crew.rounds[-1])
        found += await left_behind(crew.world, crew.rounds[-1])
    crew.rounds.append(workload)
    return found


async def _nothing_is_left_behind(crew: Crew) -> None:
    """After all of it no undo record and no tombstone stands in any store."""
    await crew.on_duty()
    for workload in crew.rounds:
        await swept(crew.world, workload)
    assert await undo_records(crew.world) == {}


async def _go_on(crew: Crew, victim: Member, case: Case) -> None:
    """See that a daemon is on duty: the victim, if it lives, or a new one."""
    if case.action == "kill":
        await victim.killed()
        crew.relieve()
    elif case.action == "freeze":
        crew.relieve()
    elif case.point.step in LEAVING:
        assert await victim.daemon.ended(PATIENCE_SECONDS) == 0, victim.tail()
        crew.relieve()
    else:
        crew.relieve(victim)
        return
    if case.point.step in FORGETTING:
        heir = crew.spawn(**FORGETFUL)
        await heir.daemon.ready(PATIENCE_SECONDS)
        crew.relieve(heir)
    await crew.on_duty()


async def _wakes(victim: Member, case: Case) -> int:
    """Let a frozen daemon go on: it must see that it is fenced and leave (I9). Whether it was."""
    victim.wake()
    if case.point is _P.REGISTER_BEFORE:  # not a worker yet: it becomes a healthy one
        await victim.daemon.ready(PATIENCE_SECONDS)
        await victim.leave()
        return 0
    code = await victim.daemon.ended(PATIENCE_SECONDS)
    if case.point.step in LEAVING:  # it only wanted to say that its lease is over
        assert code in {0, FENCED_EXIT_CODE}, victim.tail()
    else:
        assert code == FENCED_EXIT_CODE, victim.tail()
    return int(code == FENCED_EXIT_CODE)


async def _at_a_verb(crew: Crew, workload: Workload, case: Case) -> None:
    """A person's command dies, stands still, or is told nothing; then the person tries again."""
    world = crew.world
    await crew.on_duty()
    if case.where == "cancel":
        async with holding(world, "accounts", workload.first_account):
            unit_id = await applied(world, workload)
            await _command(world, workload, case, unit_id)
            await world.topics.outcome(unit_id, "final", seconds=PATIENCE_SECONDS)
        note = "before"
    else:
        prepare = a_person_retries if case.where == "retry" else a_person_resolves
        unit_id, note = await prepare(world, workload)
        await _command(world, workload, case, unit_id)
    await world.topics.outcome(unit_id, "final", seconds=PATIENCE_SECONDS)
    assert await restored(world, unit_id, note)


async def _command(world: World, workload: Workload, case: Case, unit_id: str) -> None:
    arguments = ["units", case.where, unit_id, *VERBS[case.where]]
    command = Command(world, arguments, case.rule)
    await command.meets(case.point)
    if case.action == "freeze":
        await submit(world, workload)
        for good in workload.good:  # nobody waits for a person
            if good not in _behind(workload):
                await world.topics.outcome(good, "final", seconds=PATIENCE_SECONDS)
        command.wake()
    code = await command.ended()
    assert code in ({-signal.SIGKILL} if case.action == "kill" else {0, 1})
    again = await world.cli(*arguments, check=False)
    assert again.returncode in {0, 1}
    if case.action in {"kill", "fail"} and not case.point.is_done:
        assert again.returncode == 0, again.stderr


def _behind(workload: Workload) -> set[str]:
    """The units that want the account which the waiting or parked unit has."""
    return {workload.good[0], workload.good[ACCOUNTS]}
