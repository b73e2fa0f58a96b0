"""What ``coordinator doctor`` asks a PostgreSQL server; nothing is changed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from coordinator.domain.diagnosis import PostgresqlFacts
from coordinator.postgres_pool import Pool, connected

_SETTINGS: Final = (
    "fsync",
    "full_page_writes",
    "synchronous_commit",
    "synchronous_standby_names",
    "transaction_read_only",
)
_RIGHTS: Final = """
SELECT format('the role %s lacks %s on table %s', current_user, wanted, c.oid::regclass)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
     unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS wanted
WHERE n.nspname = 'coordinator' AND c.relkind = 'r'
  AND NOT (wanted <> 'SELECT' AND c.relname IN ('migrations', 'bookkeeping', 'journal'))
  AND NOT has_table_privilege(c.oid, wanted)
UNION ALL
SELECT format('the role %s lacks EXECUTE on function %s', current_user, p.oid::regprocedure)
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = 'coordinator' AND NOT has_function_privilege(p.oid, 'EXECUTE')
UNION ALL
SELECT format('the role %s lacks USAGE on schema coordinator', current_user)
FROM pg_namespace n WHERE n.nspname = 'coordinator' AND NOT has_schema_privilege(n.oid, 'USAGE')
ORDER BY 1
"""
_FACTS: Final = """
SELECT current_setting('server_version') AS version, pg_is_in_recovery() AS in_recovery,
  (SELECT count(*) FROM pg_stat_replication)::int AS replicas,
  (current_setting('max_connections')::int
   - current_setting('superuser_reserved_connections')::int
   - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'))::int AS free,
  coalesce((SELECT extract(epoch FROM clock_timestamp() - min(xact_start))
            FROM pg_stat_activity WHERE datname = current_database()), 0)::float8 AS oldest,
  ARRAY(SELECT slot_name::text FROM pg_replication_slots WHERE NOT active) AS slots
"""


async def read_facts(pool: Pool, store: str) -> PostgresqlFacts:
    """Ask a server; raises `StoreUnavailable`."""
    async with connected(pool, store) as connection:
        settings = {
            name: str(await connection.fetchval("SELECT current_setting($1)", name))
            for name in _SETTINGS
        }
        facts = await connection.fetchrow(_FACTS)
        missing = [row[0] for row in await connection.fetch(_RIGHTS)]
        before = datetime.now(UTC)
        told = await connection.fetchval("SELECT clock_timestamp()")
        after = datetime.now(UTC)
    error = (after - before) / 2
    return PostgresqlFacts(
        version=facts["version"],
        settings=settings,
        in_recovery=facts["in_recovery"],
        replicas=facts["replicas"],
        connections_left=facts["free"],
        oldest_transaction_seconds=facts["oldest"],
        slots_unused=tuple(facts["slots"]),
        missing_rights=tuple(missing),
        clock_seconds=(told - (before + error)).total_seconds(),
        clock_error_seconds=error.total_seconds(),
    )
