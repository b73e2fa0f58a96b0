"""How each fault point is come to: for every step, what must be going on that somebody gets there.

A way returns the daemon that has met its fault. `WAYS` has one per step, so that a new fault point
either belongs to a step that is here or fails the test that asks for its way.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from coordinator.fault_points import VARIABLE, FaultPoint
from tests.acceptance.harness.operations import setting
from tests.acceptance.harness.outsider import holding, holds, overwrite, stored
from tests.acceptance.harness.waiting import until
from tests.acceptance.harness.world import World, new_id
from tests.chaos.crew import PATIENCE_SECONDS, Crew, Member
from tests.chaos.workload import Workload, come_to_rest, submit, submit_one, swept

FORGETFUL = {"COORDINATOR_UNITS__RETENTION_DAYS": "0.00001"}
_REPOSITORY = Path(__file__).parents[2]
_TOO_LARGE = "#too-large"
_ENTRY = "entry"


@dataclass(frozen=True)
class Case:
    """One fault: what happens where; ``where`` is a store, or a person's verb."""

    action: str
    point: FaultPoint
    where: str = ""

    @property
    def rule(self) -> str:
        at_store = f"/{self.where}" if self.where in {"archive", "catalog"} else ""
        return f"{self.point}{at_store}={self.action}"

    def __str__(self) -> str:
        return "-".join(filter(None, (self.action, self.point.replace(".", "-"), self.where)))


Way = Callable[[Crew, Workload, Case], Awaitable[Member]]


async def at_work(crew: Crew, workload: Workload, case: Case) -> Member:
    """Units are submitted to a daemon that runs."""
    member = await crew.on_duty()
    member.arm(case.rule)
    await submit(crew.world, workload)
    await member.meets(case.point)
    return member


async def with_nobody_beside(crew: Crew, workload: Workload, case: Case) -> Member:
    """A unit comes alone, so that all it does can be foretold; the others come later."""
    member = await crew.on_duty()
    member.arm(case.rule)
    await submit_one(crew.world, workload)
    await member.meets(case.point)
    await submit(crew.world, workload)
    return member


async def after_a_death(crew: Crew, workload: Workload, case: Case) -> Member:
    """A daemon died with its units applied and not committed, and another one starts."""
    first = await crew.on_duty()
    first.arm(f"{FaultPoint.PIVOT_BEFORE}=kill")
    await submit(crew.world, workload)
    await first.killed()
    member = crew.spawn(case.rule)
    await member.meets(case.point)
    return member


async def when_forgetting(crew: Crew, workload: Workload, case: Case) -> Member:
    """Units that are swept are old enough for a daemon with a short memory."""
    first = await crew.on_duty()
    await submit(crew.world, workload)
    await come_to_rest(crew.world, workload)
    await swept(crew.world, workload)
    first.daemon.kill()
    await crew.world.ledger.execute(  # as if whoever was fenced had been so for long
        "UPDATE coordinator.workers SET fenced_at = fenced_at - interval '2 days' WHERE fenced"
    )
    member = crew.spawn(case.rule, **FORGETFUL)
    await member.meets(case.point)
    return member


async def with_a_compressed_batch(crew: Crew, workload: Workload, case: Case) -> Member:
    """Somebody submits in compressed batches."""
    member = await crew.on_duty()
    member.arm(case.rule)
    await submit(crew.world, workload)
    topics = crew.world.topics
    producer = AIOKafkaProducer(bootstrap_servers=topics.bootstrap, compression_type="gzip")
    await producer.start()
    try:
        await producer.send_and_wait(topics.units, b'{"cancel": "nobody"}' + b" " * 1000)
    finally:
        await producer.stop()
    await member.meets(case.point)
    return member


async def with_a_deadly_record(crew: Crew, workload: Workload, case: Case) -> Member:
    """A record has ended three daemons that read it, and a fourth one looks into it."""
    poison = f"deadly-{new_id()}"
    deadly = f"{FaultPoint.ADMIT_READ}[{poison}]=kill"
    member = await crew.on_duty()
    member.arm(deadly)
    place = await crew.world.topics.submit(b'{"id": "%s", "operations": []}' % poison.encode())
    workload.places.append(place)
    await submit(crew.world, workload)
    for _ in range(2):
        await member.killed()
        member = crew.spawn(deadly)
    await member.killed()
    member = crew.spawn(f"{case.rule}; {deadly}")
    await member.meets(case.point)
    return member


async def with_a_topic_that_refuses(crew: Crew, workload: Workload, case: Case) -> Member:
    """A topic has come to take small messages only, while a daemon runs that thinks otherwise."""
    member = await crew.on_duty()
    member.arm(case.rule)
    await _limit(crew.world, "wallet", 100)
    try:
        await submit(crew.world, workload)
        await member.meets(case.point)
    finally:
        await _limit(crew.world, "wallet", None)
    return member


async def when_leaving(crew: Crew, workload: Workload, case: Case) -> Member:
    """A daemon with work to do is asked to stop."""
    member = await crew.on_duty()
    member.arm(case.rule)
    await submit(crew.world, workload)
    member.daemon.send(signal.SIGTERM)
    await member.meets(case.point)
    return member


WAYS: dict[str, Way] = {
    **dict.fromkeys(("admit", "newcomers", "heartbeat", "relay"), at_work),
    **dict.fromkeys(("apply", "pivot", "compensate", "finish"), at_work),
    **dict.fromkeys(("sweep_store", "swept"), at_work),
    **dict.fromkeys(("register", "enrol", "take_over", "bury"), after_a_death),
    **dict.fromkeys(("fence_journal", "fence_store", "fence_recorded"), after_a_death),
    **dict.fromkeys(("forget", "forget_workers"), when_forgetting),
    **dict.fromkeys(("mark", "set_aside"), with_a_deadly_record),
    **dict.fromkeys(("leave", "release"), when_leaving),
    "begin_reading": after_a_death,
    "foretold": with_nobody_beside,
    "unpack": with_a_compressed_batch,
    "aside": with_a_topic_that_refuses,
}
"""By step; those of `VERBS` are not a daemon's."""


# --- topics that refuse ---------------------------------------------------------------------------


async def _limit(world: World, entity: str, limit_bytes: int | None) -> None:
    """Set the largest message that an entity's topic takes; None is the broker's own."""
    settings = {} if limit_bytes is None else {"max.message.bytes": str(limit_bytes)}
    admin = AIOKafkaAdminClient(bootstrap_servers=world.topics.bootstrap)
    await admin.start()
    try:
        topic = world.topics.changes_topic(entity)
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, settings)
        await admin.alter_configs([resource])
        asked = ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": ""})

        async def told() -> bool:  # the controller answers before the broker has heard of it
            (answer,) = await admin.describe_configs([asked])
            value = int(answer.resources[0][4][0][1])
            return value == limit_bytes if limit_bytes is not None else value > 1000

        await until(told, f"{topic} takes {limit_bytes} bytes", PATIENCE_SECONDS)
    finally:
        await admin.close()


async def put_back_what_was_too_large(world: World) -> None:
    """Do what the person does who has let the topic take it: until nothing is aside any more."""

    async def look() -> bool:
        await world.ledger.execute(
            "UPDATE coordinator.outbox_aside SET topic = replace(topic, $1, '')"
            " WHERE topic LIKE '%' || $1",
            _TOO_LARGE,
        )
        return not await world.ledger.fetchval(
            "SELECT EXISTS (TABLE coordinator.outbox_aside) OR EXISTS (TABLE coordinator.outbox)"
        )

    await until(look, "nothing is aside any more", PATIENCE_SECONDS, world.daemon.tail)


# --- a person's verbs -----------------------------------------------------------------------------


class Command:
    """A person's command, with a fault of its own."""

    def __init__(self, world: World, arguments: list[str], rule: str) -> None:
        self._output = world.folder / f"command-{new_id()}.log"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "coordinator", *arguments),
                    *("--config", str(world.daemon.config)),
                ],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env=os.environ | {VARIABLE: rule},
                cwd=_REPOSITORY,
            )

    async def meets(self, point: FaultPoint) -> None:
        async def met() -> bool:
            return f"fault point {point}: " in self._output.read_text()

        await until(met, f"the command reaches {point}", PATIENCE_SECONDS, self._output.read_text)

    def wake(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    async def ended(self) -> int:
        return await asyncio.to_thread(self._process.wait, PATIENCE_SECONDS)


async def a_person_retries(world: World, workload: Workload) -> tuple[str, str]:
    """A unit is parked, and what was in the way of its undo is taken back."""
    unit_id, key = await _parked(world, workload)
    await overwrite(world, _ENTRY, key, note="ours")
    return unit_id, "before"


async def a_person_resolves(world: World, workload: Workload) -> tuple[str, str]:
    """A unit is parked, and the stranger's row is right as it is."""
    unit_id, _ = await _parked(world, workload)
    return unit_id, "theirs"


async def _parked(world: World, workload: Workload) -> tuple[str, str]:
    async with holding(world, "accounts", workload.first_account):
        unit_id = await applied(world, workload)
        await overwrite(world, _ENTRY, _key(unit_id), note="theirs")
        await world.topics.submit({"cancel": unit_id, "reason": "to be parked"}, key=unit_id)
        await world.topics.outcome(unit_id, "parked", seconds=PATIENCE_SECONDS)
    return unit_id, _key(unit_id)


async def applied(world: World, workload: Workload) -> str:
    """Submit a unit that gets as far as the pivot, where somebody holds its row; give its id."""
    unit_id = new_id()
    workload.ended_by_a_person.append(unit_id)
    await world.archive.execute(
        "INSERT INTO entries (id, note, version) VALUES ($1, 'before', 1)", _key(unit_id)
    )
    _, place = await world.place(
        setting(_ENTRY, _key(unit_id), note="ours"),
        setting("account", workload.first_account, note="x"),
        id=unit_id,
        key=unit_id,
        timeout_ms=120_000,
    )
    workload.places.append(place)
    await holds(world, _ENTRY, _key(unit_id), note="ours")
    return unit_id


async def restored(world: World, unit_id: str, note: str) -> bool:
    """Whether the row of an applied unit holds this note again."""
    row = await stored(world, _ENTRY, _key(unit_id))
    return row is not None and row["note"] == note


def _key(unit_id: str) -> str:
    return f"row-of-{unit_id}"


VERBS: dict[str, list[str]] = {
    "retry": [],
    "resolve": ["--as", "compensated", "--reason", "done by hand"],
    "cancel": [],
}
"""The verbs that change a unit, with what they need."""
