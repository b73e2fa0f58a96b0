"""Domain values: how they are shown, compared and drawn.

Owns the column "Out" of the table "Values", the text of a key (the lock's and the event's key),
and the two-valued comparisons of ``expect`` (F22). Reading is in `value_reading`, what a store
can hold in `storable`; what callers need of both is named here. Refuses to look at a store.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from math import isfinite, isnan
from typing import Any, Final, Protocol
from uuid import UUID

import orjson

from coordinator.domain.entity import Field, FieldType, StoreKind
from coordinator.domain.json_value import JsonText, json_text, native, same_json
from coordinator.domain.operation import Comparison
from coordinator.domain.storable import MONGODB_LIMITS, Misfit, check_storable
from coordinator.domain.value_reading import (
    Reader,
    delta_reader,
    operand_reader,
    value_reader,
)

__all__ = [
    "MONGODB_LIMITS",
    "Alien",
    "Draw",
    "JsonText",
    "Misfit",
    "Reader",
    "check_storable",
    "compare",
    "default_value",
    "delta_reader",
    "json_text",
    "key_text",
    "native",
    "operand_reader",
    "read_operand",
    "read_value",
    "same_json",
    "value_reader",
    "wire",
]


@dataclass(frozen=True, slots=True)
class Alien:
    """A stored value that is not of its field's declared type (F33); ``shown`` is JSON-ready."""

    shown: Any


class Draw(Protocol):
    """What the domain may not do by itself: chance and the clock, drawn once at admission (F24)."""

    def uuid7(self) -> UUID:
        """Give a new time-ordered uuid."""

    def now(self) -> datetime:
        """Give the time, aware and UTC."""


def read_value(field: Field, kind: StoreKind, given: object) -> Any:
    """Read one value as it would be written to ``field``; raise `Misfit`. See `value_reader`."""
    return value_reader(field, kind)(given)


def read_operand(field_type: FieldType, given: object) -> Any:
    """Read one operand of ``expect``; raise `Misfit`. See `operand_reader`."""
    return operand_reader(field_type)(given)


# --- out ----------------------------------------------------------------------------------------

SAFE_INTEGER_MAX: Final = 2**53 - 1
"""Beyond it a reader whose numbers are doubles would see another number; so it goes as text."""


SHOWN_AS_IT_IS: Final = frozenset({str, bool, type(None)})
"""The types of most values: asking `wire_of` for the rest only is a fifth of the work."""


def wire(field_type: FieldType, value: Any) -> Any:
    """Give a value as `orjson.dumps` shall write it; ``None`` is null, `Alien` what it shows."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, Alien):
        return value.shown
    return _WIRES[field_type](value)


def wire_of(field_type: FieldType) -> Callable[[Any], Any]:
    """Give the function that is `wire` for values of one type that are neither null nor `Alien`."""
    return _WIRES[field_type]


def _wire_integer(value: Any) -> Any:
    return value if -SAFE_INTEGER_MAX <= value <= SAFE_INTEGER_MAX else str(value)


def _wire_decimal(value: Decimal) -> str:
    text = str(value)
    if "E" not in text and text[-1:].isdigit() and "N" not in text:
        return text  # nearly always; asking the decimal for its parts costs more
    if not value.is_finite():
        return _non_finite(value.is_nan(), value.is_signed())
    exponent = value.as_tuple().exponent
    return format(value, "f") if isinstance(exponent, int) and exponent <= 0 else str(value)


def _wire_float(value: float) -> Any:
    return value if isfinite(value) else _non_finite(isnan(value), value < 0)


def _non_finite(is_nan: bool, is_negative: bool) -> str:
    return "NaN" if is_nan else "-Infinity" if is_negative else "Infinity"


def _wire_timestamp(value: datetime) -> str:
    naive = value.replace(tzinfo=None)
    microsecond = value.microsecond
    if not microsecond:
        return f"{naive.isoformat()}Z"
    finest = "microseconds" if microsecond % 1000 else "milliseconds"
    return f"{naive.isoformat(timespec=finest)}Z"


def _wire_binary(value: bytes) -> str:
    return b64encode(value).decode()


def _wire_json(value: str) -> Any:
    return orjson.Fragment(str(value))


_WIRES: Final[dict[FieldType, Callable[[Any], Any]]] = {
    FieldType.STRING: str,
    FieldType.INTEGER: _wire_integer,
    FieldType.DECIMAL: _wire_decimal,
    FieldType.FLOAT: _wire_float,
    FieldType.BOOLEAN: bool,
    FieldType.TIMESTAMP: _wire_timestamp,
    FieldType.DATE: date.isoformat,
    FieldType.UUID: str,
    FieldType.BINARY: _wire_binary,
    FieldType.JSON: _wire_json,
    FieldType.OBJECTID: str,
}

_EXACT: Final = Context(prec=200_000, Emax=MAX_EMAX, Emin=MIN_EMIN)


def key_text(field_type: FieldType, value: Any) -> str:
    """Give a key as canonical JSON, the same text for equal keys (F32: 42 and "42" are ``42``)."""
    if field_type is FieldType.INTEGER:
        digits = str(value)
        return digits if -SAFE_INTEGER_MAX <= value <= SAFE_INTEGER_MAX else f'"{digits}"'
    if field_type is FieldType.DECIMAL:
        # 1.0 and 1.00 are one key for both stores.
        value = value.normalize(_EXACT) if value else Decimal(0)
    elif field_type is FieldType.FLOAT:
        value = value + 0.0  # 0.0 and -0.0 are one key as well
    return orjson.dumps(wire(field_type, value)).decode()


# --- expect -------------------------------------------------------------------------------------


def compare(comparison: Comparison, field_type: FieldType, stored: Any, operand: Any) -> bool:
    """Judge ``stored comparison operand`` in two-valued logic (F22); null is ``None``.

    The operand of ``in`` is a tuple. Strings are ordered by code point, in both stores alike.
    """
    if comparison is Comparison.EQ:
        return _equal(field_type, stored, operand)
    if comparison is Comparison.NE:
        return not _equal(field_type, stored, operand)
    if comparison is Comparison.IN:
        return any(_equal(field_type, stored, each) for each in operand)
    if stored is None or operand is None:
        return False
    if field_type is FieldType.DECIMAL and (stored.is_nan() or operand.is_nan()):
        return False
    return bool(_ORDERS[comparison](stored, operand))


def _equal(field_type: FieldType, stored: Any, operand: Any) -> bool:
    if stored is None or operand is None:
        return stored is operand
    if field_type is FieldType.JSON:
        return same_json(stored, operand)
    return bool(stored == operand)


_ORDERS: Final[dict[Comparison, Callable[[Any, Any], Any]]] = {
    Comparison.LT: lambda stored, operand: stored < operand,
    Comparison.LTE: lambda stored, operand: stored <= operand,
    Comparison.GT: lambda stored, operand: stored > operand,
    Comparison.GTE: lambda stored, operand: stored >= operand,
}


# --- defaults -----------------------------------------------------------------------------------


def default_value(field: Field, kind: StoreKind, draw: Draw) -> Any:
    """Give the value that the mapping puts where none was submitted; drawn where it says so."""
    if field.default_generator == "uuid7":
        drawn = draw.uuid7()
        return drawn if field.type is FieldType.UUID else str(drawn)
    if field.default_generator == "now":
        now = draw.now()
        if field.type is FieldType.DATE:
            return now.date()
        limits = MONGODB_LIMITS[field.type] if kind is StoreKind.MONGODB else field.limits
        step = 10 ** (6 - limits.fraction_digits)
        return now.replace(microsecond=now.microsecond // step * step)
    return field.default
