"""Many units at once, a kill in their midst, and outsiders that hold what one unit needs.

A transfer takes money from an account in PostgreSQL and gives it to a wallet in MongoDB: however
units end, no money is made or lost (I2, I3, I7, F36).
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from decimal import Decimal

import pytest

from tests.acceptance.conftest import MakeWorld
from tests.acceptance.harness.operations import Json, adding, insert, setting
from tests.acceptance.harness.outsider import accepted, holding
from tests.acceptance.harness.topics import Record
from tests.acceptance.harness.waiting import until
from tests.acceptance.harness.world import World, new_id, new_number

WORLD = {"worker": {"lease_ttl_seconds": 3}}  # so that a killed worker's units are soon taken over

PLAYERS = 200
STARTING = Decimal("1000.00")


class Finals:
    """The final outcomes, by unit; looks at each record once."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._seen = 0
        self.by_unit: dict[str, Json] = {}
        self.repeats: list[str] = []

    def look(self) -> dict[str, Json]:
        records: list[Record] = self._world.topics.records
        for record in records[self._seen :]:
            if record.topic == self._world.topics.outcomes_topic and record.ce_id.endswith(
                "/outcome"
            ):
                outcome = record.json
                known = self.by_unit.setdefault(outcome["unit"], outcome)
                assert known == outcome, "two different final decisions"
        self._seen = len(records)
        return self.by_unit

    async def all_of(self, ids: list[str], seconds: float) -> dict[str, Json]:
        """Wait until each of the units is final."""
        wanted = set(ids)
        await self._world.topics.wait(
            lambda: len(self.look()) >= len(wanted) and wanted <= self.by_unit.keys(),
            f"{len(wanted)} final outcomes",
            seconds,
        )
        return {unit_id: self.by_unit[unit_id] for unit_id in ids}


class Bank:
    """Accounts and wallets with the same money each, and transfers between them."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.accounts = [new_number() for _ in range(PLAYERS)]
        self.wallets = [new_id() for _ in range(PLAYERS)]
        self.moved: dict[str, tuple[int, str, Decimal]] = {}

    async def open(self) -> None:
        for start in range(0, PLAYERS, 50):
            span = slice(start, start + 50)
            outcome = await self.world.run(
                *(insert("account", n, balance=str(STARTING)) for n in self.accounts[span]),
                *(insert("wallet", k, balance=str(STARTING)) for k in self.wallets[span]),
            )
            assert outcome["status"] == "committed"

    def transfer(self) -> Json:
        """Make a transfer; some cannot be, and are found out at the pivot or before."""
        account, wallet = self.random.choice(self.accounts), self.random.choice(self.wallets)
        amount = Decimal(self.random.randint(1, 9999)).scaleb(-2)
        unit_id = new_id()
        self.moved[unit_id] = account, wallet, amount
        operations = [
            adding("wallet", wallet, balance=str(amount)),
            adding("account", account, balance=str(-amount)),
        ]
        if self.random.random() < 0.02:
            operations.append(insert("account", new_number(), balance="950000"))
        return {"id": unit_id, "timeout_ms": 120_000, "operations": operations}

    async def judge(self, outcomes: dict[str, Json]) -> None:
        """Every row holds what the committed transfers say, and the versions count them."""
        money = dict.fromkeys((*self.accounts, *self.wallets), STARTING)
        writes = dict.fromkeys(money, 1)
        for unit_id, outcome in outcomes.items():
            account, wallet, amount = self.moved[unit_id]
            if outcome["status"] == "committed":
                money[account] -= amount
                money[wallet] += amount
                writes[account] += 1
                writes[wallet] += 1
            else:
                code = outcome["error"]["code"]
                assert outcome["status"] in {"compensated", "rejected"}, outcome
                assert code in {"constraint_violated", "out_of_bounds"}, outcome
        rows = await self.world.ledger.fetch(
            "SELECT id, balance, version FROM accounts WHERE id = ANY($1)", self.accounts
        )
        held = {row["id"]: (row["balance"], row["version"]) for row in rows}
        for found in self.world.catalog.wallets.find({"_id": {"$in": self.wallets}}):
            held[found["_id"]] = found["balance"].to_decimal(), found["version"]
        assert held == {key: (money[key], writes[key]) for key in money}
        assert sum(money.values()) == 2 * PLAYERS * STARTING

    async def judge_events(self, outcomes: dict[str, Json]) -> None:
        """I8, F34: two events per committed unit, none of another; per key one chain."""
        await self.world.topics.caught_up()
        places = {
            self.world.topics.changes_topic(entity): set(keys)
            for entity, keys in (("account", self.accounts), ("wallet", self.wallets))
        }
        seen: set[str] = set()
        last: dict[object, Json] = {}
        for record in self.world.topics.records:
            if record.topic not in places or record.ce_id in seen:
                continue
            seen.add(record.ce_id)
            assert record.key is not None
            event = record.json
            if event["op"] != "c" and record.key in last:
                assert event["before"] == last[record.key], record.ce_id
            last[record.key] = event["after"]
        ours = {ce_id for ce_id in seen if ce_id.rpartition("/")[0] in outcomes}
        assert ours == {
            f"{unit_id}/{n}"
            for unit_id, outcome in outcomes.items()
            if outcome["status"] == "committed"
            for n in (1, 2)
        }


async def test_ten_thousand_units_at_once(world: World) -> None:
    """I2, I3, I7, I8: all end, once; every row and every event tells the same."""
    bank = Bank(world, seed=20261121)
    await bank.open()
    bodies = [bank.transfer() for _ in range(10_000)]
    began = time.monotonic()
    await world.topics.submit_all(bodies)
    outcomes = await Finals(world).all_of(list(bank.moved), 100)
    took = time.monotonic() - began
    print(f"10,000 transfers in {took:.1f} s")
    await bank.judge(outcomes)
    await bank.judge_events(outcomes)


async def test_f36_killed_with_500_units_in_flight(world: World) -> None:
    """F36, I2, I3, I7: kill -9 in the midst; after the next start all end and the sums hold."""
    bank = Bank(world, seed=5)
    await bank.open()
    finals = Finals(world)
    await world.topics.submit_all([bank.transfer() for _ in range(500)])
    await world.topics.wait(
        lambda: len(finals.look().keys() & bank.moved.keys()) > 0, "the first is final"
    )
    world.daemon.send(signal.SIGKILL)
    await world.daemon.ended()
    left = bank.moved.keys() - finals.look().keys()
    print(f"killed with {len(left)} of 500 not seen final")
    await world.daemon.start()
    outcomes = await finals.all_of(list(bank.moved), 60)
    await bank.judge(outcomes)
    await bank.judge_events(outcomes)


async def test_a_row_that_an_outsider_keeps_for_ten_seconds_delays_its_own_unit_only(
    world: World,
) -> None:
    """DESIGN 5, rule 9: in each store; the others end at once, it commits when let go."""
    number, key = new_number(), new_id()
    await world.committed(insert("account", number), insert("entry", key), insert("wallet", key))
    client = world.catalog.client
    slowest = 0.0
    async with holding(world, "accounts", number), holding(world, "entries", key, "archive"):
        with client.start_session() as session, session.start_transaction():
            world.catalog.wallets.update_one({"_id": key}, {"$set": {"x": 1}}, session=session)
            stuck = [
                await world.submit(operation, insert("sample", new_id()), timeout_ms=60_000)
                for operation in (
                    setting("account", number, note="mine"),
                    setting("entry", key, note="mine"),
                    setting("wallet", key, note="mine"),
                )
            ]
            for unit_id in stuck:
                await accepted(world, unit_id)
            began = time.monotonic()
            while time.monotonic() - began < 10:
                sent = time.monotonic()
                ids = [
                    await world.submit(
                        insert("account", new_number()),
                        insert("entry", new_id()),
                        insert("wallet", new_id()),
                    )
                    for _ in range(50)
                ]
                outcomes = await world.results(ids)
                slowest = max(slowest, time.monotonic() - sent)
                assert {outcome["status"] for outcome in outcomes} == {"committed"}
            assert not any(world.topics.outcomes_so_far(unit_id) for unit_id in stuck)
            session.abort_transaction()
    print(f"the slowest 50 others took {slowest:.2f} s")
    assert slowest < 4
    for outcome in await world.results(stuck):
        assert outcome["status"] == "committed", outcome


async def test_f38_units_over_http(world: World, subtests: pytest.Subtests) -> None:
    """F38: `{"unit", "status", "outcome"}` exactly; 404 else; ids with odd characters."""
    odd = f'a/b?c#d%20&=+"<{new_id()}>~!'
    for unit_id in (new_id(), odd):
        outcome = await world.run(insert("sample", new_id()), id=unit_id)
        assert outcome["status"] == "committed"
        quoted = "".join(c if c.isalnum() or c in "-._~" else f"%{ord(c):02X}" for c in unit_id)
        with subtests.test(unit_id[:8]):
            found = await asyncio.wait_for(_raw_get(world, f"/v1/units/{quoted}"), 5)
            assert found == (200, {"unit": unit_id, "status": "committed", "outcome": outcome})
    refused = await world.run(setting("account", new_number(), note="x"))
    assert (await world.daemon.get(f"/v1/units/{refused['unit']}"))[1] == {
        "unit": refused["unit"],
        "status": "rejected",
        "outcome": refused,
    }
    early = await world.run({"op": "nonsense"})
    for unknown in ("no-such-unit", early["unit"], "%00", "%FF", "a" * 500):
        with subtests.test(unknown[:20]):
            assert (await _raw_get(world, f"/v1/units/{unknown}"))[0] == 404


async def _raw_get(world: World, path: str) -> tuple[int, object]:
    import aiohttp
    from yarl import URL

    url = URL(f"http://{world.address}{path}", encoded=True)
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.json()


async def test_large_units_that_wait_fill_the_backlog_by_their_bytes(
    make_world: MakeWorld,
) -> None:
    """I12: a megabyte may be open; what does not fit waits in Kafka, and nothing is lost."""
    world = await make_world({"backlog": {"max_bytes": 1_048_576}, "batch": {"max_units": 4}})
    account = new_number()
    await world.committed(insert("account", account, balance="0"))
    filler = {"filler": "x" * 100_000}
    async with holding(world, "accounts", account):
        ids = [
            await world.submit(
                adding("account", account, balance="1"),
                key="k",
                timeout_ms=120_000,
                metadata=filler,
            )
            for _ in range(30)
        ]

        async def is_paused() -> bool:
            return bool(world.daemon.logs("intake.paused"))

        await until(is_paused, "intake pauses", 30, world.daemon.tail)
        (paused, *_) = world.daemon.logs("intake.paused")
        assert 1_048_576 <= paused["bytes"] < 1_048_576 + 5 * 110_000
        assert paused["units"] < 20
    assert {each["status"] for each in await world.results(ids)} == {"committed"}
    assert world.daemon.logs("intake.resumed")
