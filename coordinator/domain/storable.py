"""What a place in a store can hold exactly (F32): the limits of columns and of MongoDB's types.

Owns `Misfit` and the checks that need no JSON: the same ones judge a value that was submitted and
the result of an increment. Refuses to round: a value fits as it is, or it is a misfit.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from decimal import (
    MAX_EMAX,
    MIN_EMIN,
    Context,
    Decimal,
    DecimalException,
    Inexact,
    InvalidOperation,
    Overflow,
)
from math import isfinite
from typing import Any, Final

from coordinator.domain.entity import Field, FieldType, Limits, StoreKind
from coordinator.domain.errors import CoordinatorError, ErrorCode


class Misfit(CoordinatorError):
    """A value does not fit where it should go.

    ``sentence`` goes on after "the value " and has no full stop. ``code`` is `invalid` (F32);
    whoever judges the result of an increment says `out_of_bounds` instead (F23).
    """

    def __init__(self, sentence: str, code: ErrorCode = ErrorCode.INVALID) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.code = code


INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1

DECIMAL128_DIGITS: Final = 34

MONGODB_LIMITS: Final[Mapping[FieldType, Limits]] = {
    **dict.fromkeys(FieldType, Limits()),
    FieldType.INTEGER: Limits(integer_min=INT64_MIN, integer_max=INT64_MAX),
    FieldType.DECIMAL: Limits(precision=DECIMAL128_DIGITS),
    FieldType.TIMESTAMP: Limits(fraction_digits=3),
}
"""What a mapping gives the fields of a collection. ``precision`` without ``scale`` = Decimal128."""

_NUMERIC_WHOLE_DIGITS: Final = 131_072
_NUMERIC_SCALE: Final = 16_383
_EXACT: Final = Context(prec=200_000, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[InvalidOperation])
_DECIMAL128: Final = Context(
    prec=DECIMAL128_DIGITS,
    Emin=-6143,
    Emax=6144,
    clamp=1,
    traps=[InvalidOperation, Overflow, Inexact],
)


def effective_limits(field: Field, kind: StoreKind) -> Limits:
    """Give the field's limits, at least those of its store's own type."""
    if kind is StoreKind.MONGODB:
        return MONGODB_LIMITS[field.type]
    return field.limits


def check_storable(field: Field, value: Any) -> None:
    """Raise `Misfit` if the field's column cannot hold ``value``, a domain value, exactly.

    Judges by ``field.limits`` only, so it is for results (increments), not for submitted values.
    """
    if field.type is FieldType.INTEGER:
        fit_integer(value, field.limits)
    elif field.type is FieldType.DECIMAL:
        fit_decimal(value, field.limits)
    elif field.type is FieldType.FLOAT:
        fit_float(value, field.limits)
    elif field.type is FieldType.STRING:
        fit_length(value, field.limits.length)


def fit_integer(value: int, limits: Limits) -> None:
    """Raise `Misfit` if an integer column cannot hold the value."""
    if (limits.integer_min is not None and value < limits.integer_min) or (
        limits.integer_max is not None and value > limits.integer_max
    ):
        raise Misfit(f"must be from {limits.integer_min} to {limits.integer_max} in this store")
    if limits.precision is not None and abs(value) >= 10**limits.precision:
        raise Misfit(f"has more than the {limits.precision} digits that its column holds")


def fit_decimal(value: Decimal, limits: Limits) -> Decimal:
    """Give the value with the trailing zeros of its column; raise `Misfit` if it does not fit."""
    if not value.is_finite():
        raise Misfit("is no finite number")
    if limits.precision is None:
        return _fit_numeric(value)
    if limits.scale is None:
        return fit_decimal128(value)
    return _fit_numeric_scaled(value, limits.precision, limits.scale)


def fit_decimal128(value: Decimal) -> Decimal:
    """Give the value as a Decimal128 holds it; raise `Misfit` if none does."""
    try:
        return _DECIMAL128.create_decimal(value)
    except Inexact as error:
        raise Misfit(f"has more than the {DECIMAL128_DIGITS} digits of a Decimal128") from error
    except DecimalException as error:
        raise Misfit("is beyond the range of a Decimal128") from error


_EXPANSION_MAX: Final = 1_000


def _fit_numeric(value: Decimal) -> Decimal:
    """Fit into a numeric without precision: it keeps the scale, and knows no positive exponent."""
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    if exponent > _EXPANSION_MAX:
        # A few bytes could ask for 131,072 digits, and a submission for thousands of those (I12).
        raise Misfit(f"has an exponent above {_EXPANSION_MAX}; write its digits out")
    if exponent < -_NUMERIC_SCALE or len(digits) + exponent > _NUMERIC_WHOLE_DIGITS:
        raise Misfit(
            f"has more than the {_NUMERIC_WHOLE_DIGITS} digits before the point or "
            f"{_NUMERIC_SCALE} after it that a numeric holds"
        )
    if exponent > 0:
        value = _EXACT.quantize(value, Decimal(1))
    return value.copy_abs() if sign and not value else value


def _fit_numeric_scaled(value: Decimal, precision: int, scale: int) -> Decimal:
    if value and (
        value.adjusted() >= precision - scale or value.adjusted() < -_NUMERIC_SCALE - precision
    ):
        raise Misfit(f"has too many digits for its column, a numeric({precision},{scale})")
    unit = Decimal((0, (1,), -scale))
    scaled = _EXACT.quantize(value, unit)
    if scaled != value:
        raise Misfit(f"has more than the {scale} digits after the point that its column holds")
    if scale < 0:
        scaled = _EXACT.quantize(scaled, Decimal(1))
    return scaled if scaled else scaled.copy_abs()


_SINGLE: Final = struct.Struct("<f")
_SINGLE_DIGITS: Final = 9


def fit_float(value: float, limits: Limits) -> None:
    """Raise `Misfit` if the value is no finite number in its column."""
    if not isfinite(value):
        raise Misfit("is beyond the range of a double")
    if limits.single_float:
        _single(value)


def fit_single_exactly(value: float) -> None:
    """Raise `Misfit` if a float4 would neither hold this very number nor show it."""
    held = _single(value)
    if value not in (held, _shortest(held)):
        raise Misfit("has more digits than its column, a real, holds")


def _shortest(held: float) -> float:
    """Give the number with the fewest digits that a float4 keeps as ``held``, as it is shown."""
    for digits in range(1, _SINGLE_DIGITS):
        shortest = float(f"{held:.{digits}g}")
        try:
            if _single(shortest) == held:
                return shortest
        except Misfit:  # rounded up beyond the range; more digits will do
            continue
    return float(f"{held:.{_SINGLE_DIGITS}g}")


def _single(value: float) -> float:
    try:
        held: float = _SINGLE.unpack(_SINGLE.pack(value))[0]
    except OverflowError as error:
        raise Misfit("is beyond the range of its column, a real") from error
    return held


def fit_length(value: str, length: int | None) -> None:
    """Raise `Misfit` if the text has more code points than its column takes."""
    if length is not None and len(value) > length:
        raise Misfit(f"is longer than the {length} characters that its column holds")
