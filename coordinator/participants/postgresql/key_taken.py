"""Telling a unique violation of the key itself from any other: it means, look again."""

from __future__ import annotations

from coordinator.participants.postgresql.statements import Table, quote_identifier
from coordinator.postgres_pool import sqlstate

_UNIQUE_VIOLATION = "23505"


def is_key_taken(error: BaseException, table: Table) -> bool:
    """Whether a stranger has inserted a row with our key since we looked.

    The server names the columns only in its detail, as ``Key (id)=(…)`` in every language.
    """
    if sqlstate(error) != _UNIQUE_VIOLATION:
        return False
    if (getattr(error, "schema_name", None), getattr(error, "table_name", None)) != (
        table.schema,
        table.name,
    ):
        return False
    detail = getattr(error, "detail", None) or ""
    return any(f" ({name})=(" in detail for name in (table.key, quote_identifier(table.key)))
