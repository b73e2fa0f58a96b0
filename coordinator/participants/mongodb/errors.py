"""Driver errors as ours: whose fault, and whether anything was done.

Owns the list of MongoDB's error codes that mean something to us, and the sentences that people
read: MongoDB's own messages quote row values and addresses, so none of their text is passed on
(F39). What we have no name for is told by its code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from bson.errors import BSONError
from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    DocumentTooLarge,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from coordinator.domain.errors import (
    BatchRefused,
    ErrorCode,
    Problem,
    ResultUnknown,
    StoreBusy,
    StoreError,
    StoreUnavailable,
)
from coordinator.tls_files import handshake_sentence, sentence_in_text

DRIVER_ERRORS: Final = (PyMongoError, BSONError, OverflowError)
"""Everything that a call of the driver may raise; catch these and `translate` them."""

UNKNOWN_COMMIT: Final = "UnknownTransactionCommitResult"

DUPLICATE_KEY: Final = 11000
VALIDATION_FAILED: Final = 121
WRITE_CONFLICT: Final = 112
TIME_EXPIRED: Final = 50
NAMESPACE_EXISTS: Final = 48

_BUSY: Final[Mapping[int, str]] = {
    WRITE_CONFLICT: "somebody else is writing a document of the batch",
    24: "a lock could not be had in time",
    TIME_EXPIRED: "a statement took longer than it may",
    117: "somebody else is changing the collection",
    246: "the server has no snapshot to read from yet",
    239: "the snapshot of the transaction is too old",
    251: "the server has ended the transaction",
    290: "the transaction took longer than the server allows",
    11601: "the server has interrupted the transaction",
    237: "the server has ended a cursor of the transaction",
}
_AWAY: Final[Mapping[int, str]] = {
    18: "the server refuses our name and password",
    8000: "the server refuses our name and password",
    64: "the write concern could not be satisfied in time",
    189: "the server is not the primary any more",
    10107: "the server is not the primary any more",
    13435: "the server is not the primary any more",
    13436: "the server is not the primary any more",
    11602: "the server is not the primary any more",
    10058: "the server is not the primary any more",
    91: "the server is shutting down",
    11600: "the server is shutting down",
    6: "the server cannot reach another one",
    7: "the server cannot reach another one",
    89: "the server cannot reach another one in time",
    9001: "the server cannot reach another one",
    262: "a statement took longer than it may",
}
_TOO_LARGE: Final = frozenset({10334, 17419, 17420, 17280})
_UNAUTHORIZED: Final = 13
_INDEX: Final = re.compile(r"index: (\S+)")


def translate(store: str, error: Exception) -> StoreError:
    """Give our error for what the driver raised before a commit was sent: nothing was done."""
    if isinstance(error, OperationFailure):
        return _of_code(store, error.code or 0, error.details or {}, error)
    if isinstance(error, ServerSelectionTimeoutError):
        reason = sentence_in_text(str(error)) or "no primary could be reached in time"
        return StoreUnavailable(store, reason)
    if isinstance(error, DocumentTooLarge):
        return refused(
            store, ErrorCode.TOO_LARGE, "A document or statement passes MongoDB's 16 MB."
        )
    if isinstance(error, ConnectionFailure):
        return StoreUnavailable(store, handshake_sentence(error) or "the connection was lost")
    if isinstance(error, ConfigurationError):
        return StoreUnavailable(store, "the server or its address does not allow this connection")
    if isinstance(error, BSONError | OverflowError):
        return refused(store, ErrorCode.CONSTRAINT_VIOLATED, "A value cannot be stored as BSON.")
    return StoreUnavailable(store, f"the driver failed with {type(error).__name__}")


def translate_commit(store: str, error: Exception, *, sent_before: bool) -> StoreError:
    """Give our error for a failed commit. ``sent_before``: an earlier try of it was lost (I11).

    Only a server that answered the very first try with a refusal has told that nothing was done.
    """
    if (
        not sent_before
        and isinstance(error, OperationFailure)
        and not isinstance(error, ExecutionTimeout)
        and not error.has_error_label(UNKNOWN_COMMIT)
    ):
        return translate(store, error)
    return ResultUnknown(store, "the answer to a commit was lost")


def is_unknown(error: Exception) -> bool:
    """Whether a commit that failed so may have happened, so that it is sent again."""
    return isinstance(error, ConnectionFailure | ExecutionTimeout) or (
        isinstance(error, PyMongoError) and error.has_error_label(UNKNOWN_COMMIT)
    )


def of_reply(store: str, reply: Mapping[str, Any]) -> StoreError:
    """Give our error for a reply that tells of writes that failed."""
    if reply.get("writeErrors"):
        first = reply["writeErrors"][0]
        return _of_code(store, first.get("code", 0), first, None)
    concern = reply["writeConcernError"]
    return StoreUnavailable(store, f"a write was not confirmed (code {concern.get('code')})")


def refused(store: str, code: ErrorCode, sentence: str) -> BatchRefused:
    """Make the refusal of a batch by its store, without naming a unit."""
    return BatchRefused(store, Problem(code, sentence))


def violation(error: Mapping[str, Any], collection: str) -> tuple[ErrorCode, str] | None:
    """Say which constraint one failed write violates, without the values; ``None`` if none."""
    code = error.get("code")
    if code == DUPLICATE_KEY:
        pattern = error.get("keyPattern")
        if isinstance(pattern, Mapping) and list(pattern) == ["_id"]:
            return ErrorCode.ALREADY_EXISTS, f"collection {collection} has such a key already"
        return (
            ErrorCode.CONSTRAINT_VIOLATED,
            f"it would break the unique index {_index_name(error)} of collection {collection}",
        )
    if code == VALIDATION_FAILED:
        return (
            ErrorCode.CONSTRAINT_VIOLATED,
            f"it does not satisfy the validator of collection {collection}",
        )
    return None


def _index_name(error: Mapping[str, Any]) -> str:
    found = _INDEX.search(str(error.get("errmsg", "")))
    if found is not None:
        return found[1]
    return "on " + ", ".join(error.get("keyPattern") or ("some fields",))


def _of_code(
    store: str, code: int, details: Mapping[str, Any], error: PyMongoError | None
) -> StoreError:
    if code in _BUSY:
        return StoreBusy(store, _BUSY[code])
    if code in _AWAY or isinstance(error, ConnectionFailure):
        return StoreUnavailable(store, _AWAY.get(code, "the connection was lost"))
    if code in _TOO_LARGE:
        return refused(store, ErrorCode.TOO_LARGE, "A document would pass MongoDB's 16 MB.")
    if code == _UNAUTHORIZED:
        return refused(store, ErrorCode.STORE_REFUSED, f"Our user lacks a right at store {store}.")
    if code in (DUPLICATE_KEY, VALIDATION_FAILED):
        what = "unique index" if code == DUPLICATE_KEY else "validator"
        return refused(
            store, ErrorCode.CONSTRAINT_VIOLATED, f"A write would break a {what} of store {store}."
        )
    name = details.get("codeName")
    told = f"{code} {name}" if isinstance(name, str) else str(code)
    return refused(
        store, ErrorCode.STORE_REFUSED, f"Store {store} refused a statement with error {told}."
    )
