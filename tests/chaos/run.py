"""One run: servers, daemons, both workloads, the faults; then rest, and the judges."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.harness.waiting import seen_within
from tests.acceptance.harness.world import World
from tests.chaos import bank, lists
from tests.chaos.checkers import violations
from tests.chaos.evidence import at_rest, collect, log_events, takeovers
from tests.chaos.fleet import Fleet
from tests.chaos.history import At, Evidence, Image
from tests.chaos.mischief import Mischief
from tests.chaos.schedule import LEASE_SECONDS, SLOTS, Fault, Kind
from tests.chaos.sending import Sending
from tests.chaos.stage import Stage

TRANSFERS_PER_SECOND = 30.0
APPENDERS = 6
REST_SECONDS = 180.0
_LOOK_SECONDS = 0.5

SETTINGS = {
    "worker": {"lease_ttl_seconds": LEASE_SECONDS},
    "topics": {"reply_to": []},
}


@dataclass(frozen=True, slots=True)
class Result:
    """What a run found, and the figures of its report."""

    seed: int
    seconds: float
    rest_seconds: float
    seen: Evidence
    violations: tuple[str, ...]
    faults: Counter[Kind]
    takeovers: int
    events: Counter[str]
    results_unknown: int
    submitted_again: int
    sent_at: dict[str, float]


async def run(
    seed: int,
    seconds: float,
    faults: Sequence[Fault],
    folder: Path,
    say: Callable[[str], None] = lambda line: None,
) -> Result:
    """Run both workloads for so long under those faults, and judge."""
    async with _playing(folder, say) as (stage, world, start):
        fleet = Fleet(world, stage, folder, SLOTS)
        sending = Sending(world.topics)
        try:
            await fleet.start()
            await sending.open()
            mischief = Mischief(stage, fleet, say)
            await _in_chaos(seed, seconds, faults, world, sending, mischief)
            say("        no more faults, nothing more is sent")
            began = time.monotonic()
            unrest = await _rest(world, sending)
            rest_seconds = time.monotonic() - began
            say(f"        {unrest or f'at rest after {rest_seconds:.1f} s'}")
            fenced_by_others = await takeovers(world)  # a daemon that stops is fenced as well
            await fleet.stop()
            seen = await collect(world, fleet, start, sending.sent)
            found = violations(seen)
            if unrest:
                found.insert(0, f"I7: no rest within {REST_SECONDS:.0f} s: {unrest}")
            return Result(
                seed=seed,
                seconds=seconds,
                rest_seconds=rest_seconds,
                seen=seen,
                violations=tuple(found),
                faults=mischief.done,
                takeovers=fenced_by_others,
                events=log_events(fleet),
                results_unknown=fleet.metric("results_unknown"),
                submitted_again=sending.submitted_again,
                sent_at=sending.sent_at,
            )
        finally:
            fleet.kill_all()
            await sending.close()


@asynccontextmanager
async def _playing(
    folder: Path, say: Callable[[str], None]
) -> AsyncIterator[tuple[Stage, World, dict[At, Image]]]:
    stage = Stage(folder)
    try:
        say("        starting PostgreSQL, mongod, Kafka and the daemons")
        await stage.up()
        world = World(stage.addresses, folder)
        world.entities = {**bank.ENTITIES, **lists.ENTITIES}
        try:
            await world.prepare(SETTINGS)
            start = await bank.seed(world) | await lists.seed(world)
            yield stage, world, start
        finally:
            await world.close()
    finally:
        await stage.down()


async def _in_chaos(
    seed: int,
    seconds: float,
    faults: Sequence[Fault],
    world: World,
    sending: Sending,
    mischief: Mischief,
) -> None:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(sending.stream(seed, TRANSFERS_PER_SECOND, stop), name="transfers")
        for number in range(APPENDERS):
            chance = random.Random(f"lists {seed} {number}")
            group.create_task(
                lists.appending(world, chance, f"l{number}", sending.send_and_await, stop),
                name=f"lists-{number}",
            )
        ends_at = asyncio.get_running_loop().time() + seconds
        await mischief.run(faults)
        await asyncio.sleep(max(0.0, ends_at - asyncio.get_running_loop().time()))
        stop.set()
    await sending.settle()


async def _rest(world: World, sending: Sending) -> str:
    """Wait until all is done; what is left to do when the time is over."""
    records = await world.topics.count(world.topics.units)
    unrest = ""

    async def look() -> bool:
        nonlocal unrest
        unrest = await at_rest(world, sending.sent, records)
        return not unrest

    await seen_within(look, REST_SECONDS, _LOOK_SECONDS)
    return unrest
