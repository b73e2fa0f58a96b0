"""What MongoDB's errors mean. Driver classes of errors end here.

================================================= ==============================================
write conflict, lock time-out, transaction gone   `StoreBusy`: nothing was done, try again
duplicate key, validator, too large, no right     `BatchRefused`, naming the unit where told
network, no primary, time-out                     `StoreUnavailable`; at commit `ResultUnknown`
================================================= ==============================================

Messages are our own: the server's may hold row values.
"""

from __future__ import annotations

from collections.abc import Sequence

from pymongo.errors import BulkWriteError, InvalidDocument, OperationFailure, PyMongoError

from coordinator.domain.decide import key_as_json
from coordinator.domain.errors import (
    BatchRefused,
    ErrorCode,
    Problem,
    StoreBusy,
    StoreError,
    StoreUnavailable,
)
from coordinator.domain.operation import Operation

DRIVER_ERRORS = (PyMongoError, InvalidDocument, OSError, TimeoutError)

_BUSY_CODES = frozenset({24, 112, 225, 244, 246, 251, 290})
_RIGHTS_CODES = frozenset({13, 18, 8000})
_TOO_LARGE_CODES = frozenset({10334, 17419, 17420, 17280})
_DUPLICATE_CODE = 11000
_VALIDATOR_CODE = 121

Origins = Sequence[tuple[int, Operation | None]]
"""For each write of a bulk: the unit's ``seq`` and the operation it comes from."""


def translate(store: str, error: BaseException, origins: Origins = ()) -> StoreError:
    """Say what a driver's error means before a commit was sent."""
    if isinstance(error, BulkWriteError):
        faults = error.details.get("writeErrors") or [{}]
        return _refused(store, faults[0], origins)
    if isinstance(error, OperationFailure):
        code = error.code or 0
        transient = error.has_error_label("TransientTransactionError")
        if code in _BUSY_CODES:
            return StoreBusy(store, "somebody else is writing what the transaction needs")
        if transient or error.timeout:
            return StoreUnavailable(store, f"the server cannot be used now (code {code})")
        if code in _RIGHTS_CODES:
            return _rights(store)
        return _refused(store, {"code": code}, ())
    if isinstance(error, InvalidDocument):
        problem = Problem(ErrorCode.TOO_LARGE, "A document would be larger than MongoDB takes.")
        return BatchRefused(store, problem)
    return StoreUnavailable(store, f"the server cannot be reached ({type(error).__name__})")


def _rights(store: str) -> StoreError:
    problem = Problem(ErrorCode.STORE_REFUSED, "The store refused the write: we lack a right.")
    return BatchRefused(store, problem)


def _refused(store: str, fault: dict[str, object], origins: Origins) -> StoreError:
    code = fault.get("code")
    index = fault.get("index")
    seq, operation = None, None
    if isinstance(index, int) and index < len(origins):
        seq, operation = origins[index]
    if code in _BUSY_CODES:
        units = frozenset() if seq is None else frozenset({seq})
        return StoreBusy(store, "somebody else is writing what the transaction needs", units)
    pattern = fault.get("keyPattern")
    fields = ", ".join(pattern) if isinstance(pattern, dict) else "?"
    if code == _DUPLICATE_CODE and fields == "_id":
        # A stranger made the document since we read: read again, and decide on what is there.
        units = frozenset() if seq is None else frozenset({seq})
        return StoreBusy(store, "somebody else has just made that document", units)
    if code == _DUPLICATE_CODE:
        what = f"a unique index on {fields} is violated"
        error_code = ErrorCode.CONSTRAINT_VIOLATED
    elif code == _VALIDATOR_CODE:
        what, error_code = "the collection's validator is violated", ErrorCode.CONSTRAINT_VIOLATED
    elif code in _TOO_LARGE_CODES:
        what, error_code = "the document would be too large", ErrorCode.TOO_LARGE
    elif code in _RIGHTS_CODES:
        what, error_code = "we lack a right", ErrorCode.STORE_REFUSED
    else:
        what, error_code = f"code {code}", ErrorCode.STORE_REFUSED
    message = f"The store refused the write: {what}."
    if operation is None or seq is None:
        return BatchRefused(store, Problem(error_code, message))
    problem = Problem(
        error_code,
        message,
        f"operations.{operation.index}",
        operation.index,
        operation.entity,
        key_as_json(operation),
    )
    return BatchRefused(store, problem, {seq: problem})
