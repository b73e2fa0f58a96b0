"""Whether a table has rules of its own that judge a row at every write.

Units that share a row may be written with one statement only where nobody looks at what stands in
between: a CHECK that the second of three units violates, and the third makes good again, must
refuse the second. Asked inside the transaction that writes, after its row locks: whoever wants to
give the table a new rule waits for us.
"""

from __future__ import annotations

from collections.abc import Collection

from coordinator.participants.postgresql.statements import Table, quote_table
from coordinator.postgres_pool import Connection

_HAS_RULES = """
WITH t AS (
    SELECT c.oid, c.relkind, c.relrowsecurity,
           ARRAY(SELECT a.attnum FROM pg_catalog.pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attname = ANY ($2)) AS written
    FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass($1)
)
SELECT t.relkind <> 'r' OR t.relrowsecurity
    OR EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conrelid = t.oid
               AND (k.contype IN ('c', 'x') OR k.contype = 'f' AND k.conkey && t.written))
    OR EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = t.oid AND i.indisunique
               AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL
                    OR i.indkey::int2[] && t.written))
    OR EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgrelid = t.oid AND NOT g.tgisinternal)
    OR EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = t.oid)
    OR EXISTS (SELECT FROM pg_catalog.pg_attribute a
               JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
               WHERE a.attrelid = t.oid AND a.attnum = ANY (t.written) AND y.typtype = 'd')
FROM t
"""


async def has_rules(connection: Connection, table: Table, columns: Collection[str]) -> bool:
    """Whether something judges or changes rows of the table whose ``columns`` are written.

    Checks, unique and foreign keys over these columns, exclusions, domains, triggers, rules, row
    security; and whatever is no ordinary table. Raises driver errors untranslated.
    """
    name = quote_table(table.schema, table.name)
    found = await connection.fetchval(_HAS_RULES, name, list(columns))
    return found is None or bool(found)
