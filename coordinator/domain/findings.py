"""Collecting what is wrong with a submission: all of it at once, in written order (F10).

Owns how much of it is looked for (I12): an operation that has as many mistakes as a refusal can
list is read no further. How much a refusal lists and repeats is in `coordinator.domain.errors`.
Refuses to repeat values.
"""

from __future__ import annotations

from typing import Any, Final

from coordinator.domain.entity import FieldType
from coordinator.domain.errors import PROBLEMS_MAX, ErrorCode, Problem, clipped, listed
from coordinator.domain.json_text import JsonNumber
from coordinator.domain.values import wire

_WHOLE: Final = -1
"""Stands for the submission as a whole, which comes before its operations."""


class EnoughFound(Exception):
    """So much is wrong with one operation that the rest of it need not be read."""


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
        self._found: dict[int, list[Problem]] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, path: str | None, message: str, code: ErrorCode = ErrorCode.INVALID) -> None:
        """Add a problem of the submission as a whole; what no refusal lists is dropped."""
        found = self._found.setdefault(_WHOLE, [])
        if len(found) < PROBLEMS_MAX:
            found.append(Problem(code, message, None if path is None else clipped(path)))

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
        """Add a problem of operation ``index``; ``path`` is below it, ``key`` as submitted.

        Raises `EnoughFound` instead if a refusal could list no more of this operation.
        """
        found = self._found.setdefault(index, [])
        if len(found) >= PROBLEMS_MAX:
            raise EnoughFound
        below = f"operations.{index}.{path}" if path else f"operations.{index}"
        name = None if entity is None else clipped(entity)
        found.append(Problem(code, message, clipped(below), index, name, shown_key(key)))

    def problems(self) -> tuple[Problem, ...]:
        """Give what a refusal lists, in the written order of the operations."""
        return listed(each for index in sorted(self._found) for each in self._found[index])
