"""Names of tables, collections and fields: what the stores take, and what is ours.

Refuses names that would reach our own bookkeeping (F37, I10).
"""

from __future__ import annotations

from typing import Final

from coordinator.domain.entity import StoreKind

DEFAULT_SCHEMA: Final = "public"
OUR_SCHEMA: Final = "coordinator"
OUR_COLLECTIONS: Final = "_coordinator"

_IDENTIFIER_BYTES_MAX: Final = 63
_SYSTEM_SCHEMAS: Final = frozenset({"information_schema"})


def split_table(written: str) -> tuple[str, str, str | None]:
    """Give (schema, table, what is wrong with it) of ``table`` or ``schema.table``."""
    schema, dot, table = written.rpartition(".")
    schema = schema if dot else DEFAULT_SCHEMA
    return schema, table, _table_fault(schema, table)


def _table_fault(schema: str, table: str) -> str | None:
    if "." in schema or not schema or not table:
        return 'must be "table" or "schema.table"'
    if fault := _identifier_fault(schema) or _identifier_fault(table):
        return fault
    if schema == OUR_SCHEMA:
        return f"schema {OUR_SCHEMA} holds the coordinator's own tables"
    if schema in _SYSTEM_SCHEMAS or schema.startswith("pg_"):
        return f"schema {schema} belongs to PostgreSQL"
    return None


def _identifier_fault(name: str) -> str | None:
    if "\0" in name:
        return "a name must not hold a NUL"
    if len(name.encode("utf-8", "replace")) > _IDENTIFIER_BYTES_MAX:
        return f"a name in PostgreSQL has at most {_IDENTIFIER_BYTES_MAX} bytes"
    return None


def collection_fault(name: str) -> str | None:
    """Say why a collection cannot have this name."""
    if name.startswith(OUR_COLLECTIONS):
        return f"collections {OUR_COLLECTIONS}… are the coordinator's own"
    if name.startswith("system."):
        return "collections system.… belong to MongoDB"
    if "$" in name or "\0" in name or name.startswith(".") or name.endswith("."):
        return "a collection's name must not hold $ or a NUL, nor begin or end with a dot"
    return None


def field_fault(name: str, kind: StoreKind) -> str | None:
    """Say why a field cannot have this name."""
    if not name:
        return "a field needs a name"
    if kind is StoreKind.POSTGRESQL:
        return _identifier_fault(name)
    if name.startswith("$") or "." in name or "\0" in name:
        return "a field's name in MongoDB must not begin with $, nor hold a dot or a NUL"
    return None
