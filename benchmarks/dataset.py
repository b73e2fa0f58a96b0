"""The accounts in PostgreSQL and the wallets in MongoDB: made before, counted afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import asyncpg
import pymongo
from bson import Decimal128, Int64

from benchmarks.transfers import POOR

START: Final = 1_000_000
"""What is on every account that is not poor."""

WALLETS: Final = "wallets"
_SCHEMA: Final = """
CREATE TABLE accounts (
    id int PRIMARY KEY,
    balance numeric(12,2) NOT NULL CHECK (balance >= 0),
    version int NOT NULL
)
"""


class MoneyLost(Exception):
    """What a load has left in the stores is not what its outcomes say."""


async def make(dsn: str, uri: str, database: str, keys: int) -> None:
    """Make the accounts and the wallets."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_SCHEMA)
        await connection.execute(
            "INSERT INTO accounts SELECT n, CASE WHEN n < $1::int THEN $2::int ELSE 0 END, 1"
            " FROM generate_series(0, $1::int + $3::int - 1) n",
            keys,
            START,
            POOR,
        )
        await connection.execute("VACUUM ANALYZE accounts")
    finally:
        await connection.close()
    await asyncio.to_thread(_make_wallets, uri, database, keys)


def _make_wallets(uri: str, database: str, keys: int) -> None:
    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        client[database][WALLETS].insert_many(
            {"_id": Int64(n), "balance": Decimal128("0"), "version": Int64(1)} for n in range(keys)
        )


async def check(dsn: str, uri: str, database: str, keys: int, moved: int) -> None:
    """Raise `MoneyLost` unless so many debits and as many credits were made, once each."""
    connection = await asyncpg.connect(dsn)
    try:
        row = await connection.fetchrow(
            "SELECT sum(balance) AS balance, sum(version - 1) AS writes FROM accounts"
        )
    finally:
        await connection.close()
    wallets = await asyncio.to_thread(_sums, uri, database)
    found = (
        int(keys * START - row["balance"]),
        int(row["writes"]),
        int(wallets["balance"]),
        int(wallets["writes"]),
    )
    if found != (moved,) * 4:
        raise MoneyLost(
            f"{moved:,} debits and credits were told of. PostgreSQL lacks {found[0]:,} and counts"
            f" {found[1]:,} writes; MongoDB has {found[2]:,} more and counts {found[3]:,} writes."
        )


def _sums(uri: str, database: str) -> Mapping[str, int]:
    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        (sums,) = client[database][WALLETS].aggregate(
            [
                {
                    "$group": {
                        "_id": None,
                        "balance": {"$sum": "$balance"},
                        "writes": {"$sum": {"$subtract": ["$version", 1]}},
                    }
                }
            ]
        )
    return {"balance": int(sums["balance"].to_decimal()), "writes": int(sums["writes"])}
