"""A few units over three stores that end in every way, and what must be true of them afterwards.

Each unit leaves marks of its own: an order in MongoDB, an entry in the second PostgreSQL, and
deltas on shared accounts and wallets. So all-or-none can be seen per unit, and exactly-once by
the sums.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.acceptance.harness.topics import Place
from tests.acceptance.harness.waiting import until
from tests.acceptance.harness.world import World, new_id

ACCOUNTS = 6
START = Decimal(1000)
PATIENCE_SECONDS = 60.0


@dataclass
class Workload:
    """The units of one round, by what is expected of them."""

    good: list[str] = field(default_factory=list)
    refused_at_the_pivot: list[str] = field(default_factory=list)
    refused_at_once: list[str] = field(default_factory=list)
    ended_by_a_person: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    first_account: int = 0

    @property
    def all(self) -> list[str]:
        return [
            *self.good,
            *self.refused_at_the_pivot,
            *self.refused_at_once,
            *self.ended_by_a_person,
        ]

    def statuses(self, unit_id: str) -> set[str]:
        """How this unit may end. F6: who is refused at the pivot may have written elsewhere."""
        if unit_id in self.good:
            return {"committed"}
        return {"compensated"} if unit_id in self.ended_by_a_person else {"rejected", "compensated"}


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
    for _ in range(8):
        await submit_one(world, workload)
    for number in range(4):
        unit_id = new_id()
        workload.refused_at_the_pivot.append(unit_id)
        # A CHECK of the table's own, which only PostgreSQL knows of.
        await _place(world, workload, unit_id, base + number % ACCOUNTS, "950000")
    for number in range(2):
        unit_id = new_id()
        workload.refused_at_once.append(unit_id)
        await _place(world, workload, unit_id, base + number, "-99999")
    for unit_id, number in zip(workload.good[:2], range(2), strict=True):
        workload.duplicated.append(unit_id)
        await _place(world, workload, unit_id, base + number % ACCOUNTS, "-1.50")


async def submit_one(world: World, workload: Workload) -> None:
    """Submit a unit that commits, on the next account in turn."""
    unit_id, account = new_id(), workload.first_account + len(workload.good) % ACCOUNTS
    workload.good.append(unit_id)
    await _place(world, workload, unit_id, account, "-1.50")


async def _place(world: World, workload: Workload, unit_id: str, account: int, delta: str) -> None:
    _, place = await world.place(
        {"op": "insert", "entity": "order", "key": unit_id, "values": {"total": "1.50"}},
        {"op": "update", "entity": "wallet", "key": f"w{account}", "increment": {"points": 1}},
        {"op": "insert", "entity": "entry", "key": unit_id, "values": {"note": "mark"}},
        {"op": "update", "entity": "account", "key": account, "increment": {"balance": delta}},
        id=unit_id,
        timeout_ms=120_000,
    )
    workload.places.append(place)


# --- rest ---------------------------------------------------------------------------------------


async def come_to_rest(world: World, workload: Workload) -> None:
    """Wait until every record is taken in, every unit has ended, and all of it is published."""
    for place in workload.places:
        await until(
            lambda place=place: _is_taken_in(world, place),  # type: ignore[misc]
            f"the record at {place} is taken in",
            PATIENCE_SECONDS,
            world.daemon.tail,
        )
    for unit_id in workload.all:
        await world.topics.outcome(unit_id, "final", seconds=PATIENCE_SECONDS)

    async def at_rest() -> bool:
        return not await world.ledger.fetchval(
            "SELECT EXISTS (TABLE coordinator.outbox)"
            " OR EXISTS (TABLE coordinator.outbox_aside) OR EXISTS (TABLE coordinator.newcomers)"
        )

    await until(at_rest, "everything is published", PATIENCE_SECONDS, world.daemon.tail)
    await world.topics.caught_up()


async def _is_taken_in(world: World, place: Place) -> bool:
    return bool(
        await world.ledger.fetchval(
            "SELECT next_offset > $3 FROM coordinator.positions"
            " WHERE topic = $1 AND partition = $2",
            place.topic,
            place.partition,
            place.offset,
        )
    )


async def swept(world: World, workload: Workload) -> None:
    """Wait until the journal says that the bookkeeping of every unit is swept, or forgets it."""

    async def look() -> bool:
        return not await world.ledger.fetchval(
            "SELECT EXISTS (SELECT FROM coordinator.units WHERE id = ANY ($1) AND NOT swept)",
            workload.all,
        )

    await until(look, "the undo records are swept", PATIENCE_SECONDS, world.daemon.tail)


async def forgotten(world: World, workload: Workload) -> None:
    """Wait until the journal has forgotten every unit."""

    async def look() -> bool:
        return not await world.ledger.fetchval(
            "SELECT EXISTS (SELECT FROM coordinator.units WHERE id = ANY ($1))", workload.all
        )

    await until(look, "the units are forgotten", PATIENCE_SECONDS, world.daemon.tail)


# --- what must hold -----------------------------------------------------------------------------


async def violations(world: World, workload: Workload) -> list[str]:
    """Say what does not hold of a round whose units are all final."""
    found: list[str] = []
    records = await undo_records(world)
    for unit_id in workload.all:
        found += _of_outcomes(world, workload, unit_id)
        found += await _of_marks(world, workload, unit_id)
        found += _of_events(world, workload, unit_id)
        found += _of_records(workload, unit_id, records)
    found += _of_duplicates(world, workload)
    found += await _of_sums(world, workload)
    found += await _of_the_journal(world)
    return found


async def left_behind(world: World, workload: Workload) -> list[str]:
    """Say what of a round's bookkeeping is in the stores after it was swept."""
    records = await undo_records(world)
    return [
        f"unit {unit_id} is swept, and {store} holds its {state}"
        for unit_id in workload.all
        for store, state in records.get(unit_id, {}).items()
    ]


async def undo_records(world: World) -> dict[str, dict[str, str]]:
    """Give the state of every undo record and tombstone, by unit and store."""
    found: dict[str, dict[str, str]] = {}
    for row in await world.archive.fetch("SELECT unit_id, state FROM coordinator.undo"):
        found.setdefault(row["unit_id"], {})["archive"] = row["state"]
    for record in world.catalog["_coordinator_undo"].find({}, {"unit": 1, "state": 1}):
        found.setdefault(record["unit"], {})["catalog"] = record["state"]
    return found


def _finals(world: World, unit_id: str) -> Iterator[dict[str, Any]]:
    for record in world.topics.outcomes_so_far(unit_id):
        if record.json["status"] != "parked" and not record.json["duplicate"]:
            yield record.json


def status_of(world: World, unit_id: str) -> str:
    """Give how a unit ended."""
    status: str = next(_finals(world, unit_id))["status"]
    return status


def _of_outcomes(world: World, workload: Workload, unit_id: str) -> list[str]:
    """F5: one final decision, however often it is published."""
    told = {json.dumps(outcome, sort_keys=True) for outcome in _finals(world, unit_id)}
    if len(told) != 1:
        return [f"F5: unit {unit_id} has {len(told)} different final outcomes"]
    status, expected = status_of(world, unit_id), workload.statuses(unit_id)
    return [] if status in expected else [f"unit {unit_id} is {status}, not one of {expected}"]


def _of_duplicates(world: World, workload: Workload) -> list[str]:
    """F4: of two records of one unit, one is the unit and the other is answered."""
    found = []
    for unit_id in workload.duplicated:
        records = world.topics.outcomes_so_far(unit_id)
        answers = {r.ce_id for r in records if r.ce_id.startswith(f"{unit_id}/duplicate/")}
        if len(answers) != 1:
            found.append(f"F4: the duplicate of {unit_id} has {len(answers)} answers")
    return found


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


def _of_records(workload: Workload, unit_id: str, records: dict[str, dict[str, str]]) -> list[str]:
    """I2, rule 1: what is undone is marked as undone, and what is committed has no tombstone."""
    if unit_id in workload.ended_by_a_person:
        return []  # resolved by hand: what the undo could not do is swept as it stands
    wrong = {"undone", "tombstone"} if unit_id in workload.good else {"applied"}
    return [
        f"I2: {store} holds a record of {unit_id} that is {state}"
        for store, state in records.get(unit_id, {}).items()
        if state in wrong
    ]


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
