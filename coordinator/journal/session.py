"""How the journal talks to its database: one statement or one transaction at a time.

Our own statements cannot be refused for a user's data, so a refusal of one is a bug or a schema
that somebody has changed: it stops the daemon rather than a unit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg

from coordinator import postgres_pool
from coordinator.domain.errors import (
    BatchRefused,
    Fenced,
    InvariantViolated,
    ResultUnknown,
    StoreBusy,
    StoreUnavailable,
)
from coordinator.engine.ports import JOURNAL

FENCED_STATE = "CF001"
"""What ``coordinator.hold_fence`` raises."""

LATE_STATE = "CF002"
"""What ``coordinator.admit`` raises for an earlier epoch: nothing was done."""


@asynccontextmanager
async def reading(pool: postgres_pool.Pool) -> AsyncIterator[postgres_pool.Connection]:
    """Lend a connection for statements that change nothing."""
    with own_statement():
        async with postgres_pool.connected(pool, JOURNAL) as connection:
            with fence_told():
                yield connection


@asynccontextmanager
async def single_statement(pool: postgres_pool.Pool) -> AsyncIterator[postgres_pool.Connection]:
    """Lend a connection for one statement of ours that commits by itself.

    Raises `ResultUnknown` when its answer was lost (I11).
    """
    with own_statement():
        async with mixed_statement(pool) as connection:
            yield connection


@asynccontextmanager
async def mixed_statement(pool: postgres_pool.Pool) -> AsyncIterator[postgres_pool.Connection]:
    """Lend a connection for one statement that commits by itself, and touches users' data as well.

    Raises `ResultUnknown` when its answer was lost (I11), and `BatchRefused` for the data.
    """
    sent = False
    try:
        async with postgres_pool.connected(pool, JOURNAL) as connection:
            sent = True
            with fence_told():
                yield connection
    except StoreUnavailable as error:
        if sent:
            raise ResultUnknown(JOURNAL, error.message) from error
        raise


@contextmanager
def own_statement() -> Iterator[None]:
    """Turn a refusal of our own statement into `InvariantViolated`."""
    try:
        yield
    except BatchRefused as error:
        raise InvariantViolated(
            f"the journal refused a statement of ours: {error.message}"
        ) from error


@contextmanager
def fence_told() -> Iterator[None]:
    """Turn the journal's word that this worker is fenced into `Fenced`."""
    try:
        yield
    except asyncpg.PostgresError as error:
        if error.sqlstate == FENCED_STATE:
            raise Fenced("another worker has taken over this one's units") from error
        if error.sqlstate == LATE_STATE:
            raise StoreBusy(JOURNAL, "an admission came after its time") from error
        raise
