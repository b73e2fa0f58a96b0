"""Which values fit which field, a second time, from the letter of F22–F33; no product code.

A parsed JSON value here is dict, list, str, True, False, None, or `NumberText`.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from fractions import Fraction
from typing import Any

from tests.acceptance.harness.canonical import NumberText

INTEGERS = {
    "small": 16, "int_": 32, "big": 64, "id": 64, "tier": 32, "ceiling": 32, "customer": 64,
    "count": 32, ("limit", "id"): 32,
}  # fmt: skip
LENGTHS = {"word": 5, "fixed": 3, ("account", "note"): 20}
NUMERICS = {("account", "balance"): (12, 2), "amount": (12, 4)}
FREE = {("entry", "amount"), ("sample", "free"), ("specimen", "free")}
ORDERED = {"string", "integer", "decimal", "float", "timestamp", "date"}
NUMERIC_TYPES = {"integer", "decimal", "float"}


@dataclass(frozen=True)
class FieldOf:
    """One field of one entity, as the mapping declares it."""

    entity: str
    name: str
    kind: str
    declared: dict[str, Any] = field(hash=False)

    @property
    def type(self) -> str:
        return str(self.declared["type"])

    def limit(self, table: dict[Any, Any]) -> Any:
        return table.get((self.entity, self.name), table.get(self.name))


def fits(one: FieldOf, value: Any, *, judged: bool) -> bool:
    """Whether a value may be written to the field; ``judged``: by the mapping's bounds as well."""
    if value is None:
        return judged and bool(one.declared.get("nullable"))
    if not of_type(one.type, value) or not _is_stored(one, value):
        return False
    return not judged or _is_within(one, value)


# --- by type (F22: nothing more is asked of an operand) -------------------------------------------


def of_type(kind: str, value: Any) -> bool:
    """Whether a value is one of the type; null is not."""
    if kind == "json":
        return True
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "integer":
        return isinstance(value, str) and bool(re.fullmatch("-?[0-9]{1,3999}", value))
    if kind == "float":
        return isinstance(value, NumberText) and _is_double(value)
    if kind == "decimal":
        return _is_decimal(value)
    if not isinstance(value, str) or isinstance(value, NumberText):
        return False
    return kind == "string" or _TEXTS[kind](value)


def _is_decimal(value: Any) -> bool:
    if isinstance(value, NumberText):
        return bool(re.fullmatch("-?[0-9]+", value))
    parts = (
        re.fullmatch(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?([0-9]+))?", value)
        if isinstance(value, str)
        else None
    )
    return parts is not None and len((parts[1] or "").lstrip("0")) <= 6


def _is_double(text: str) -> bool:
    return abs(float(text)) != float("inf")


def _is_date(text: str) -> bool:
    if not re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _timestamp(text: str) -> tuple[datetime, str] | None:
    """Give the time to the second in UTC, and the digits after the point."""
    parts = re.fullmatch(
        r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
        r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))",
        text,
    )
    if parts is None or not _is_date(parts[1]):
        return None
    hour, minute, second = (int(parts[at]) for at in (2, 3, 4))
    off_hour, off_minute = int(parts[7] or 0), int(parts[8] or 0)
    if hour > 23 or minute > 59 or second > 59 or off_hour > 23 or off_minute > 59:
        return None
    day = date.fromisoformat(parts[1])
    at = datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=UTC)
    offset = timedelta(hours=off_hour, minutes=off_minute)
    try:
        return at + offset if parts[6] == "-" else at - offset, (parts[5] or "").rstrip("0")
    except OverflowError:
        return None


def _is_base64(text: str) -> bool:
    try:
        return base64.b64encode(base64.b64decode(text, validate=True)).decode() == text
    except (binascii.Error, ValueError):
        return False


_TEXTS: dict[str, Callable[[str], bool]] = {
    "timestamp": lambda text: (at := _timestamp(text)) is not None and len(at[1]) <= 6,
    "date": _is_date,
    "uuid": lambda text: bool(re.fullmatch("(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text)),
    "binary": _is_base64,
    "objectid": lambda text: bool(re.fullmatch("(?i)[0-9a-f]{24}", text)),
}


# --- by store (F32) -------------------------------------------------------------------------------


def _is_stored(one: FieldOf, value: Any) -> bool:
    is_sql = one.kind == "postgresql"
    match one.type:
        case "string":
            length = one.limit(LENGTHS) if is_sql else None
            if is_sql and ("\0" in value or (one.name == "fixed" and value.endswith(" "))):
                return False
            return length is None or len(value) <= length
        case "integer":
            if is_sql and one.name == "huge":
                return abs(int(value)) < 10**20
            bits = one.limit(INTEGERS) if is_sql else 64
            return bool(-(2 ** (bits - 1)) <= int(value) < 2 ** (bits - 1))
        case "decimal":
            return _is_stored_decimal(one, Decimal(value), is_sql=is_sql)
        case "float":
            return _is_exact(value, single=is_sql and one.name == "real_")
        case "timestamp":
            at = _timestamp(value)
            return at is not None and len(at[1]) <= (6 if is_sql else 3)
        case "json":
            return _is_json_for(value, is_sql=is_sql)
    return True


def _is_stored_decimal(one: FieldOf, value: Decimal, *, is_sql: bool) -> bool:
    if not is_sql:
        context = Context(
            prec=34, Emin=-6143, Emax=6144, clamp=1, traps=[Inexact, InvalidOperation, Overflow]
        )
        try:
            context.create_decimal(value)
        except (Inexact, InvalidOperation, Overflow):
            return False
        return True
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    if (one.entity, one.name) in FREE:
        return -16_383 <= exponent <= 1000 and len(value.as_tuple().digits) + exponent <= 131_072
    precision, scale = one.limit(NUMERICS)
    if value and not -20_000 < value.adjusted() < precision - scale:
        return False
    return not value or (Fraction(value) * 10**scale).denominator == 1


def _is_exact(text: str, *, single: bool) -> bool:
    number, held = Decimal(text), float(text)
    if single:
        try:
            held = struct.unpack("<f", struct.pack("<f", held))[0]
        except OverflowError:
            return False
        shown = next(
            f"{held:.{digits}g}" for digits in range(1, 18) if _single(f"{held:.{digits}g}") == held
        )
        double = float(text)
        return _is_exact(text, single=False) and double in (held, float(shown))
    return number in (Decimal(held), Decimal(repr(held)))


def _single(text: str) -> float | None:
    try:
        return float(struct.unpack("<f", struct.pack("<f", float(text)))[0])
    except OverflowError:
        return None


def _is_json_for(value: Any, *, is_sql: bool) -> bool:
    if isinstance(value, dict):
        for name in value:
            if "\0" in name or (not is_sql and (name.startswith("$") or "." in name)):
                return False
        return all(_is_json_for(each, is_sql=is_sql) for each in value.values())
    if isinstance(value, list):
        return all(_is_json_for(each, is_sql=is_sql) for each in value)
    if isinstance(value, NumberText):
        if is_sql:
            number = Decimal(value)
            exponent = number.as_tuple().exponent
            assert isinstance(exponent, int)
            return not number or (exponent >= -16_383 and number.adjusted() < 131_072)
        if re.fullmatch("-?[0-9]+", value) and -(2**63) <= int(value) < 2**63:
            return True
        return _is_double(value) and Decimal(value) == Decimal(repr(float(value)))
    return not (is_sql and isinstance(value, str) and "\0" in value)


# --- by the mapping's bounds ----------------------------------------------------------------------


def _is_within(one: FieldOf, value: Any) -> bool:
    declared = one.declared
    if "enum" in declared and value not in declared["enum"]:
        return False
    if "max_length" in declared and len(value) > declared["max_length"]:
        return False
    if "pattern" in declared and (
        len(value) > 10_000 or not re.fullmatch(declared["pattern"], value)
    ):
        return False
    if "min" in declared and Decimal(value) < declared["min"]:
        return False
    return not ("max" in declared and Decimal(value) > declared["max"])
