"""Numbered SQL migrations of the journal, applied in order under an advisory lock.

Forward only. Each file runs once, in one transaction with its row in ``coordinator.migrations``;
a file that was applied and has changed since is an error, because two journals would differ
under one version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import asyncpg

from coordinator.domain.errors import ConfigurationInvalid

_SCHEMA = "CREATE SCHEMA coordinator"
_TABLE = """
CREATE TABLE IF NOT EXISTS coordinator.migrations (
    version    int PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file; ``checksum`` is the hex SHA-256 of its text."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """Identify the text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> tuple[Migration, ...]:
    """Read the packaged files, in order."""
    folder = resources.files("coordinator.journal") / "migrations"
    found = [
        Migration(int(file.name.split("_", 1)[0]), file.name, file.read_text(encoding="utf-8"))
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    ]
    return tuple(sorted(found, key=lambda migration: migration.version))


async def migrate(connection: asyncpg.Connection) -> Sequence[str]:
    """Apply what is missing, in one transaction; give the names of what was applied.

    Several daemons may start at once: the first one migrates, the others wait and find it done.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('coordinator.migrate'))")
        # Asked first: CREATE SCHEMA IF NOT EXISTS needs the right even where it does nothing.
        if await connection.fetchval("SELECT to_regnamespace('coordinator')") is None:
            await connection.execute(_SCHEMA)
        await connection.execute(_TABLE)
        done = {
            row["version"]: row["checksum"]
            for row in await connection.fetch(
                "SELECT version, checksum FROM coordinator.migrations"
            )
        }
        missing = _missing(done)
        for migration in missing:
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO coordinator.migrations (version, name, checksum) VALUES ($1, $2, $3)",
                migration.version,
                migration.name,
                migration.checksum,
            )
    return [migration.name for migration in missing]


async def pending(connection: asyncpg.Connection) -> Sequence[str]:
    """Tell which migrations the journal lacks, without changing anything."""
    if await connection.fetchval("SELECT to_regclass('coordinator.migrations')") is None:
        return [migration.name for migration in migrations()]
    rows = await connection.fetch("SELECT version, checksum FROM coordinator.migrations")
    return [each.name for each in _missing({row["version"]: row["checksum"] for row in rows})]


def _missing(done: dict[int, str]) -> list[Migration]:
    known = migrations()
    mistakes = [
        f"journal: migration {each.name} was applied with another text"
        for each in known
        if each.version in done and done[each.version] != each.checksum
    ]
    newest = max(each.version for each in known)
    mistakes += [
        f"journal: it has migration {version}, which this version does not know; upgrade first"
        for version in done
        if version > newest
    ]
    if mistakes:
        raise ConfigurationInvalid(mistakes)
    return [each for each in known if each.version not in done]
