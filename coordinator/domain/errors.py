"""The error tree and the closed list of codes that users see.

::

    CoordinatorError
    ├── ConfigurationInvalid     the operator's: exit code 2, every mistake at once
    ├── InvariantViolated        ours: a bug; the daemon stops before it writes more
    ├── Fenced                   this worker has lost its units for good; it changes nothing more
    └── StoreError               a server's, always naming the store
        ├── StoreUnavailable     transient: nothing was done, try again later
        ├── ResultUnknown        neither done nor undone as far as we know (I11): settle by a write
        ├── StoreBusy            transient: an outsider holds a row or document of the batch
        └── BatchRefused         permanent: the store refused a write of the batch; nothing was done

Driver errors are translated at an adapter's edge with ``raise ... from``; nothing above an
adapter catches a driver's class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import orjson


class ErrorCode(StrEnum):
    """Why a unit did not commit: the closed list of DESIGN 2.2 and F10."""

    MALFORMED = "malformed"
    INVALID = "invalid"
    UNKNOWN_ENTITY = "unknown_entity"
    FORBIDDEN = "forbidden"
    TOO_LARGE = "too_large"
    ID_REUSED = "id_reused"
    ALREADY_EXISTS = "already_exists"
    NOT_FOUND = "not_found"
    EXPECTATION_FAILED = "expectation_failed"
    OUT_OF_BOUNDS = "out_of_bounds"
    CONSTRAINT_VIOLATED = "constraint_violated"
    TYPE_MISMATCH = "type_mismatch"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    CANCELLED = "cancelled"
    FOREIGN_WRITE = "foreign_write"
    UNDO_FAILED = "undo_failed"
    STORE_REFUSED = "store_refused"


RETRYABLE_CODES = frozenset(
    {
        ErrorCode.EXPECTATION_FAILED,
        ErrorCode.DEADLINE_EXCEEDED,
        ErrorCode.CANCELLED,
        ErrorCode.STORE_REFUSED,
        ErrorCode.NOT_FOUND,
        ErrorCode.ALREADY_EXISTS,
        ErrorCode.OUT_OF_BOUNDS,
    }
)
"""The same content under a *new* id may succeed later (F10)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason why a unit is refused, in the words that its sender will read.

    ``path`` points into the submission (``operations.1.expect.balance``); ``operation`` is the
    submitted index; ``key`` is JSON-ready. ``message`` is a sentence a stranger understands and
    never holds a secret. ``also`` are further mistakes of the unit, found together with this one.
    """

    code: ErrorCode
    message: str
    path: str | None = None
    operation: int | None = None
    entity: str | None = None
    key: Any = None
    also: tuple[Problem, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Give the shape of ``error`` in an outcome, without its ``details``."""
        return {
            "code": self.code.value,
            "message": self.message,
            "path": self.path,
            "operation": self.operation,
            "entity": self.entity,
            "key": self.key,
            "retryable": self.code in RETRYABLE_CODES,
        }

    def as_record(self) -> dict[str, Any]:
        """Give the shape that the journal keeps, with ``also``."""
        return {**self.as_json(), "also": [each.as_json() for each in self.also]}

    @classmethod
    def from_json(cls, shape: Mapping[str, Any]) -> Problem:
        """Read back what `as_record` or `as_json` gave."""
        return cls(
            code=ErrorCode(shape["code"]),
            message=shape["message"],
            path=shape.get("path"),
            operation=shape.get("operation"),
            entity=shape.get("entity"),
            key=shape.get("key"),
            also=tuple(cls.from_json(each) for each in shape.get("also", ())),
        )


PROBLEMS_MAX: Final = 200
PROBLEMS_BYTES_MAX: Final = 65_536
ECHOED_MAX: Final = 200


def clipped(text: str) -> str:
    """Cut a stranger's text to what a message may repeat (I12)."""
    return text if len(text) <= ECHOED_MAX else text[: ECHOED_MAX - 1] + "…"


def listed(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Give the problems that a refusal lists: the first, and as many more as fit (I12).

    A few bytes can be wrong in many ways, and each problem repeats the entity and the key: without
    a bound a small submission would make an outcome that is a hundred times its size.
    """
    kept: list[Problem] = []
    left_bytes = PROBLEMS_BYTES_MAX
    for problem in problems:
        if kept:
            left_bytes -= len(orjson.dumps(problem.as_json()))
        if len(kept) >= PROBLEMS_MAX or left_bytes < 0:
            break
        kept.append(problem)
    return tuple(kept)


def together(problems: Sequence[Problem]) -> Problem:
    """Make one problem of several: the first in the written order, the others beside it (F10)."""
    flat = [each for problem in problems for each in (replace(problem, also=()), *problem.also)]
    if len(flat) == 1:
        return flat[0]
    flat.sort(key=lambda each: -1 if each.operation is None else each.operation)
    first, *others = listed(flat)
    return replace(first, also=tuple(others))


def error_as_json(problems: Sequence[Problem]) -> dict[str, Any]:
    """Give an outcome's ``error``: the first mistake, and all of them in ``details`` (F10)."""
    return {
        **problems[0].as_json(),
        "details": [each.as_json() for problem in problems for each in (problem, *problem.also)],
    }


class CoordinatorError(Exception):
    """The root of everything that we raise on purpose."""


class ConfigurationInvalid(CoordinatorError):
    """The configuration or the mapping is wrong; ``mistakes`` lists it all, each with its place."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = tuple(mistakes)


class InvariantViolated(CoordinatorError):
    """A promise of ours is broken: a bug, never an input."""


class Fenced(CoordinatorError):
    """This worker has been fenced: another one owns its units now (I9)."""


class StoreError(CoordinatorError):
    """Something about one store; ``store`` is its name in the configuration (or ``journal``)."""

    def __init__(self, store: str, message: str) -> None:
        super().__init__(f"{store}: {message}")
        self.store = store
        self.message = message


class StoreUnavailable(StoreError):
    """The store could not be reached or asked us to come back; nothing was done."""


class ResultUnknown(StoreError):
    """The reply to a commit was lost: it may be done or not, and may still happen (I11)."""


class StoreBusy(StoreError):
    """An outsider holds something that the batch needs; nothing was done.

    ``units`` names the units concerned by ``seq`` where the store tells, else it is empty.
    ``slow``: a statement took longer than it may; whoever it was should be tried alone.
    """

    def __init__(
        self,
        store: str,
        message: str,
        units: frozenset[int] = frozenset(),
        *,
        slow: bool = False,
    ) -> None:
        super().__init__(store, message)
        self.units = units
        self.slow = slow


class BatchRefused(StoreError):
    """The store refused a write of the batch (a constraint, a right, a type); nothing was done.

    ``refusals`` maps ``seq`` to the problem where the store tells which unit it was; it is
    empty when it does not, and then ``problem`` says what was refused.
    """

    def __init__(
        self, store: str, problem: Problem, refusals: Mapping[int, Problem] | None = None
    ) -> None:
        super().__init__(store, problem.message)
        self.problem = problem
        self.refusals: Mapping[int, Problem] = refusals or {}
