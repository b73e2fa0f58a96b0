"""Values out and in again, and comparisons against a model."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.domain.entity import FieldType, Limits, StoreKind
from coordinator.domain.json_text import parse
from coordinator.domain.json_value import json_text
from coordinator.domain.operation import Comparison
from coordinator.domain.values import Misfit, compare, key_text, read_value, wire
from tests.mapping_samples import MONEY, MONGODB, POSTGRESQL, field

T = FieldType
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
MILLISECONDS = st.datetimes(timezones=st.just(UTC)).map(
    lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000, fold=0)
)
TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXTS
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(TEXTS.filter(lambda name: not set(name) & set(".$\0")), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
MONGODB_VALUES: dict[FieldType, st.SearchStrategy[Any]] = {
    T.STRING: TEXTS,
    T.INTEGER: st.integers(-(2**63), 2**63 - 1),
    T.DECIMAL: st.decimals(allow_nan=False, allow_infinity=False, places=3).filter(
        lambda value: len(value.as_tuple().digits) <= 34
    ),
    T.FLOAT: st.floats(allow_nan=False, allow_infinity=False),
    T.BOOLEAN: st.booleans(),
    T.TIMESTAMP: MILLISECONDS,
    T.DATE: st.dates(),
    T.UUID: st.uuids(),
    T.BINARY: st.binary(max_size=10),
    T.JSON: TREES.filter(lambda tree: tree is not None).map(json_text),
    T.OBJECTID: st.text("0123456789abcdef", min_size=24, max_size=24),
}


def through_json(shown: Any) -> Any:
    return parse(orjson.dumps(shown)).value


@pytest.mark.parametrize("field_type", list(T))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_is_shown_can_be_submitted_again(field_type: FieldType, data: st.DataObject) -> None:
    value = data.draw(MONGODB_VALUES[field_type])
    seen = read_value(
        field("f", field_type, MONGODB), MONGODB, through_json(wire(field_type, value))
    )
    assert repr(seen) == repr(value)
    assert type(seen) is type(value)


@settings(max_examples=200, deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12))
def test_numeric_columns_take_exactly_what_they_can_hold(value: Decimal) -> None:
    cents = value * 100
    fits = abs(value) < 10**10 and cents == cents.to_integral_value()
    try:
        seen = read_value(field("f", T.DECIMAL, limits=MONEY), POSTGRESQL, str(value))
    except Misfit:
        assert not fits
    else:
        assert fits
        assert seen == value
        assert str(seen)[-3] == "."


@settings(max_examples=200, deadline=None)
@given(st.datetimes(), st.integers(-23 * 60 - 59, 23 * 60 + 59))
def test_timestamps_with_any_offset_are_read_as_utc(local: datetime, offset_minutes: int) -> None:
    at = local.replace(tzinfo=timezone(timedelta(minutes=offset_minutes)), fold=0)
    try:
        seen = read_value(field("f", T.TIMESTAMP), POSTGRESQL, at.isoformat())
    except Misfit:
        with pytest.raises(OverflowError):
            at.astimezone(UTC)
    else:
        assert seen == at
        assert seen.tzinfo is UTC


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(list(T)),
    st.sampled_from(list(StoreKind)),
    st.booleans(),
    TREES | st.from_regex(r"\A[-0-9TZ:+.eE]{1,30}\Z") | st.from_regex(r"\A[0-9a-f-]{36}\Z"),
)
def test_reading_gives_a_value_or_a_misfit(
    field_type: FieldType, kind: StoreKind, single: bool, given_: Any
) -> None:
    limits = Limits(length=3, precision=6, scale=2, single_float=single)
    of_column = field("f", field_type, kind, nullable=True, limits=limits)
    try:
        value = read_value(of_column, kind, parse(json.dumps(given_).encode()).value)
    except Misfit:
        return
    orjson.dumps(wire(field_type, value))
    if value is not None:
        parse(key_text(field_type, value).encode())


ORDERS = {
    Comparison.LT: lambda order: order < 0,
    Comparison.LTE: lambda order: order <= 0,
    Comparison.GT: lambda order: order > 0,
    Comparison.GTE: lambda order: order >= 0,
}
NUMBERS = st.none() | st.integers(-3, 3)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([T.INTEGER, T.DECIMAL, T.FLOAT, T.STRING, T.DATE]), NUMBERS, NUMBERS,
       st.lists(NUMBERS, max_size=3), st.sampled_from(list(Comparison)))  # fmt: skip
def test_compare_agrees_with_a_model_on_small_integers(
    field_type: FieldType,
    stored: int | None,
    operand: int | None,
    choices: list[int | None],
    comparison: Comparison,
) -> None:
    """Each integer stands for one value of the type, in the same order."""
    kinds: dict[FieldType, Any] = {
        T.INTEGER: int, T.DECIMAL: lambda at: Decimal(at).scaleb(-1) * 10, T.FLOAT: float,
        T.STRING: lambda at: chr(0xFFFD + at) if at < 3 else "\U0001f600",
        T.DATE: lambda at: datetime(2024, 5, 10 + at, tzinfo=UTC).date(),
    }  # fmt: skip

    def of(at: int | None) -> Any:
        return None if at is None else kinds[field_type](at)

    if comparison is Comparison.IN:
        expected = stored in choices
        assert compare(comparison, field_type, of(stored), tuple(map(of, choices))) is expected
        return
    if comparison in ORDERS:
        expected = None not in (stored, operand) and ORDERS[comparison](stored - operand)  # type: ignore[operator]
    else:
        expected = (stored == operand) == (comparison is Comparison.EQ)
    assert compare(comparison, field_type, of(stored), of(operand)) is expected
