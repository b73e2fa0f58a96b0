"""The shop's own tables and collections: made from ``config/sample/``, filled, and read whole.

Owns what the demonstration does to the two stores behind the coordinator's back: everything
before the daemon starts, and only reading afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg
from pymongo import AsyncMongoClient

from coordinator.demo.shop import Opening, order_of

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Both stores at one moment, by key. Balances and totals in EUR, stock in pieces."""

    customers: Mapping[int, Row]
    accounts: Mapping[int, Row]
    stock: Mapping[str, Row]
    orders: Mapping[str, Row]
    carts: Mapping[str, Row]

    def rows(self, entity: str) -> Mapping[Any, Row]:
        """The rows or documents of an entity of the mapping."""
        named: dict[str, Mapping[Any, Row]] = {
            "customer": self.customers,
            "account": self.accounts,
            "stock": self.stock,
            "order": self.orders,
            "cart": self.carts,
        }
        return named[entity]


class Stores:
    """Connections to both stores; an async context manager."""

    def __init__(self, postgres_dsn: str, mongodb_uri: str, database: str) -> None:
        self._dsn = postgres_dsn
        self._client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongodb_uri)
        self._catalog = self._client[database]

    async def __aenter__(self) -> Self:
        """Connect."""
        self._ledger = await asyncpg.connect(self._dsn)
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Let the connections go."""
        self._ledger.terminate()
        await self._client.close()

    async def create(self, samples: Path) -> None:
        """Make the sample tables and collections, as an operator would."""
        await self._ledger.execute((samples / "shop.sql").read_text())
        described = json.loads((samples / "shop.json").read_text())
        for name, collection in described["collections"].items():
            await self._catalog.create_collection(name, validator=collection.get("validator"))
            for index in collection.get("indexes", ()):
                options = dict(index)
                await self._catalog[name].create_index(list(options.pop("key").items()), **options)
        for name, documents in described["documents"].items():
            await self._catalog[name].insert_many(documents)

    async def fill(self, opening: Opening) -> None:
        """Put customers, accounts, stock and open carts there."""
        ledger = self._ledger
        async with ledger.transaction():
            await ledger.copy_records_to_table(
                "customers", records=opening.customers, columns=["id", "name", "email", "status"]
            )
            await ledger.copy_records_to_table(
                "accounts",
                records=opening.accounts,
                columns=["id", "customer", "balance", "status"],
            )
            await ledger.copy_records_to_table(
                "stock", records=opening.stock, columns=["sku", "on_hand", "reserved", "shelf"]
            )
        await self._catalog["carts"].insert_many(
            [{"_id": cart, "state": "open"} for cart in opening.carts]
        )

    async def snapshot(self) -> Snapshot:
        """Read both stores whole."""
        return Snapshot(
            customers=await self._rows("customers", "id"),
            accounts=await self._rows("accounts", "id"),
            stock=await self._rows("stock", "sku"),
            orders=await self._documents("orders"),
            carts=await self._documents("carts"),
        )

    async def open_units(self) -> list[str]:
        """The units in the journal that have no final decision, by id (schema: F37)."""
        rows = await self._ledger.fetch(
            "SELECT id FROM coordinator.units WHERE status IN ('accepted', 'compensating')"
        )
        return [row["id"] for row in rows]

    async def half_done(self, units: Sequence[str]) -> int:
        """For how many of these units, open in the journal, MongoDB holds the order already."""
        orders = [order_of(unit) for unit in units]
        return int(await self._catalog["orders"].count_documents({"_id": {"$in": orders}}))

    async def _rows(self, table: str, key: str) -> dict[Any, Row]:
        rows = await self._ledger.fetch(f'SELECT * FROM "{table}"')
        return {row[key]: dict(row) for row in rows}

    async def _documents(self, collection: str) -> dict[Any, Row]:
        return {document["_id"]: document async for document in self._catalog[collection].find()}


def money(value: Any) -> Decimal:
    """An amount as either store holds it, or as an event shows it."""
    return Decimal(str(value))
