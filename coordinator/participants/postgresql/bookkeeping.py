"""Our own tables in a store: making them once, and knowing whether they are those we know (F37)."""

from __future__ import annotations

from importlib.resources import files

from coordinator.domain.errors import ConfigurationInvalid
from coordinator.postgres_pool import Pool, connected, transaction

VERSION = 1

_ADVISORY_LOCK = 0x636F6F7264  # "coord": one daemon at a time makes the tables


async def prepare(pool: Pool, store: str) -> None:
    """Make the schema ``coordinator`` and its tables where they are missing.

    Raises `ConfigurationInvalid` when there are tables of another version, and whatever the
    store says when a right is missing (`BatchRefused`) or it is away (`StoreUnavailable`).
    """
    async with connected(pool, store) as connection:
        if await connection.fetchval("SELECT to_regclass('coordinator.bookkeeping')"):
            found = await connection.fetchval("SELECT version FROM coordinator.bookkeeping")
            _check(store, found)
            return
    async with transaction(pool, store) as connection:
        await connection.execute(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
        # Asked first: CREATE SCHEMA IF NOT EXISTS needs the right even where it does nothing.
        if not await connection.fetchval("SELECT to_regnamespace('coordinator')"):
            await connection.execute("CREATE SCHEMA coordinator")
        if await connection.fetchval("SELECT to_regclass('coordinator.bookkeeping')"):
            _check(store, await connection.fetchval("SELECT version FROM coordinator.bookkeeping"))
            return
        script = files(__package__).joinpath("bookkeeping.sql").read_text(encoding="utf-8")
        await connection.execute(script)


def _check(store: str, found: object) -> None:
    if found != VERSION:
        raise ConfigurationInvalid(
            [
                f"store {store}: the tables of schema coordinator have version {found}; "
                f"this coordinator knows version {VERSION}"
            ]
        )
