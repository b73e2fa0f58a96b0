"""Reading a PostgreSQL store's catalog.

Owns four queries on ``pg_catalog``, over the mapped tables only. Refuses to open a connection: give
it one whose ``search_path`` is ``pg_catalog`` (as `coordinator.bootstrap.stores` sets it), so that
names of types come out qualified, and let its errors be translated there.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import asyncpg

from coordinator.mapping.catalog import (
    LiveColumn,
    LiveForeignKey,
    LiveTable,
    PostgresqlCatalog,
    TableName,
)

_TABLES: Final = """
SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
       c.relrowsecurity AND (c.relforcerowsecurity OR NOT pg_has_role(c.relowner, 'USAGE'))
           AS row_security,
       c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid)
           AS has_children,
       ARRAY(SELECT tgname::text FROM pg_trigger
             WHERE tgrelid = c.oid AND NOT tgisinternal AND tgenabled <> 'D' ORDER BY 1)
           AS triggers,
       ARRAY(SELECT rulename::text FROM pg_rewrite
             WHERE ev_class = c.oid AND rulename <> '_RETURN' AND ev_enabled <> 'D' ORDER BY 1)
           AS rules,
       ARRAY(SELECT r FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS r
             WHERE has_schema_privilege(n.oid, 'USAGE')
               AND (has_table_privilege(c.oid, r)
                    OR r <> 'DELETE' AND has_any_column_privilege(c.oid, r)))
           AS rights
FROM unnest($1::text[], $2::text[]) AS asked(schema, name)
JOIN pg_namespace AS n ON n.nspname = asked.schema
JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = asked.name
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""

_COLUMNS: Final = """
WITH RECURSIVE base AS (
    SELECT a.attrelid, a.attnum, a.atttypid AS type, a.atttypmod AS modifier,
           false AS not_null, false AS has_default
    FROM pg_attribute AS a
    WHERE a.attrelid = ANY ($1::int8[]::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT base.attrelid, base.attnum, t.typbasetype,
           CASE WHEN base.modifier >= 0 THEN base.modifier ELSE t.typtypmod END,
           base.not_null OR t.typnotnull, base.has_default OR t.typdefault IS NOT NULL
    FROM base JOIN pg_type AS t ON t.oid = base.type
    WHERE t.typtype = 'd'
)
SELECT a.attrelid::int8 AS oid, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
       CASE WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN t.typname::text END AS base_type,
       base.modifier, a.attnotnull OR base.not_null AS not_null,
       a.attgenerated <> '' AS generated, a.attidentity <> '' AS identity,
       a.atthasdef OR a.attidentity <> '' OR base.has_default AS has_default,
       COALESCE(l.collisdeterministic, true) AS deterministic
FROM base
JOIN pg_attribute AS a USING (attrelid, attnum)
JOIN pg_type AS t ON t.oid = base.type
LEFT JOIN pg_collation AS l ON l.oid = a.attcollation
WHERE t.typtype <> 'd'
ORDER BY a.attrelid, a.attnum
"""

_KEYS: Final = """
SELECT i.indrelid::int8 AS oid, a.attname AS name
FROM pg_index AS i
JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
WHERE i.indrelid = ANY ($1::int8[]::oid[])
  AND i.indisunique AND i.indisvalid AND i.indimmediate
  AND i.indnkeyatts = 1 AND i.indpred IS NULL AND i.indexprs IS NULL
"""

_FOREIGN_KEYS: Final = """
SELECT k.conname AS name, k.confdeltype::text AS on_delete,
       tn.nspname AS schema, t.relname AS table, rn.nspname AS referred_schema,
       r.relname AS referred,
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS c(num, at)
             JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = c.num
             ORDER BY c.at) AS columns,
       ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS c(num, at)
             JOIN pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = c.num
             ORDER BY c.at) AS referred_columns
FROM pg_constraint AS k
JOIN pg_class AS t ON t.oid = k.conrelid
JOIN pg_namespace AS tn ON tn.oid = t.relnamespace
JOIN pg_class AS r ON r.oid = k.confrelid
JOIN pg_namespace AS rn ON rn.oid = r.relnamespace
WHERE k.contype = 'f'
  AND (k.conrelid = ANY ($1::int8[]::oid[]) OR k.confrelid = ANY ($1::int8[]::oid[]))
ORDER BY 3, 4, 1
"""


async def read_catalog(
    connection: asyncpg.Connection, tables: Collection[TableName]
) -> PostgresqlCatalog:
    """Read what the store says of these tables; those that are not there are missing in it."""
    names = sorted(set(tables))
    found = await connection.fetch(
        _TABLES, [schema for schema, _ in names], [name for _, name in names]
    )
    oids = [row["oid"] for row in found]
    columns: dict[int, list[LiveColumn]] = {oid: [] for oid in oids}
    for row in await connection.fetch(_COLUMNS, oids):
        columns[row["oid"]].append(_column(row))
    keys: dict[int, set[str]] = {oid: set() for oid in oids}
    for row in await connection.fetch(_KEYS, oids):
        keys[row["oid"]].add(row["name"])
    foreign_keys = [_foreign_key(row) for row in await connection.fetch(_FOREIGN_KEYS, oids)]
    return PostgresqlCatalog(
        tables={
            (row["schema"], row["name"]): _table(row, columns[row["oid"]], keys[row["oid"]])
            for row in found
        },
        foreign_keys=tuple(foreign_keys),
    )


def _table(row: Any, columns: list[LiveColumn], keys: set[str]) -> LiveTable:
    return LiveTable(
        schema=row["schema"],
        name=row["name"],
        kind=row["kind"],
        columns=tuple(columns),
        keys=frozenset(keys),
        rights=frozenset(row["rights"]),
        triggers=tuple(row["triggers"]),
        rules=tuple(row["rules"]),
        has_children=row["has_children"],
        row_security=row["row_security"],
    )


def _column(row: Any) -> LiveColumn:
    return LiveColumn(
        name=row["name"],
        type=row["type"],
        base_type=row["base_type"],
        modifier=row["modifier"],
        not_null=row["not_null"],
        generated=row["generated"],
        identity=row["identity"],
        has_default=row["has_default"],
        same_text_same_value=row["deterministic"],
    )


def _foreign_key(row: Any) -> LiveForeignKey:
    return LiveForeignKey(
        name=row["name"],
        table=(row["schema"], row["table"]),
        columns=tuple(row["columns"]),
        referred=(row["referred_schema"], row["referred"]),
        referred_columns=tuple(row["referred_columns"]),
        on_delete=row["on_delete"],
    )
