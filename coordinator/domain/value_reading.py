"""Reading values: from JSON as it was submitted to domain values, or a `Misfit` that says why not.

Owns the column "In" of the table "Values", and F32. A reader is made once per field and kept: it
is one closure that knows the field's type, its store's limits and its own bounds. Refuses to
guess: no number for a string, no fraction for an integer, no time without an offset.

Three kinds of reader, by what is judged besides the type: `value_reader` everything,
`delta_reader` what the store can hold (F23), `operand_reader` nothing more (F22).
"""

from __future__ import annotations

import re
from base64 import b64encode
from binascii import Error as NotBase64
from binascii import a2b_base64
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from math import isinf
from typing import Any, Final
from uuid import UUID

from coordinator.domain.entity import Field, FieldType, Limits, StoreKind
from coordinator.domain.field_bounds import bounds_check
from coordinator.domain.json_text import JsonNumber
from coordinator.domain.json_value import JsonText, json_text
from coordinator.domain.storable import (
    Misfit,
    effective_limits,
    fit_decimal,
    fit_float,
    fit_integer,
    fit_length,
    fit_single_exactly,
)
from coordinator.domain.storable_json import fit_json

Reader = Callable[[Any], Any]
"""Parsed JSON → domain value; raises `Misfit`."""


def value_reader(field: Field, kind: StoreKind) -> Reader:
    """Make the reader of values that are written to ``field``: all of F32 and of its own bounds."""
    judge = bounds_check(field)
    read = delta_reader(field, kind)
    nullable = field.nullable
    if judge is None and not nullable:
        return read

    def read_judged(wire: Any) -> Any:
        if nullable and wire is None:
            return None
        value = read(wire)
        if judge is not None:
            judge(value)
        return value

    return read_judged


def delta_reader(field: Field, kind: StoreKind) -> Reader:
    """Make the reader of increments and keys: what the field's place in the store can hold.

    Null is no such value, whether or not the field is nullable.
    """
    read = _stored_reader(field, kind)
    if field.type is not FieldType.JSON:
        return read

    def read_no_null(wire: Any) -> Any:
        if wire is None:
            raise Misfit("must not be null")
        return read(wire)

    return read_no_null


def operand_reader(field_type: FieldType) -> Reader:
    """Make the reader of operands of ``expect``: the type only; null passes as ``None`` (F22)."""
    read = _TYPE_READERS[field_type]

    def read_operand(wire: Any) -> Any:
        return None if wire is None else read(wire)

    return read_operand


# --- by type ------------------------------------------------------------------------------------

_INTEGER: Final = re.compile(r"-?[0-9]+")
_INTEGER_DIGITS_MAX: Final = 4_000
_NOT_INTEGER: Final = "must be a whole number: a JSON integer, or a string of digits"


def _read_integer(wire: Any) -> int:
    if type(wire) is int:
        return wire
    text = wire.text if isinstance(wire, JsonNumber) else wire
    if not isinstance(text, str) or not _INTEGER.fullmatch(text):
        raise Misfit(_NOT_INTEGER)
    if len(text) > _INTEGER_DIGITS_MAX:
        raise Misfit(f"has more than {_INTEGER_DIGITS_MAX} digits")
    return int(text)


_DECIMAL: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?([0-9]+))?")
_EXPONENT_DIGITS_MAX: Final = 6


def _read_decimal(wire: Any) -> Decimal:
    if type(wire) is int:
        return Decimal(wire)
    if isinstance(wire, JsonNumber):
        if _INTEGER.fullmatch(wire.text):
            return Decimal(wire.text)
        raise Misfit('must be a string, such as "12.50", since a JSON fraction may lose digits')
    if isinstance(wire, float):
        raise Misfit('must be a string, such as "12.50", since a JSON fraction may lose digits')
    parts = _DECIMAL.fullmatch(wire) if isinstance(wire, str) else None
    if parts is None:
        raise Misfit('must be a decimal number in a string, such as "12.50", or a JSON integer')
    if parts[1] is not None and len(parts[1].lstrip("0")) > _EXPONENT_DIGITS_MAX:
        raise Misfit("has an exponent that is too large")
    return Decimal(wire)


def _read_float(wire: Any) -> float:
    if type(wire) is float:
        return wire
    if type(wire) is int:
        return float(wire)
    if not isinstance(wire, JsonNumber):
        raise Misfit("must be a JSON number")
    value = float(wire.text)
    if isinf(value):
        raise Misfit("is beyond the range of a double")
    return value


def _read_float_exactly(wire: Any) -> float:
    value = _read_float(wire)
    if type(wire) is not float:
        written = wire.text if isinstance(wire, JsonNumber) else str(wire)
        if not _is_held_by(value, written):
            raise Misfit("has more digits than a double holds")
    return value


def _is_held_by(value: float, written: str) -> bool:
    """Whether the double is the number that was written, or shows as that number."""
    if not value:
        return not any(digit in "123456789" for digit in re.split("[eE]", written)[0])
    number = Decimal(written)
    return number in (Decimal(value), Decimal(repr(value)))


def _read_boolean(wire: Any) -> bool:
    if wire is True or wire is False:
        return bool(wire)
    raise Misfit("must be true or false")


def _read_string(wire: Any) -> str:
    if isinstance(wire, str):
        return wire
    raise Misfit("must be a string")


_TIMESTAMP: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]((?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2})"
    r"(?:\.([0-9]+))?([Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_MICROSECOND_DIGITS: Final = 6


def _read_timestamp(wire: Any) -> datetime:
    parts = _TIMESTAMP.fullmatch(wire) if isinstance(wire, str) else None
    if parts is None:
        raise Misfit('must be an RFC 3339 time with an offset, such as "2024-05-17T09:30:00Z"')
    day, time, fraction, offset = parts.groups("")
    kept = fraction.rstrip("0")
    if len(kept) > _MICROSECOND_DIGITS:
        raise Misfit("has a finer fraction of a second than a microsecond")
    text = f"{day}T{time}.{kept:0<6}{'+00:00' if offset in 'Zz' else offset}"
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Misfit("is no time from the years 0001 to 9999, or a leap second") from error


_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _read_date(wire: Any) -> date:
    if isinstance(wire, str) and _DATE.fullmatch(wire):
        try:
            return date.fromisoformat(wire)
        except ValueError as error:
            raise Misfit("is no day of the years 0001 to 9999") from error
    raise Misfit('must be a date, such as "2024-05-17"')


_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def _read_uuid(wire: Any) -> UUID:
    if isinstance(wire, str) and _UUID.fullmatch(wire):
        return UUID(wire)
    raise Misfit("must be a uuid of 8-4-4-4-12 hexadecimal digits")


def _read_binary(wire: Any) -> bytes:
    if isinstance(wire, str):
        try:
            value = a2b_base64(wire.encode("ascii"), strict_mode=True)
        except (NotBase64, UnicodeEncodeError):
            pass
        else:
            if b64encode(value).decode() == wire:
                return value
    raise Misfit("must be base64 with its padding")


_OBJECTID: Final = re.compile(r"[0-9a-fA-F]{24}")


def _read_objectid(wire: Any) -> str:
    if isinstance(wire, str) and _OBJECTID.fullmatch(wire):
        return wire.lower()
    raise Misfit("must be an ObjectId of 24 hexadecimal digits")


_TYPE_READERS: Final[dict[FieldType, Reader]] = {
    FieldType.STRING: _read_string,
    FieldType.INTEGER: _read_integer,
    FieldType.DECIMAL: _read_decimal,
    FieldType.FLOAT: _read_float,
    FieldType.BOOLEAN: _read_boolean,
    FieldType.TIMESTAMP: _read_timestamp,
    FieldType.DATE: _read_date,
    FieldType.UUID: _read_uuid,
    FieldType.BINARY: _read_binary,
    FieldType.JSON: json_text,
    FieldType.OBJECTID: _read_objectid,
}


# --- by store -----------------------------------------------------------------------------------


def _stored_reader(field: Field, kind: StoreKind) -> Reader:
    """Make a reader that also judges what the store can hold (F32)."""
    limits = effective_limits(field, kind)
    match field.type:
        case FieldType.INTEGER:
            return _integer_reader(limits)
        case FieldType.DECIMAL:
            return lambda wire: fit_decimal(_read_decimal(wire), limits)
        case FieldType.FLOAT:
            return _float_reader(limits)
        case FieldType.STRING:
            return _string_reader(limits, kind)
        case FieldType.TIMESTAMP:
            return _timestamp_reader(limits)
        case FieldType.JSON:
            return lambda wire: _read_json(wire, kind)
        case _:
            return _TYPE_READERS[field.type]


def _integer_reader(limits: Limits) -> Reader:
    def read(wire: Any) -> int:
        value = _read_integer(wire)
        fit_integer(value, limits)
        return value

    return read


def _float_reader(limits: Limits) -> Reader:
    def read(wire: Any) -> float:
        value = _read_float_exactly(wire)
        fit_float(value, limits)
        if limits.single_float:
            fit_single_exactly(value)
        return value

    return read


def _string_reader(limits: Limits, kind: StoreKind) -> Reader:
    refuses_nul = kind is StoreKind.POSTGRESQL
    length, padded = limits.length, limits.padded

    def read(wire: Any) -> str:
        if not isinstance(wire, str):
            raise Misfit("must be a string")
        if refuses_nul and "\0" in wire:
            raise Misfit("holds a NUL character, which PostgreSQL cannot store")
        fit_length(wire, length)
        if padded and wire.endswith(" "):
            raise Misfit("ends with a blank, which its column, a char, does not keep")
        return wire

    return read


def _timestamp_reader(limits: Limits) -> Reader:
    if limits.fraction_digits >= _MICROSECOND_DIGITS:
        return _read_timestamp
    step = 10 ** (_MICROSECOND_DIGITS - limits.fraction_digits)

    def read(wire: Any) -> datetime:
        value = _read_timestamp(wire)
        if value.microsecond % step:
            raise Misfit(f"has more than the {limits.fraction_digits} fraction digits of its store")
        return value

    return read


def _read_json(wire: Any, kind: StoreKind) -> JsonText:
    fit_json(wire, kind)
    return json_text(wire)
