"""Two daemons of one group, on the same stores and topics (I3, I5, I8, F4, F8, F36)."""

from __future__ import annotations

import signal
from itertools import pairwise

from tests.acceptance.conftest import MakeWorld
from tests.acceptance.harness.daemon import Daemon
from tests.acceptance.harness.operations import Json, adding, insert, setting
from tests.acceptance.harness.outsider import accepted, holding, holds, stored
from tests.acceptance.harness.waiting import until
from tests.acceptance.harness.world import World, new_id, new_number

SHORT_LEASE = {"worker": {"lease_ttl_seconds": 3}}


async def _shared(world: World) -> tuple[Daemon, Daemon]:
    """Bring a second daemon in and wait until each reads some of the partitions."""
    second = await world.another_daemon()

    async def is_shared() -> bool:
        held = [daemon.logs("intake.assigned") for daemon in (world.daemon, second)]
        return all(lines and 0 < len(lines[-1]["partitions"]) < 4 for lines in held)

    await until(is_shared, "the partitions are shared", 30, second.tail)
    return world.daemon, second


def _partitions(daemon: Daemon) -> list[int]:
    assigned: list[int] = daemon.logs("intake.assigned")[-1]["partitions"]
    return assigned


async def test_two_daemons_share_the_work_and_one_takes_over(make_world: MakeWorld) -> None:
    """I3, I5, I8, F36: contended keys over all partitions; then one is killed in its work."""
    world = await make_world(SHORT_LEASE)
    first, second = await _shared(world)
    accounts = [new_number() for _ in range(3)]
    entry = new_id()
    await world.committed(*(insert("account", a, balance="1000") for a in accounts))
    await world.committed(insert("entry", entry, amount="0"))
    ids: list[str] = []
    for n in range(120):
        unit_id, _ = await world.place(
            adding("account", accounts[n % 3], balance="-1"),
            adding("account", accounts[(n + 1) % 3], balance="1"),
            insert("wallet", new_id(), balance="1"),
            partition=n % 4,
        )
        ids.append(unit_id)
    assert {o["status"] for o in await world.results(ids)} == {"committed"}
    for daemon in (first, second):
        assert daemon.logs("unit.finished"), "one of the two did nothing"
    for a in accounts:
        row = await stored(world, "account", a)
        assert row is not None
        assert (str(row["balance"]), row["version"]) == ("1000.00", 81)
    await world.topics.caught_up()
    events = world.topics.of(world.topics.changes_topic("account"))
    for a in accounts:
        chain = list({r.ce_id: r.json for r in events if r.key == str(a).encode()}.values())
        assert len(chain) == 81
        assert all(former["after"] == later["before"] for former, later in pairwise(chain))

    async with holding(world, "accounts", accounts[0]):
        body: Json = {
            "id": new_id(),
            "timeout_ms": 120_000,
            "operations": [
                adding("entry", entry, amount="5"),
                adding("account", accounts[0], balance="-5"),
            ],
        }
        await world.topics.submit(body, partition=_partitions(second)[0])
        await holds(world, "entry", entry, version=2)
        same = await world.topics.submit(body, partition=_partitions(first)[0])
        unwanted, _ = await world.place(
            setting("account", accounts[0], note="never"), partition=_partitions(second)[0]
        )
        await accepted(world, unwanted)
        await world.topics.submit(
            {"cancel": unwanted, "reason": "from elsewhere"}, partition=_partitions(first)[0]
        )
        outcome = await world.result(unwanted, seconds=6)
        assert (outcome["status"], outcome["error"]["code"]) == ("rejected", "cancelled")
        second.send(signal.SIGKILL)
        assert await second.ended() == -signal.SIGKILL

        async def is_taken_over() -> bool:
            return bool(first.logs("worker.taken_over"))

        await until(is_taken_over, "the first takes over", 20, first.tail)
    final = await world.result(body["id"], seconds=30)
    assert final["status"] == "committed", final["error"]
    answer = await world.topics.answer_to(same, "duplicate", body["id"])
    assert answer.json == final | {"duplicate": True}
    rows = await stored(world, "entry", entry), await stored(world, "account", accounts[0])
    assert rows[0] is not None
    assert rows[1] is not None
    assert (str(rows[0]["amount"]), str(rows[1]["balance"])) == ("5", "995.00")
    late = [await world.place(insert("sample", new_id()), partition=n) for n in range(4)]
    for unit_id, _ in late:
        assert (await world.result(unit_id, seconds=40))["status"] == "committed"


async def test_a_frozen_daemon_is_fenced_and_changes_nothing_when_it_wakes(
    make_world: MakeWorld,
) -> None:
    """I9, F36: stopped in its tracks past its lease; on waking it leaves with a non-zero code."""
    world = await make_world(SHORT_LEASE)
    first, second = await _shared(world)
    a, entry = new_number(), new_id()
    await world.committed(insert("account", a, balance="100"), insert("entry", entry, amount="0"))
    async with holding(world, "accounts", a):
        unit_id, _ = await world.place(
            adding("entry", entry, amount="5"),
            adding("account", a, balance="-5"),
            partition=_partitions(second)[0],
            timeout_ms=120_000,
        )
        await holds(world, "entry", entry, version=2)
        second.send(signal.SIGSTOP)

        async def is_taken_over() -> bool:
            return bool(first.logs("worker.taken_over"))

        await until(is_taken_over, "the first takes over", 20, first.tail)
    outcome = await world.result(unit_id, seconds=30)
    assert outcome["status"] == "committed", outcome["error"]
    second.send(signal.SIGCONT)
    assert await second.ended(30) not in {0, -signal.SIGKILL}
    entry_row, account = await stored(world, "entry", entry), await stored(world, "account", a)
    assert entry_row is not None
    assert account is not None
    assert (str(entry_row["amount"]), entry_row["version"]) == ("5", 2)
    assert (str(account["balance"]), account["version"]) == ("95.00", 2)
    await world.topics.caught_up()
    assert len(world.topics.changes_so_far(unit_id)) == 2
