"""Collecting what is wrong with a submission: all of it at once, in written order (F10).

Owns the bounds of what a refusal repeats of a stranger's input (I12): how many problems, and how
much of a name, a path or a key. Refuses to repeat values.
"""

from __future__ import annotations

from typing import Any, Final

from coordinator.domain.entity import FieldType
from coordinator.domain.errors import ErrorCode, Problem
from coordinator.domain.json_text import JsonNumber
from coordinator.domain.values import wire

PROBLEMS_MAX: Final = 200
ECHOED_MAX: Final = 200


def clipped(text: str) -> str:
    """Cut a stranger's text to what a message may repeat."""
    return text if len(text) <= ECHOED_MAX else text[: ECHOED_MAX - 1] + "…"


def shown_key(given: Any) -> Any:
    """Give a key as a refusal may show it: scalars, cut to size; anything else as null."""
    if isinstance(given, JsonNumber):
        return clipped(given.text)
    if isinstance(given, str):
        return clipped(given)
    if isinstance(given, bool | float):
        return given
    return wire(FieldType.INTEGER, given) if isinstance(given, int) else None


class Findings:
    """The problems of one submission, by the operation that they are about."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: list[tuple[int, Problem]] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, path: str | None, message: str, code: ErrorCode = ErrorCode.INVALID) -> None:
        """Add a problem of the submission as a whole."""
        self._keep(-1, Problem(code, message, None if path is None else clipped(path)))

    def add_to(
        self,
        index: int,
        path: str,
        message: str,
        *,
        code: ErrorCode = ErrorCode.INVALID,
        entity: str | None = None,
        key: Any = None,
    ) -> None:
        """Add a problem of operation ``index``; ``path`` is below it, ``key`` as submitted."""
        below = f"operations.{index}.{path}" if path else f"operations.{index}"
        name = None if entity is None else clipped(entity)
        self._keep(index, Problem(code, message, clipped(below), index, name, shown_key(key)))

    def problems(self) -> tuple[Problem, ...]:
        """Give all problems in the written order of their operations."""
        return tuple(problem for _, problem in sorted(self._found, key=lambda each: each[0]))

    def _keep(self, index: int, problem: Problem) -> None:
        if len(self._found) < PROBLEMS_MAX:
            self._found.append((index, problem))
