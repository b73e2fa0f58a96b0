"""DBOS Transact: the transfer as a durable workflow of two steps, with a compensation.

DBOS is a library that journals workflows and steps in PostgreSQL; the code of the steps is the
application's. Its system tables are in the arena's own database. Its steps are repeated after a
crash, so a debit may happen twice, and it has no event: it is given the easier task.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any, Final

import asyncpg
from bson import Decimal128, Int64

from benchmarks.arena import Arena
from benchmarks.contenders.contender import Submit
from benchmarks.contenders.pools import mongodb_client, postgresql_pool
from benchmarks.dataset import WALLETS
from benchmarks.transfers import Transfer

_CONNECTIONS: Final = 32
_MOVE: Final = "UPDATE accounts SET balance = balance + $2, version = version + 1 WHERE id = $1"
_CREDIT: Final = {"$inc": {"balance": Decimal128("1"), "version": Int64(1)}}


class Dbos:
    """A `Contender`."""

    name = "dbos"
    title = "DBOS Transact, two steps"

    @property
    def missing(self) -> str | None:
        """Whether the package is."""
        if find_spec("dbos") is None:
            return "DBOS is not installed: .venv/bin/pip install 'dbos>=3.4,<4' adds it."
        return None

    @asynccontextmanager
    async def start(self, arena: Arena) -> AsyncIterator[_Workflows]:
        """Launch DBOS in this process; it is destroyed again, its registry included."""
        from dbos import DBOS

        async with postgresql_pool(arena) as pool, mongodb_client(arena) as client:
            DBOS(
                config={
                    "name": "transfers",
                    "system_database_url": arena.postgres_dsn,
                    "sys_db_pool_size": _CONNECTIONS,
                    "log_level": "ERROR",
                }
            )
            workflows = _Workflows(pool, client[arena.name][WALLETS])
            try:
                await asyncio.to_thread(DBOS.launch)
                yield workflows
            finally:
                await asyncio.to_thread(DBOS.destroy, destroy_registry=True)
                # It has made its own threads those of the loop, and they have ended with it.
                asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())


class _Workflows:
    """A `Running`."""

    def __init__(self, pool: asyncpg.Pool, wallets: Any) -> None:
        from dbos import DBOS

        @DBOS.step()
        async def debit(account: int) -> None:
            await pool.execute(_MOVE, account, -1)

        @DBOS.step()
        async def give_back(account: int) -> None:
            await pool.execute(_MOVE, account, 1)

        @DBOS.step()
        async def credit(wallet: int) -> None:
            credited = await wallets.update_one({"_id": wallet}, _CREDIT)
            if credited.modified_count != 1:
                raise LookupError(f"wallet {wallet} is missing")

        @DBOS.workflow()
        async def transfer(account: int, wallet: int) -> str:
            await debit(account)
            try:
                await credit(wallet)
            except Exception:
                await give_back(account)
                return "compensated"
            return "committed"

        self._transfer = transfer

    @property
    def pids(self) -> Mapping[str, int]:
        """None: DBOS lives in the client's process."""
        return {}

    @property
    def submit(self) -> Submit | None:
        """A client waits for its workflow."""
        return None

    async def perform(self, transfer: Transfer) -> str:
        """Run the workflow to its end."""
        (account,), (wallet,) = transfer.debits, transfer.credits
        return await self._transfer(account, wallet)
