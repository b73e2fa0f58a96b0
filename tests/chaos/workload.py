"""A few units over three stores that end in every way, and what must be true of them afterwards.

Each unit leaves marks of its own: an order in MongoDB, an entry in the second PostgreSQL, and
deltas on shared accounts and wallets. So all-or-none can be seen per unit, and exactly-once by
the sums.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.acceptance.harness.world import World, new_id

ACCOUNTS = 6
START = Decimal(1000)


@dataclass
class Workload:
    """The units of one round, by what is expected of them."""

    good: list[str] = field(default_factory=list)
    refused_at_the_pivot: list[str] = field(default_factory=list)
    refused_at_once: list[str] = field(default_factory=list)
    first_account: int = 0

    @property
    def all(self) -> list[str]:
        return [*self.good, *self.refused_at_the_pivot, *self.refused_at_once]


async def seed(world: World, workload: Workload, first_account: int) -> None:
    """Make the accounts and wallets of a round."""
    workload.first_account = first_account
    for number in range(first_account, first_account + ACCOUNTS):
        await world.ledger.execute(
            "INSERT INTO accounts (id, balance, version) VALUES ($1, $2, 1)", number, START
        )
        world.catalog["wallets"].insert_one({"_id": f"w{number}", "points": 0, "version": 1})


async def submit(world: World, workload: Workload) -> None:
    """Submit the round's units, with duplicates among them."""
    base = workload.first_account
    for number in range(8):
        unit_id = new_id()
        workload.good.append(unit_id)
        await _place(world, unit_id, base + number % ACCOUNTS, "-1.50")
    for number in range(4):
        unit_id = new_id()
        workload.refused_at_the_pivot.append(unit_id)
        # A CHECK of the table's own, which only PostgreSQL knows of.
        await _place(world, unit_id, base + number % ACCOUNTS, "950000")
    for number in range(2):
        unit_id = new_id()
        workload.refused_at_once.append(unit_id)
        await _place(world, unit_id, base + number, "-99999")
    for unit_id, number in zip(workload.good[:2], range(2), strict=True):
        await _place(world, unit_id, base + number % ACCOUNTS, "-1.50")


async def _place(world: World, unit_id: str, account: int, delta: str) -> None:
    await world.submit(
        {"op": "insert", "entity": "order", "key": unit_id, "values": {"total": "1.50"}},
        {"op": "update", "entity": "wallet", "key": f"w{account}", "increment": {"points": 1}},
        {"op": "insert", "entity": "entry", "key": unit_id, "values": {"note": "mark"}},
        {"op": "update", "entity": "account", "key": account, "increment": {"balance": delta}},
        id=unit_id,
        timeout_ms=120_000,
    )


async def violations(world: World, workload: Workload) -> list[str]:
    """Say what does not hold of a round whose units are all final."""
    found: list[str] = []
    for unit_id in workload.all:
        found += _of_outcomes(world, workload, unit_id)
        found += await _of_marks(world, workload, unit_id)
        found += _of_events(world, workload, unit_id)
    found += await _of_sums(world, workload)
    found += await _of_the_journal(world)
    return found


def _of_outcomes(world: World, workload: Workload, unit_id: str) -> list[str]:
    """F5: one final decision, however often it is published."""
    finals = [
        record.json
        for record in world.topics.outcomes_so_far(unit_id)
        if record.json["status"] != "parked" and not record.json["duplicate"]
    ]
    told = {json.dumps(outcome, sort_keys=True) for outcome in finals}
    expected = {"committed"} if unit_id in workload.good else {"rejected", "compensated"}
    if len(told) != 1:
        return [f"F5: unit {unit_id} has {len(told)} different final outcomes"]
    status = finals[0]["status"]
    return [] if status in expected else [f"unit {unit_id} is {status}, not one of {expected}"]


async def _of_marks(world: World, workload: Workload, unit_id: str) -> list[str]:
    """I2: in all its stores or in none."""
    there = (
        world.doc("orders", unit_id) is not None,
        await world.row("entries", unit_id, "archive") is not None,
    )
    expected = unit_id in workload.good
    return [] if set(there) == {expected} else [f"I2: unit {unit_id}: marks {there}"]


def _of_events(world: World, workload: Workload, unit_id: str) -> list[str]:
    """I8: every committed unit is announced, no other is."""
    ids = {record.ce_id for record in world.topics.changes_so_far(unit_id)}
    expected = {f"{unit_id}/{n}" for n in range(1, 5)} if unit_id in workload.good else set()
    return [] if ids == expected else [f"I8: unit {unit_id}: events {sorted(ids)}"]


async def _of_sums(world: World, workload: Workload) -> list[str]:
    """I3: each increment once."""
    found = []
    times: Counter[int] = Counter()
    for number in range(len(workload.good)):
        times[workload.first_account + number % ACCOUNTS] += 1
    for account in range(workload.first_account, workload.first_account + ACCOUNTS):
        row: Any = await world.row("accounts", account)
        wallet: Any = world.doc("wallets", f"w{account}")
        balance = START - Decimal("1.50") * times[account]
        if row["balance"] != balance or row["version"] != 1 + times[account]:
            found.append(f"I3: account {account}: {row['balance']} v{row['version']}")
        if wallet["points"] != times[account] or wallet["version"] != 1 + times[account]:
            found.append(f"I3: wallet {account}: {wallet}")
        found += _of_order(world, account)
    return found


def _of_order(world: World, account: int) -> list[str]:
    """I8: per key in commit order, repeats aside."""
    seen: list[int] = []
    for record in world.topics.of(world.topics.changes_topic("account")):
        if record.key == str(account).encode() and record.value is not None:
            version = record.json["after"]["version"]
            if version not in seen:
                seen.append(version)
    return [] if seen == sorted(seen) else [f"I8: account {account}: versions in order {seen}"]


async def _of_the_journal(world: World) -> list[str]:
    """I7: nothing is left open or locked."""
    left = await world.ledger.fetch(
        "SELECT id, status FROM coordinator.units WHERE finished_at IS NULL"
    )
    locks = await world.ledger.fetchval("SELECT count(*) FROM coordinator.locks")
    found = [f"I7: unit {row['id']} is left {row['status']}" for row in left]
    return [*found, f"{locks} locks are left"] if locks else found
