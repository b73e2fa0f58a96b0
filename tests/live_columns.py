"""The live columns of a PostgreSQL table, as a mapping knows them."""

from __future__ import annotations

from typing import Any

from coordinator.domain.entity import Column

_COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod), attgenerated <> '', attidentity <> ''
FROM pg_attribute
WHERE attrelid = format('%I.%I', $1::text, $2::text)::regclass AND attnum > 0 AND NOT attisdropped
ORDER BY attnum
"""


async def columns_of(connection: Any, table: str, schema: str = "public") -> tuple[Column, ...]:
    """Read a table's columns; the session's search path must not hide the types' schemas."""
    return tuple(Column(*row) for row in await connection.fetch(_COLUMNS, schema, table))
