"""Which JSON values a json field of either store can hold exactly (F32).

PostgreSQL takes any number that a numeric takes, and no NUL. MongoDB stores int64 and doubles, any
text, and no member names that its language gives a meaning. Refuses by the first thing found.
"""

from __future__ import annotations

from typing import Any, Final

from coordinator.domain.entity import StoreKind
from coordinator.domain.json_text import JsonNumber
from coordinator.domain.json_value import number_value
from coordinator.domain.storable import INT64_MAX, INT64_MIN, Misfit

_NUMBERS_BYTES_MAX: Final = 1_048_576
_NUMERIC_WHOLE_DIGITS: Final = 131_072
_NUMERIC_SCALE: Final = 16_383


def fit_json(value: Any, kind: StoreKind) -> None:
    """Raise `Misfit` if a json field of such a store cannot hold the parsed value."""
    if kind is StoreKind.MONGODB:
        _fit_mongodb(value)
    else:
        _fit_postgresql(value)


def _fit_mongodb(value: Any) -> None:
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            for name in each:
                if name.startswith("$") or "." in name or "\0" in name:
                    raise Misfit(
                        "has a member name that MongoDB cannot store: "
                        "it starts with $ or holds a point or a NUL"
                    )
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)
        elif type(each) is int:
            if not INT64_MIN <= each <= INT64_MAX:
                _fit_double(str(each))
        elif isinstance(each, JsonNumber):
            _fit_number(each.text)


def _fit_number(text: str) -> None:
    if text.lstrip("-").isdigit() and len(text) <= 20 and INT64_MIN <= int(text) <= INT64_MAX:
        return
    _fit_double(text)


def _fit_double(text: str) -> None:
    if number_value(repr(float(text))) != number_value(text):
        raise Misfit("holds a number that is neither an int64 nor a double as MongoDB stores them")


def _fit_postgresql(value: Any) -> None:
    waiting = [value]
    numbers_bytes = 0
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            _refuse_nul(each)
        elif isinstance(each, dict):
            for name in each:
                _refuse_nul(name)
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)
        elif isinstance(each, JsonNumber):
            numbers_bytes += _numeric_bytes(each.text)
            if numbers_bytes > _NUMBERS_BYTES_MAX:
                raise Misfit("holds numbers that would take more than a megabyte written out")


def _refuse_nul(text: str) -> None:
    if "\0" in text:
        raise Misfit("holds a NUL character, which PostgreSQL cannot store")


def _numeric_bytes(text: str) -> int:
    """Give the length of the number as jsonb writes it, without an exponent (I12)."""
    number = number_value(text)
    if number is None:
        return len(text)
    digits, scale = number
    if not isinstance(scale, int):
        raise Misfit("holds a number beyond the range of a PostgreSQL numeric")
    if len(digits) + scale > _NUMERIC_WHOLE_DIGITS or -scale > _NUMERIC_SCALE:
        raise Misfit("holds a number beyond the range of a PostgreSQL numeric")
    return max(len(text), len(digits) + abs(scale))
