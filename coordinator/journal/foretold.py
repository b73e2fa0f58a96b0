"""A pivot in one statement: right if nothing has changed since the rows were read, else undone.

Overview. What the data tables will have been made into is foretold from an unlocked read, outcomes
and events are made from that, and a single statement locks, writes, compares and concludes. It is
a transaction of its own, so a foretelling that does not come true leaves nothing, and the caller
goes the usual way: BEGIN, hold, lock, write, conclude, COMMIT. Never believed, only tried.

A stranger's row is not waited for, an outdated one not written; a unit that was cancelled, is late
or is not ours any more, and a fenced worker, end the statement. I4, I7, I8, I9, I11.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import asyncpg

from coordinator import postgres_pool
from coordinator.domain.errors import CoordinatorError, StoreBusy
from coordinator.domain.publishing import Done
from coordinator.journal.session import mixed_statement

_CHANGED_STATE = "CF003"
_MADE_OTHERWISE_STATE = "CF004"


class Foretold(Protocol):
    """What the data part of a pivot will have done, by ``seq``, and how to do it.

    ``sql`` are common table expressions with ``parameters`` from ``$1``. The last one is named
    ``foretold`` and has a row per written row (``rows`` of them), with whether it ``came_true``.
    """

    @property
    def done(self) -> Mapping[int, tuple[Done, ...]]:
        """What will be announced."""

    @property
    def rows(self) -> int:
        """How many rows are to be written."""

    @property
    def sql(self) -> str:
        """How, by names of the mapping only."""

    @property
    def parameters(self) -> Sequence[Any]:
        """With which values."""


@dataclass(frozen=True, slots=True)
class NoRows:
    """The `Foretold` of a pivot without data tables."""

    done: Mapping[int, tuple[Done, ...]]
    rows: int = 0
    sql: str = "foretold AS (SELECT true AS came_true WHERE false)"
    parameters: Sequence[Any] = ()


class NotAsForetold(CoordinatorError):
    """Nothing was done. ``made_otherwise``: the store made something else of what was written."""

    def __init__(self, *, made_otherwise: bool = False) -> None:
        super().__init__("what was foretold has not come true")
        self.made_otherwise = made_otherwise


@dataclass(frozen=True, slots=True)
class Endings:
    """What becomes of units, column by column; ``causes`` is empty where none has one."""

    seqs: Sequence[int]
    statuses: Sequence[str]
    causes: Sequence[str | None]
    outcomes: Sequence[bytes | None]
    at: datetime
    messages: bytes | None


async def conclude_foretold(
    pool: postgres_pool.Pool, worker: int, foretold: Foretold, endings: Endings
) -> int | None:
    """Write and conclude; give the outbox row, if there is one. Durable on return.

    Raises `NotAsForetold`, or `BatchRefused` by the data tables: nothing was done. Raises
    `ResultUnknown` when the answer was lost (I11).
    """
    parameters = (
        *foretold.parameters,
        worker,
        foretold.rows,
        "{" + ",".join(map(str, endings.seqs)) + "}",
        endings.statuses,
        endings.causes,
        endings.outcomes,
        endings.at,
        endings.messages,
    )
    row: int | None
    try:
        async with mixed_statement(pool) as connection:
            try:
                row = await connection.fetchval(_statement(foretold), *parameters)
            except asyncpg.PostgresError as error:
                if error.sqlstate in (_CHANGED_STATE, _MADE_OTHERWISE_STATE):
                    otherwise = error.sqlstate == _MADE_OTHERWISE_STATE
                    raise NotAsForetold(made_otherwise=otherwise) from error
                raise
    except StoreBusy as busy:
        if busy.slow:
            raise
        raise NotAsForetold from busy
    return row


def _statement(foretold: Foretold) -> str:
    first = len(foretold.parameters) + 1
    worker, rows, seqs, *rest = (f"${at}" for at in range(first, first + 8))
    arguments = (worker, rows, "c.found", "c.fulfilled", f"{seqs}::text::bigint[]", *rest)
    conclude = f"coordinator.conclude_foretold({', '.join(arguments)})"
    counted = (
        "SELECT count(*) AS found, count(*) FILTER (WHERE came_true) AS fulfilled FROM foretold"
    )
    return f"WITH {foretold.sql} SELECT {conclude} FROM ({counted}) AS c"
