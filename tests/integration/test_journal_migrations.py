"""Migrations of the journal: once, whoever comes, and never over what we do not know."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from coordinator.domain.errors import ConfigurationInvalid
from coordinator.journal import migrate as module
from coordinator.journal.migrate import Migration, migrate, migrations, pending

pytestmark = pytest.mark.integration

NAMES = [each.name for each in migrations()]


async def test_it_migrates_once(postgres_dsn: str) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    try:
        assert await pending(connection) == NAMES
        assert await connection.fetchval("SELECT to_regnamespace('coordinator')") is None
        assert await migrate(connection) == NAMES
        before = await connection.fetchval("SELECT id FROM coordinator.journal")
        assert await migrate(connection) == []
        assert await pending(connection) == []
        assert await connection.fetchval("SELECT id FROM coordinator.journal") == before
    finally:
        await connection.close()


async def test_daemons_that_start_together_migrate_once(postgres_dsn: str) -> None:
    connections = [await asyncpg.connect(postgres_dsn) for _ in range(6)]
    try:
        done = await asyncio.gather(*(migrate(each) for each in connections))
        assert sorted(map(len, done)) == [0] * 5 + [len(NAMES)]
    finally:
        for each in connections:
            await each.close()


async def test_a_migration_whose_text_has_changed_is_refused(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    try:
        await migrate(connection)
        changed = (Migration(1, NAMES[0], "SELECT 1"), *migrations()[1:])
        monkeypatch.setattr(module, "migrations", lambda: changed)
        for act in (migrate, pending):
            with pytest.raises(ConfigurationInvalid, match=f"{NAMES[0]} was applied with another"):
                await act(connection)
    finally:
        await connection.close()


async def test_a_newer_journal_is_refused(postgres_dsn: str) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    try:
        await migrate(connection)
        await connection.execute(
            "INSERT INTO coordinator.migrations (version, name, checksum) VALUES (999, 'x', 'y')"
        )
        for act in (migrate, pending):
            with pytest.raises(ConfigurationInvalid, match="migration 999"):
                await act(connection)
    finally:
        await connection.close()


async def test_a_migration_that_fails_leaves_nothing_of_any(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    broken = Migration(900, "0900_broken.sql", "CREATE TABLE coordinator.half (); SELECT 1/0")
    original = migrations()
    try:
        monkeypatch.setattr(module, "migrations", lambda: (*original, broken))
        with pytest.raises(asyncpg.DivisionByZeroError):
            await migrate(connection)
        assert await connection.fetchval("SELECT to_regnamespace('coordinator')") is None
        monkeypatch.setattr(module, "migrations", lambda: original)
        assert await migrate(connection) == NAMES
    finally:
        await connection.close()
