"""The least roles for a store, as a script for its administrator: migrate, run and read.

Owns which rights each role has; they follow from the mapping, so that nothing is granted on a table
or collection that units cannot touch. Connects to nothing. The scripts hold no password, change
nothing that is there already, and may be run again: after every `coordinator migrate`, too.

* *migrate* makes our tables and owns the schema; it has no right on mapped tables.
* *run* is the daemon's. All daemons of a journal share it, because ending the sessions that a dead
  one left behind is then everybody's own affair and needs no further right.
* *read* sees the bookkeeping, for `coordinator units list` and monitoring.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from coordinator.domain.entity import Entity
from coordinator.domain.errors import ConfigurationInvalid
from coordinator.mapping import load_entities
from coordinator.mapping.live_tables import rights_needed, table_of
from coordinator.participants.mongodb.bookkeeping import FENCES, SHARES, UNDO
from coordinator.participants.postgresql.statements import quote_identifier, quote_table
from coordinator.settings import MongodbStore, Settings

_PREFIX: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
JOURNAL: Final = "journal"


def script(settings: Settings, store: str, prefix: str = "coordinator") -> str:
    """Give the script for a store, or for a journal that has a database of its own."""
    if not _PREFIX.fullmatch(prefix):
        raise ConfigurationInvalid(
            ["--prefix: must be up to 40 small letters, digits and _, a letter first"]
        )
    if store == JOURNAL and settings.journal.dsn is not None:
        return "\n".join(_postgresql(prefix, [], holds_journal=True)) + "\n"
    if store not in settings.stores:
        known = [*settings.stores, *([JOURNAL] if settings.journal.dsn is not None else [])]
        raise ConfigurationInvalid([f"{store}: is no store; there are {', '.join(known)}"])
    entities = [each.entity for each in load_entities(settings) if each.entity.store == store]
    found = settings.stores[store]
    if isinstance(found, MongodbStore):
        return "\n".join(_mongodb(prefix, found.database, entities)) + "\n"
    holds_journal = settings.journal.store == store
    return "\n".join(_postgresql(prefix, entities, holds_journal=holds_journal)) + "\n"


# --- PostgreSQL ---------------------------------------------------------------------------------

_ATTRIBUTES: Final = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
_KEPT_FROM_RUN: Final = {
    "migrations": "INSERT, UPDATE, DELETE",
    "journal": "INSERT, DELETE",
    "audit": "UPDATE",
    "bookkeeping": "INSERT, UPDATE, DELETE",
}
"""Rights on tables of ours that a daemon has no need of, though it writes the others."""


def _postgresql(prefix: str, entities: Sequence[Entity], *, holds_journal: bool) -> Iterator[str]:
    migrate, run, read = roles = [f"{prefix}_{role}" for role in ("migrate", "run", "read")]
    yield "-- Run by an administrator, with psql, in the database itself; again after every"
    yield "-- `coordinator migrate` and every change of the mapping. Then, once:"
    yield from (f"--   \\password {role}" for role in roles)
    yield "BEGIN;"
    yield "DO $$ BEGIN"
    for role in roles:
        yield f"  IF to_regrole('{role}') IS NULL THEN"
        yield f"    CREATE ROLE {role} {_ATTRIBUTES};"
        yield "  END IF;"
    yield "  IF to_regnamespace('coordinator') IS NULL THEN"
    yield f"    CREATE SCHEMA coordinator AUTHORIZATION {migrate};"
    yield "  END IF;"
    connect = f"GRANT CONNECT ON DATABASE %I TO {', '.join(roles)}"
    yield f"  EXECUTE format('{connect}', current_database());"
    yield "END $$;"
    yield f"GRANT USAGE ON SCHEMA coordinator TO {run}, {read};"
    yield from _granted(migrate, run, read)
    yield "-- What the daemon only reads, or only adds to."
    yield "DO $$ BEGIN"
    for table, rights in _KEPT_FROM_RUN.items():
        yield f"  IF to_regclass('coordinator.{table}') IS NOT NULL THEN"
        yield f"    REVOKE {rights} ON coordinator.{table} FROM {run};"
        yield "  END IF;"
    yield "END $$;"
    yield from _mapped_tables(run, entities)
    yield "COMMIT;"
    if holds_journal:
        yield "-- With these roles set journal.migrate = false: a daemon may make nothing any more."


def _granted(migrate: str, run: str, read: str) -> Iterator[str]:
    """Rights on what is there, and the same on what a later migration makes."""
    ours = "IN SCHEMA coordinator"
    later = f"ALTER DEFAULT PRIVILEGES FOR ROLE {migrate}"
    yield "-- Our tables and functions: those that are there, and those of later migrations."
    yield f"{later} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;"
    yield f"REVOKE EXECUTE ON ALL FUNCTIONS {ours} FROM PUBLIC;"
    for rights, kind, role in (
        ("SELECT, INSERT, UPDATE, DELETE", "TABLES", run),
        ("EXECUTE", "FUNCTIONS", run),
        ("SELECT", "TABLES", read),
    ):
        yield f"{later} {ours}"
        yield f"  GRANT {rights} ON {kind} TO {role};"
        yield f"GRANT {rights} ON ALL {kind} {ours} TO {role};"


def _mapped_tables(run: str, entities: Iterable[Entity]) -> Iterator[str]:
    yield "-- The mapped tables: what their operations need, undo included."
    rights = {table_of(entity): rights_needed(entity) for entity in entities}
    for schema in sorted({schema for schema, _ in rights}):
        yield f"GRANT USAGE ON SCHEMA {quote_identifier(schema)} TO {run};"
    for (schema, table), needed in sorted(rights.items()):
        name = quote_table(schema, table)
        yield f"REVOKE ALL ON {name} FROM {run};"
        listed = ", ".join(each for each in _SQL_RIGHTS if each in needed)
        yield f"GRANT {listed} ON {name} TO {run};"


_SQL_RIGHTS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")


# --- MongoDB ------------------------------------------------------------------------------------

_ACTIONS: Final = {"SELECT": "find", "INSERT": "insert", "UPDATE": "update", "DELETE": "remove"}


def _mongodb(prefix: str, database: str, entities: Sequence[Entity]) -> Iterator[str]:
    yield "// Run by an administrator with mongosh; again after every change of the mapping. Then"
    yield "// make a user for each role, once:"
    yield (
        f'//   db.createUser({{user: "{prefix}_run", pwd: passwordPrompt(), '
        f'roles: ["{prefix}_run"]}})'
    )
    yield f"db = db.getSiblingDB({json.dumps(database)})"
    yield "function role(name, privileges) {"
    yield "  if (db.getRole(name)) db.updateRole(name, {privileges, roles: []})"
    yield "  else db.createRole({role: name, privileges, roles: []})"
    yield "}"
    for name, privileges in mongodb_privileges(database, entities).items():
        yield f"role({json.dumps(f'{prefix}_{name}')}, {json.dumps(privileges)})"


def mongodb_privileges(
    database: str, entities: Sequence[Entity]
) -> dict[str, list[dict[str, Any]]]:
    """Give the privileges of each role, as ``createRole`` takes them."""
    mapped = {
        each.table: sorted(_ACTIONS[right] for right in rights_needed(each)) for each in entities
    }
    ours = {name: sorted(_ACTIONS.values()) for name in (UNDO, FENCES, SHARES)}

    def on(collection: str, *actions: str) -> dict[str, Any]:
        return {"resource": {"db": database, "collection": collection}, "actions": [*actions]}

    listing = on("", "listCollections")
    return {
        "migrate": [
            listing,
            *(on(name, "createCollection") for name in (*mapped, *ours)),
            on(SHARES, "createIndex"),
        ],
        "run": [
            listing,
            # Units share a counter only where no unique index judges it.
            *(on(name, *actions, "listIndexes") for name, actions in mapped.items()),
            *(on(name, *actions) for name, actions in ours.items()),
        ],
        "read": [listing, *(on(name, "find") for name in ours)],
    }
