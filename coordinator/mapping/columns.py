"""Which column holds which field type, and what it can hold exactly (table "Values", F32).

Owns the column "PostgreSQL" of that table. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from coordinator.domain.entity import FieldType, Limits
from coordinator.mapping.catalog import LiveColumn

PADDED: Final = "bpchar"
"""What PostgreSQL calls char: it is filled up with blanks, and those at the end do not count."""
_HOLDERS: Final[dict[FieldType, tuple[str, ...]]] = {
    FieldType.STRING: ("text", "varchar", PADDED),
    FieldType.INTEGER: ("int2", "int4", "int8", "numeric"),
    FieldType.DECIMAL: ("numeric",),
    FieldType.FLOAT: ("float4", "float8"),
    FieldType.BOOLEAN: ("bool",),
    FieldType.TIMESTAMP: ("timestamptz",),
    FieldType.DATE: ("date",),
    FieldType.UUID: ("uuid",),
    FieldType.BINARY: ("bytea",),
    FieldType.JSON: ("json", "jsonb"),
    FieldType.OBJECTID: (),
}
_SHOWN: Final[dict[FieldType, str]] = {
    FieldType.STRING: "text, varchar or char",
    FieldType.INTEGER: "smallint, integer, bigint or numeric(p,0)",
    FieldType.DECIMAL: "numeric",
    FieldType.FLOAT: "real or double precision",
    FieldType.BOOLEAN: "boolean",
    FieldType.TIMESTAMP: "timestamp with time zone",
    FieldType.DATE: "date",
    FieldType.UUID: "uuid",
    FieldType.BINARY: "bytea",
    FieldType.JSON: "json or jsonb",
}
_INTEGER_BITS: Final = {"int2": 16, "int4": 32, "int8": 64}
_LENGTH_HEADER: Final = 4
"""PostgreSQL adds the size of a header to the modifiers of text and numeric types."""


def limits_of(column: LiveColumn, field_type: FieldType) -> Limits | None:
    """Say what the column can hold as values of this type; ``None`` if it cannot hold them."""
    if column.base_type is None or column.base_type not in _HOLDERS[field_type]:
        return None
    make = _LIMITS.get(field_type)
    return Limits() if make is None else make(column.base_type, column.modifier)


def expected(field_type: FieldType) -> str:
    """Name the types that can hold a field type, for a sentence."""
    return _SHOWN[field_type]


def _string(base_type: str, modifier: int) -> Limits:
    length = modifier - _LENGTH_HEADER if modifier >= _LENGTH_HEADER else None
    return Limits(length=length, padded=base_type == PADDED)


def _integer(base_type: str, modifier: int) -> Limits | None:
    if base_type == "numeric":
        precision, scale = _numeric(modifier)
        return Limits(precision=precision, scale=0) if scale == 0 else None
    most: int = 2 ** (_INTEGER_BITS[base_type] - 1)
    return Limits(integer_min=-most, integer_max=most - 1)


def _decimal(_: str, modifier: int) -> Limits:
    precision, scale = _numeric(modifier)
    return Limits(precision=precision, scale=scale)


def _numeric(modifier: int) -> tuple[int | None, int | None]:
    """Take (precision, scale) out of a modifier; the scale has 11 bits, with a sign."""
    if modifier < _LENGTH_HEADER:
        return None, None
    packed = modifier - _LENGTH_HEADER
    return packed >> 16 & 0xFFFF, (packed & 0x7FF ^ 0x400) - 0x400


def _float(base_type: str, _: int) -> Limits:
    return Limits(single_float=base_type == "float4")


def _timestamp(_: str, modifier: int) -> Limits:
    return Limits(fraction_digits=modifier if modifier >= 0 else 6)


_LIMITS: Final[dict[FieldType, Callable[[str, int], Limits | None]]] = {
    FieldType.STRING: _string,
    FieldType.INTEGER: _integer,
    FieldType.DECIMAL: _decimal,
    FieldType.FLOAT: _float,
    FieldType.TIMESTAMP: _timestamp,
}
