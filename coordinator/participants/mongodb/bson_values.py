"""Between BSON values and domain values: the column "MongoDB" of the table "Values".

Owns which stored types a declared type accepts (F33: the rest is an `Alien`, shown as well as JSON
can), and what is written. Refuses to convert: a string of digits in an integer field is an alien.
Stored values are as `coordinator.participants.mongodb.elements.EXACT` decodes them.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Hashable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any, Final, TypeAlias
from uuid import UUID

import orjson
from bson.binary import UUID_SUBTYPE, Binary
from bson.datetime_ms import DatetimeMS
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.objectid import ObjectId

from coordinator.domain.entity import FieldType
from coordinator.domain.json_value import JsonText, native_integer
from coordinator.domain.values import Alien, wire

Read: TypeAlias = Callable[[Any], Any]
"""A stored value that is not null → the domain value, or an `Alien`."""
Write: TypeAlias = Callable[[Any], Any]
"""A domain value that is not ``None`` → what is stored."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_DAY_MS: Final = 86_400_000
_FIRST_MS: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND
_LAST_MS: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND

_BIAS: Final = 6176
_EXPONENT_MIN: Final = -6176
_COEFFICIENT_BITS: Final = 113
_COEFFICIENT_MASK: Final = (1 << _COEFFICIENT_BITS) - 1
_COEFFICIENT_MAX: Final = 10**34 - 1


# --- reading ------------------------------------------------------------------------------------


def _read_string(stored: Any) -> Any:
    return stored if type(stored) is str else _alien(stored)


def _read_integer(stored: Any) -> Any:
    kind = type(stored)
    if kind is Int64:
        return int(stored)
    if kind is int:
        return stored
    if kind is float and stored.is_integer():
        return int(stored)
    return _alien(stored)


def _read_decimal(stored: Any) -> Any:
    if type(stored) is Decimal128:
        value = decimal_of(stored)
        if value.is_finite():
            return value
    return _alien(stored)


def _read_float(stored: Any) -> Any:
    return stored if type(stored) is float else _alien(stored)


def _read_boolean(stored: Any) -> Any:
    return stored if type(stored) is bool else _alien(stored)


def _read_timestamp(stored: Any) -> Any:
    if type(stored) is DatetimeMS and _FIRST_MS <= int(stored) <= _LAST_MS:
        return _EPOCH + int(stored) * _MILLISECOND
    return _alien(stored)


def _read_date(stored: Any) -> Any:
    if (
        type(stored) is DatetimeMS
        and _FIRST_MS <= int(stored) <= _LAST_MS
        and int(stored) % _DAY_MS == 0
    ):
        return (_EPOCH + int(stored) * _MILLISECOND).date()
    return _alien(stored)


def _read_uuid(stored: Any) -> Any:
    if type(stored) is Binary and stored.subtype == UUID_SUBTYPE and len(stored) == 16:
        return UUID(bytes=bytes(stored))
    return _alien(stored)


def _read_binary(stored: Any) -> Any:
    return stored if type(stored) is bytes else _alien(stored)


def _read_json(stored: Any) -> Any:
    shown, exact = _as_json(stored)
    if not exact:
        return Alien(shown)
    return JsonText(orjson.dumps(shown).decode())


def _read_objectid(stored: Any) -> Any:
    return str(stored) if type(stored) is ObjectId else _alien(stored)


READERS: Final[dict[FieldType, Read]] = {
    FieldType.STRING: _read_string,
    FieldType.INTEGER: _read_integer,
    FieldType.DECIMAL: _read_decimal,
    FieldType.FLOAT: _read_float,
    FieldType.BOOLEAN: _read_boolean,
    FieldType.TIMESTAMP: _read_timestamp,
    FieldType.DATE: _read_date,
    FieldType.UUID: _read_uuid,
    FieldType.BINARY: _read_binary,
    FieldType.JSON: _read_json,
    FieldType.OBJECTID: _read_objectid,
}


# --- writing ------------------------------------------------------------------------------------


def _same(value: Any) -> Any:
    return value


def _write_timestamp(value: datetime) -> DatetimeMS:
    return DatetimeMS((value - _EPOCH) // _MILLISECOND)


def _write_date(value: date) -> DatetimeMS:
    return DatetimeMS((value.toordinal() - _EPOCH.toordinal()) * _DAY_MS)


def _write_uuid(value: UUID) -> Binary:
    return Binary(value.bytes, UUID_SUBTYPE)


def _stored_integer(text: str) -> Int64 | float:
    value = native_integer(text)
    return Int64(value) if isinstance(value, int) else value


_JSON: Final = json.JSONDecoder(parse_int=_stored_integer)


def decimal128_of(value: Decimal) -> Decimal128:
    """Give the Decimal128 of a decimal that fits, its trailing zeros kept (bson's own is slow)."""
    text = str(value)
    is_negative = text[0] == "-"
    whole, _, fraction = text[is_negative:].partition(".")
    digits = whole + fraction
    # Also what has an exponent, NaN and infinities; of those we know no more than bson.
    if not (digits.isascii() and digits.isdigit()) or len(fraction) > -_EXPONENT_MIN:
        return Decimal128(value)
    coefficient = int(digits)
    if coefficient > _COEFFICIENT_MAX:
        return Decimal128(value)
    bits = (_BIAS - len(fraction)) << _COEFFICIENT_BITS | coefficient
    if is_negative:
        bits |= 1 << 127
    return Decimal128.from_bid(bits.to_bytes(16, "little"))


def decimal_of(stored: Decimal128) -> Decimal:
    """Give the decimal of a Decimal128, its trailing zeros kept (bson's own is slow)."""
    bits = int.from_bytes(stored.bid, "little")
    coefficient = bits & _COEFFICIENT_MASK
    if (bits >> 125) & 3 == 3 or coefficient > _COEFFICIENT_MAX:
        return stored.to_decimal()
    exponent = ((bits >> _COEFFICIENT_BITS) & 0x3FFF) - _BIAS
    return Decimal(f"{'-' if bits >> 127 else ''}{coefficient}E{exponent}")


WRITERS: Final[dict[FieldType, Write]] = {
    FieldType.STRING: _same,
    FieldType.INTEGER: Int64,
    FieldType.DECIMAL: decimal128_of,
    FieldType.FLOAT: _same,
    FieldType.BOOLEAN: _same,
    FieldType.TIMESTAMP: _write_timestamp,
    FieldType.DATE: _write_date,
    FieldType.UUID: _write_uuid,
    FieldType.BINARY: bytes,
    FieldType.JSON: _JSON.decode,
    FieldType.OBJECTID: ObjectId,
}


# --- keys ---------------------------------------------------------------------------------------


def match_key(stored: Any) -> Hashable:
    """Give what is equal for two ``_id`` values exactly when MongoDB takes them for the same."""
    kind = type(stored)
    if kind is str or kind is Int64 or kind is int or kind is float or kind is ObjectId:
        return stored  # type: ignore[no-any-return]
    if kind is Decimal128:
        value = decimal_of(stored)
        return value if value.is_finite() else ("decimal", str(value))
    if kind is Binary:
        return ("binary", stored.subtype, bytes(stored))
    if kind is DatetimeMS:
        return ("date", int(stored))
    if kind is dict or kind is list:
        return ("nested", repr(stored))
    return (kind.__name__, stored)


# --- showing what is not of the declared type (F33) ---------------------------------------------


def _alien(stored: Any) -> Alien:
    return Alien(_as_json(stored)[0])


def _as_json(stored: Any) -> tuple[Any, bool]:
    """Give a value as JSON, and whether it is JSON to begin with."""
    if stored is None or stored is True or stored is False or type(stored) is str:
        return stored, True
    if isinstance(stored, int):
        return int(stored), True
    if isinstance(stored, float):
        return (stored, True) if isfinite(stored) else (wire(FieldType.FLOAT, stored), False)
    if isinstance(stored, dict):
        members = {name: _as_json(each) for name, each in stored.items()}
        shown = {name: each for name, (each, _) in members.items()}
        return shown, all(exact for _, exact in members.values())
    if isinstance(stored, list):
        items = [_as_json(each) for each in stored]
        return [each for each, _ in items], all(exact for _, exact in items)
    return _shown(stored), False


def _shown(stored: Any) -> Any:
    if type(stored) is Decimal128:
        return wire(FieldType.DECIMAL, decimal_of(stored))
    if type(stored) is DatetimeMS:
        read = _read_timestamp(stored) if _FIRST_MS <= int(stored) <= _LAST_MS else None
        if read is None:
            return {"$date": {"$numberLong": str(int(stored))}}
        return wire(FieldType.TIMESTAMP, read)
    if type(stored) is Binary and stored.subtype == UUID_SUBTYPE and len(stored) == 16:
        return str(UUID(bytes=bytes(stored)))
    if isinstance(stored, bytes):
        return b64encode(stored).decode()
    return str(stored)
