"""What a driver's error means: try again, never, or nobody knows (I11).

A store that is away must not refuse a unit, and one that refuses must not be asked for ever.
"""

from __future__ import annotations

import asyncpg
import pytest
from pymongo.errors import (
    AutoReconnect,
    ExecutionTimeout,
    NetworkTimeout,
    OperationFailure,
    ServerSelectionTimeoutError,
)

from coordinator import postgres_pool
from coordinator.domain.errors import (
    BatchRefused,
    ResultUnknown,
    StoreBusy,
    StoreError,
    StoreUnavailable,
)
from coordinator.participants.mongodb import errors as mongodb

POSTGRESQL: dict[type[StoreError], tuple[str, ...]] = {
    StoreUnavailable: (
        "08006",  # the connection broke
        "25006",  # a standby
        "25P03",  # it idled in a transaction
        "28P01",  # the password is wrong
        "3D000",  # no such database
        "53300",  # too many connections
        "57P01",  # an administrator ends the session
        "57P03",  # it is starting
        "58030",  # its disk fails
        "XX000",  # it is broken
    ),
    StoreBusy: ("55P03", "40P01", "40001", "57014"),
    BatchRefused: ("23505", "23514", "22003", "22P02", "44000", "P0001", "42501", "42P01", "0A000"),
}

MONGODB: dict[type[StoreError], tuple[int, ...]] = {
    StoreUnavailable: (6, 7, 89, 91, 189, 10107, 11600, 13435),
    StoreBusy: (112, 251),
    BatchRefused: (13, 121, 11000),
}


def told(state: str) -> Exception:
    """An error with a state of our choice."""
    error: Exception = asyncpg.PostgresError("told")
    error.sqlstate = state  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("state", "kind"), [(state, kind) for kind, states in POSTGRESQL.items() for state in states]
)
def test_postgresql(state: str, kind: type[StoreError]) -> None:
    assert type(postgres_pool.translate("ledger", told(state))) is kind


@pytest.mark.parametrize("error", [OSError(), TimeoutError(), asyncpg.InterfaceError("closed")])
def test_a_postgresql_that_says_nothing_is_away(error: Exception) -> None:
    assert type(postgres_pool.translate("ledger", error)) is StoreUnavailable


@pytest.mark.parametrize(
    ("code", "kind"), [(code, kind) for kind, codes in MONGODB.items() for code in codes]
)
def test_mongodb(code: int, kind: type[StoreError]) -> None:
    assert type(mongodb.translate("catalog", OperationFailure("told", code))) is kind


@pytest.mark.parametrize(
    "error", [AutoReconnect(), NetworkTimeout(), ServerSelectionTimeoutError()]
)
def test_a_mongodb_that_says_nothing_is_away(error: Exception) -> None:
    assert type(mongodb.translate("catalog", error)) is StoreUnavailable


@pytest.mark.parametrize("error", [AutoReconnect(), ExecutionTimeout("late", 50)])
def test_a_commit_without_an_answer_is_neither(error: Exception) -> None:
    failure = mongodb.translate_commit("catalog", error, sent_before=False)
    assert type(failure) is ResultUnknown


def test_nor_is_one_that_was_sent_before() -> None:
    refusal = OperationFailure("no such transaction", 251)
    assert type(mongodb.translate_commit("catalog", refusal, sent_before=True)) is ResultUnknown
    assert type(mongodb.translate_commit("catalog", refusal, sent_before=False)) is StoreBusy
