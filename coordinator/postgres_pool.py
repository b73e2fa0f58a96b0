"""Connections to PostgreSQL: the settings of every session, transactions, and what errors mean.

Shared by the journal and by the participants, which share nothing else. Owns: session settings
(so that texts of values mean the same in every session), the pool, BEGIN and COMMIT, and the
translation of asyncpg's and the system's errors into `coordinator.domain.errors`. Refuses: SQL
about anybody's tables, and putting PostgreSQL's own messages into ours, because they may hold row
values (F39 and DESIGN 2.7).

How an error is read, by SQLSTATE:

====================================== ==========================================================
23, 22, 44, 54, P0 (data)              `BatchRefused`: nothing was done, a retry is refused again
42, 0A and the rest (rights, schema)   `BatchRefused` with ``store_refused``
55P03, 40P01, 40001 (waiting), 57014   `StoreBusy`: nothing was done
08, 25006, 25P03, 28, 3D, 53, 57, 58,  `StoreUnavailable`: the session is thrown away; at COMMIT
XX, sockets, time-outs                 `ResultUnknown` instead (I11)
====================================== ==========================================================
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

import asyncpg

from coordinator.domain.errors import (
    BatchRefused,
    CoordinatorError,
    ErrorCode,
    Problem,
    ResultUnknown,
    StoreBusy,
    StoreError,
    StoreUnavailable,
)
from coordinator.tls_files import handshake_sentence

Connection: TypeAlias = asyncpg.Connection
Pool: TypeAlias = asyncpg.Pool

DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""Everything that a call of the driver may raise; catch these and `translate` them."""

_BUSY_STATES = frozenset({"55P03", "40P01", "40001"})
_SLOW_STATE = "57014"
_AWAY_STATES = frozenset({"25006", "25P03", "25P04"})
_AWAY_CLASSES = frozenset({"08", "28", "3D", "53", "57", "58", "XX"})
_DATA_CLASSES = frozenset({"22", "23", "44", "54", "P0"})
_FORMAT_STATES = frozenset({"22P02", "22P03", "22007", "22021", "22032"})

_CONSTRAINTS = {
    "23502": "a column that may not be null",
    "23503": "a foreign key",
    "23505": "a unique constraint",
    "23514": "a check constraint",
    "23P01": "an exclusion constraint",
    "44000": "a check option",
    "P0001": "a trigger",
}

_FIXED_SETTINGS = {
    "synchronous_commit": "on",
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "default_transaction_isolation": "read committed",
    "standard_conforming_strings": "on",
    "jit": "off",
}
"""The first is rule 10; the texts of values depend on the others, so no role's default may act."""

RELEASE_TIMEOUT_SECONDS = 5.0


async def open_pool(
    dsn: str,
    application_name: str,
    *,
    min_size: int = 0,
    max_size: int = 10,
    command_timeout_seconds: float = 10.0,
    connect_timeout_seconds: float = 5.0,
    statement_timeout_seconds: float = 8.0,
    lock_timeout_seconds: float = 1.0,
    idle_in_transaction_timeout_seconds: float = 10.0,
    tcp_user_timeout_seconds: float = 10.0,
) -> Pool:
    """Open a pool whose sessions all have our settings.

    With ``min_size`` 0 nothing connects yet, so the server may be away. Otherwise raises
    `StoreUnavailable` when that many connections cannot be had.
    """
    settings = {
        **_FIXED_SETTINGS,
        "application_name": application_name,
        "statement_timeout": _milliseconds(statement_timeout_seconds),
        "lock_timeout": _milliseconds(lock_timeout_seconds),
        "idle_in_transaction_session_timeout": _milliseconds(idle_in_transaction_timeout_seconds),
        "tcp_user_timeout": _milliseconds(tcp_user_timeout_seconds),
    }
    try:
        return await asyncpg.create_pool(
            dsn,
            min_size=min_size,
            max_size=max_size,
            # Without it a black-holed network hangs the release of a connection.
            command_timeout=command_timeout_seconds,
            timeout=connect_timeout_seconds,
            max_inactive_connection_lifetime=300.0,
            statement_cache_size=200,
            max_cached_statement_lifetime=0,
            reset=_keep_session,
            server_settings=settings,
        )
    except DRIVER_ERRORS as error:
        raise translate(application_name, error) from error


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))


async def _keep_session(connection: Connection) -> None:
    """Spare the round trip of RESET ALL: nothing of ours sets a session variable or lock."""


@asynccontextmanager
async def connected(
    pool: Pool, store: str, *, acquire_timeout_seconds: float = 5.0
) -> AsyncIterator[Connection]:
    """Lend a connection for reading, and translate what the driver raises inside.

    Raises `StoreUnavailable` (the connection has been thrown away), `StoreBusy`, `BatchRefused`.
    """
    try:
        connection = await pool.acquire(timeout=acquire_timeout_seconds)
    except DRIVER_ERRORS as error:
        # A time-out may only mean that all connections are at work.
        if not isinstance(error, TimeoutError):
            await pool.expire_connections()
        raise StoreUnavailable(store, _sentence_away(error)) from error
    try:
        yield connection
    except DRIVER_ERRORS as error:
        failure = translate(store, error)
        if isinstance(failure, StoreUnavailable):
            cut(connection)
            await pool.expire_connections()
        raise failure from error
    except StoreUnavailable:
        cut(connection)
        raise
    except BaseException as error:
        if not isinstance(error, CoordinatorError):
            cut(connection)
        raise
    finally:
        # A session that fails here is closed by the pool; it says nothing about what was done.
        with suppress(*DRIVER_ERRORS):
            await pool.release(connection, timeout=RELEASE_TIMEOUT_SECONDS)


@asynccontextmanager
async def transaction(
    pool: Pool, store: str, *, acquire_timeout_seconds: float = 5.0
) -> AsyncIterator[Connection]:
    """Run the body in one READ COMMITTED transaction of a connection of its own.

    Durable when it ends without an error. Raises what the body raises, driver errors
    translated: then nothing was done. Raises `ResultUnknown` when the answer to COMMIT was
    lost: then the connection is gone, and it may be done or still happen (I11).
    """
    async with connected(
        pool, store, acquire_timeout_seconds=acquire_timeout_seconds
    ) as connection:
        await connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
        try:
            yield connection
        except CoordinatorError:
            await roll_back(connection)
            raise
        except DRIVER_ERRORS as error:
            failure = translate(store, error)
            if isinstance(failure, StoreUnavailable):
                cut(connection)
                await pool.expire_connections()
            else:
                await roll_back(connection)
            raise failure from error
        await commit(connection, store)


async def commit(connection: Connection, store: str) -> None:
    """Commit; raise `ResultUnknown` (connection terminated) when the answer was lost (I11).

    A deferred constraint's refusal is told as `BatchRefused`, a serialization failure as
    `StoreBusy`: then the transaction was rolled back by the server.
    """
    try:
        status = await connection.execute("COMMIT")
    except DRIVER_ERRORS as error:
        failure = translate(store, error)
        if isinstance(failure, StoreUnavailable):
            cut(connection)
            raise ResultUnknown(store, "the answer to a commit was lost") from error
        raise failure from error
    if status != "COMMIT":
        # The server answers ROLLBACK to the COMMIT of a transaction that has failed before.
        raise StoreUnavailable(store, "the transaction had already failed and was rolled back")


def cut(connection: Connection) -> None:
    """Throw a connection away, without a word to the server; harmless if it is gone already."""
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


async def roll_back(connection: Connection) -> None:
    """Roll back; a connection that cannot even do that is thrown away."""
    try:
        await connection.execute("ROLLBACK")
    except DRIVER_ERRORS:
        cut(connection)


async def close_pool(pool: Pool, *, grace_seconds: float = 5.0) -> None:
    """Let the connections go; after the grace time they are cut."""
    try:
        async with asyncio.timeout(grace_seconds):
            await pool.close()
    except DRIVER_ERRORS:
        pool.terminate()


# --- what errors mean ---------------------------------------------------------------------------


def translate(store: str, error: BaseException) -> StoreError:
    """Say what a driver's error means for a transaction that had not begun to commit.

    Every result but `ResultUnknown`, which only `commit` can know. Raise it ``from error``.
    """
    state = sqlstate(error)
    if isinstance(error, ValueError) and not isinstance(error, asyncpg.ClientConfigurationError):
        state = "22P02"  # the driver's own: it cannot even write the value for sending
    if state == _SLOW_STATE:
        return StoreBusy(store, "the statement took longer than it may", slow=True)
    if state is None or state in _AWAY_STATES or state[:2] in _AWAY_CLASSES:
        return StoreUnavailable(store, _sentence_away(error))
    if state in _BUSY_STATES:
        return StoreBusy(store, "somebody else holds what the statement needs")
    return BatchRefused(store, Problem(refusal_code(state), refusal_sentence(error)))


def translated(store: str, error: BaseException) -> StoreError:
    """Give an error of ours as it is, and the meaning of a driver's."""
    return error if isinstance(error, StoreError) else translate(store, error)


def sqlstate(error: BaseException) -> str | None:
    """Give the server's SQLSTATE; ``None`` for errors of the client and of the network."""
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None


def refusal_code(state: str) -> ErrorCode:
    """Give the code that users see for a refused write (F23, F33)."""
    if state == "22003":
        return ErrorCode.OUT_OF_BOUNDS
    if state in _FORMAT_STATES:
        return ErrorCode.TYPE_MISMATCH
    if state[:2] in _DATA_CLASSES:
        return ErrorCode.CONSTRAINT_VIOLATED
    return ErrorCode.STORE_REFUSED


def refusal_sentence(error: BaseException) -> str:
    """Say what was violated in words of our own: names of the schema, never row values."""
    state = sqlstate(error) or "?"
    what = _CONSTRAINTS.get(state)
    place = _place(error)
    if what is not None:
        return f"The store refused the write: {what}{place} is violated (SQLSTATE {state})."
    if state == "42501":
        return f"The store refused the write: we lack a right{place} (SQLSTATE {state})."
    return f"The store refused the write{place} (SQLSTATE {state})."


def _place(error: BaseException) -> str:
    parts = []
    if constraint := getattr(error, "constraint_name", None):
        parts.append(f" {constraint}")
    elif column := getattr(error, "column_name", None):
        parts.append(f" {column}")
    if table := getattr(error, "table_name", None):
        schema = getattr(error, "schema_name", None)
        parts.append(f" of table {schema}.{table}" if schema else f" of table {table}")
    return "".join(parts)


def _sentence_away(error: BaseException) -> str:
    state = sqlstate(error)
    if state is not None and state.startswith("28"):
        return f"the server refuses our name, our password or our certificate (SQLSTATE {state})"
    if state is not None:
        return f"the server cannot be used now (SQLSTATE {state})"
    if (handshake := handshake_sentence(error)) is not None:
        return handshake
    if isinstance(error, TimeoutError):
        return "the server did not answer in time"
    if isinstance(error, ConnectionError) and "rejected SSL upgrade" in str(error):
        return "the server does not speak TLS there"
    if isinstance(error, asyncpg.ClientConfigurationError | FileNotFoundError | PermissionError):
        return f"the DSN or a file that it names cannot be used ({type(error).__name__})"
    return f"the server cannot be reached ({type(error).__name__})"
