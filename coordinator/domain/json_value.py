"""Values of ``json`` fields: text that keeps what was written, and when two of them are equal.

Owns `JsonText` and its equality (F22): numbers by their value, objects without order. Refuses to
turn numbers into floats on the way: a json field of PostgreSQL holds any number, and gives it back.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from coordinator.domain.json_text import DEPTH_MAX, JsonNumber, compact, is_shallow


class JsonText(str):
    """One JSON value as compact text: members in written order, numbers as they were written.

    What a store gives (jsonb sorts members and drops white space by its own rules) may be
    wrapped as it is; `same_json` does not look at the form.
    """

    __slots__ = ()


def json_text(value: object) -> JsonText:
    """Wrap a parsed value (see `coordinator.domain.json_text.Parsed`)."""
    return JsonText(compact(value).decode())


def same_json(one: str, other: str) -> bool:
    """Whether two JSON texts mean the same: numbers by value, members in any order.

    A text that is nested deeper than a submission may be equals nothing but itself.
    """
    if one == other:
        return True
    if not (is_shallow(one.encode(), DEPTH_MAX) and is_shallow(other.encode(), DEPTH_MAX)):
        return False
    return _same(_BY_VALUE.decode(one), _BY_VALUE.decode(other))


def native(text: str) -> Any:
    """Give dict, list, str, int, float, bool, None for a driver that takes only those.

    Whole numbers within 64 bit are ``int``, all others ``float``: exact for a `JsonText` that was
    read for MongoDB, since what it could not hold has been refused then (F32).
    """
    return _NATIVE.decode(text)


_INTEGER_MIN: Final = -(2**63)
_INTEGER_MAX: Final = 2**63 - 1


def native_integer(text: str) -> int | float:
    """Give a whole number as MongoDB will hold it: int64, else double."""
    if len(text) > 20:
        return float(text)
    value = int(text)
    return value if _INTEGER_MIN <= value <= _INTEGER_MAX else float(text)


_NATIVE: Final = json.JSONDecoder(parse_int=native_integer)

_PARTS: Final = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")
_EXPONENT_DIGITS_MAX: Final = 18


def number_value(text: str) -> tuple[str, int | str] | None:
    """Give (sign and digits, exponent) in lowest terms: equal for equal numbers; 0 is ``None``.

    Decimal would do, but for exponents beyond its range, which a json field may hold. Such a
    monstrous exponent stays text.
    """
    parts = _PARTS.fullmatch(text)
    if parts is None:
        return (text, 0)
    sign, whole, fraction, exponent = parts.groups()
    written = (whole + (fraction or "")).lstrip("0")
    if not written:
        return None
    digits = written.rstrip("0")
    if exponent is not None and len(exponent.lstrip("+-").lstrip("0")) > _EXPONENT_DIGITS_MAX:
        return (sign + written, exponent)
    scale = int(exponent or "0") - len(fraction or "") + len(written) - len(digits)
    return (sign + digits, scale)


_BY_VALUE: Final = json.JSONDecoder(
    parse_int=JsonNumber, parse_float=JsonNumber, parse_constant=JsonNumber
)


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, JsonNumber):
        return one == other or number_value(one.text) == number_value(other.text)
    return bool(one == other)
