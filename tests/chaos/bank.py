"""The bank: accounts in PostgreSQL and wallets in MongoDB, and transfers between any of them.

Every leg of a transfer leaves a mark beside the balance that it moves, an entry or a slip under
the unit's id. So all-or-none can be seen per unit, and exactly-once by the sums.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from bson import Decimal128, Int64

from tests.acceptance.harness.operations import insert, update
from tests.acceptance.harness.world import World
from tests.chaos.history import Add, At, Image, Json, Make, Sent, Write

ACCOUNTS = 200
"""The first half are accounts in PostgreSQL, the other half wallets in MongoDB."""
WALLETS_FROM = ACCOUNTS // 2
HOT = 5
START = Decimal("1000.00")
FORBIDDEN = "forbidden"

SQL = f"""
CREATE TABLE bank_accounts (
    id integer PRIMARY KEY, balance numeric(20,2) NOT NULL, note text, version bigint NOT NULL,
    CONSTRAINT no_forbidden_notes CHECK (note <> '{FORBIDDEN}')
);
CREATE TABLE bank_entries (id text PRIMARY KEY, account integer, amount numeric(20,2));
"""

_HOLDER = {"balance": {"type": "decimal", "min": 0}, "note": {"type": "string", "nullable": True}}
_MARK = {"account": {"type": "integer"}, "amount": {"type": "decimal"}}
ENTITIES: dict[str, Json] = {
    "account": {
        "store": "ledger",
        "table": "bank_accounts",
        "key": "id",
        "version": "version",
        "fields": {"id": {"type": "integer"}, **_HOLDER},
    },
    "entry": {
        "store": "ledger",
        "table": "bank_entries",
        "key": "id",
        "fields": {"id": {"type": "string"}, **_MARK},
    },
    "wallet": {
        "store": "catalog",
        "collection": "bank_wallets",
        "key": "_id",
        "version": "version",
        "fields": {"_id": {"type": "integer"}, **_HOLDER},
    },
    "slip": {
        "store": "catalog",
        "collection": "bank_slips",
        "key": "_id",
        "fields": {"_id": {"type": "string"}, **_MARK},
    },
}

PLAIN = "transfer"
MANY = "transfer of many legs"
HOPEFUL = "expects what may hold"
HOPELESS = "expects what does not hold"
OVERDRAWN = "overdraws"
REFUSED = "refused by a CHECK after MongoDB was written"
HURRIED = "in a hurry"
_WEIGHTS = {
    PLAIN: 64,
    MANY: 8,
    HOPEFUL: 8,
    HOPELESS: 5,
    OVERDRAWN: 5,
    REFUSED: 6,
    HURRIED: 4,
}
PATIENT_MS = 300_000


async def seed(world: World, count: int = ACCOUNTS) -> dict[At, Image]:
    """Make all accounts and wallets, half of each; give their images."""
    half = count // 2
    await world.ledger.execute(SQL)
    await world.ledger.execute(
        "INSERT INTO bank_accounts SELECT n, $1::numeric, NULL, 1 FROM generate_series(0, $2) n",
        START,
        half - 1,
    )
    world.catalog["bank_wallets"].insert_many(
        {"_id": Int64(n), "balance": Decimal128(START), "note": None, "version": Int64(1)}
        for n in range(half, count)
    )
    image = {"balance": START, "note": None, "version": 1}
    return {("account" if n < half else "wallet", n): image for n in range(count)}


def transfers(seed_number: int) -> Iterator[Sent]:
    """Draw transfers without end; the seed decides all of them."""
    chance = random.Random(f"bank {seed_number}")
    kinds, weights = list(_WEIGHTS), list(_WEIGHTS.values())
    number = 0
    while True:
        number += 1
        yield _transfer(chance, f"b{number}", chance.choices(kinds, weights)[0])


def altered(sent: Sent) -> Json:
    """Give a submission of the same id and other content."""
    return sent.body | {"metadata": {"altered": True}}


def _transfer(chance: random.Random, unit: str, kind: str) -> Sent:
    legs = _legs(chance, kind)
    operations: list[Json] = []
    writes: list[Write] = []
    for number, (account, amount) in enumerate(legs, 1):
        mark, name = ("entry" if account < WALLETS_FROM else "slip"), f"{unit}-{number}"
        parts: Json = {"increment": {"balance": str(amount)}}
        if kind in {HOPEFUL, HOPELESS} and amount < 0:
            least = START if kind == HOPEFUL else 1_000_000
            parts["expect"] = {"balance": {"gte": str(least)}}
        operations.append(update(_entity(account), account, **parts))
        operations.append(insert(mark, name, account=account, amount=str(amount)))
        writes.append(Add(_entity(account), account, amount))
        writes.append(Make(mark, name, {"account": account, "amount": amount}))
    if kind == REFUSED:
        # A CHECK of the table's own, which only PostgreSQL knows of.
        operations[-2]["set"] = {"note": FORBIDDEN}
    timeout_ms = chance.randint(50, 2000) if kind == HURRIED else PATIENT_MS
    body: Json = {"id": unit, "timeout_ms": timeout_ms, "operations": operations}
    key = str(legs[0][0]) if chance.random() < 0.7 else None
    is_hopeless = kind in {HOPELESS, OVERDRAWN, REFUSED}
    return Sent(unit, kind, body, tuple(writes), key, is_hopeless)


def _legs(chance: random.Random, kind: str) -> list[tuple[int, Decimal]]:
    """Draw accounts with what each gets; they sum to nothing."""
    if kind == REFUSED:
        accounts = [chance.randrange(WALLETS_FROM, ACCOUNTS), chance.randrange(WALLETS_FROM)]
    else:
        accounts = _accounts(chance, chance.randint(3, 5) if kind == MANY else 2)
    cents = 100_000_000 if kind == OVERDRAWN else chance.randint(1, 2000)
    amount = Decimal(cents) / 100
    others = accounts[1:]
    return [(accounts[0], -amount * len(others)), *((each, amount) for each in others)]


def _accounts(chance: random.Random, count: int) -> list[int]:
    """Draw different accounts over both stores; a few of them are in more demand than others."""
    drawn: list[int] = []
    while len(drawn) < count:
        first = chance.choice((0, WALLETS_FROM))
        span = HOT if chance.random() < 0.05 else WALLETS_FROM
        account = first + chance.randrange(span)
        if account not in drawn:
            drawn.append(account)
    return drawn


def _entity(account: int) -> str:
    return "account" if account < WALLETS_FROM else "wallet"


async def stored(world: World, connection: Any) -> dict[At, Json]:
    """Read every row and document of the bank."""
    rows: dict[At, Json] = {}
    for entity, table in (("account", "bank_accounts"), ("entry", "bank_entries")):
        for row in await connection.fetch(f"SELECT * FROM {table}"):
            rows[entity, row["id"]] = dict(row)
    for entity, collection in (("wallet", "bank_wallets"), ("slip", "bank_slips")):
        for document in world.catalog[collection].find():
            rows[entity, document["_id"]] = document
    return rows
