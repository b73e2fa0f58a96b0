"""Values shown, compared and drawn: the column "Out", F21–F24, F32, F33."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import pytest

from coordinator.domain.entity import FieldType, Limits
from coordinator.domain.operation import Comparison
from coordinator.domain.values import (
    MONGODB_LIMITS,
    Alien,
    JsonText,
    Misfit,
    check_storable,
    compare,
    default_value,
    key_text,
    native,
    wire,
)
from tests.mapping_samples import DRAWN_AT, INT4, MONEY, MONGODB, POSTGRESQL, FixedDraw, field

T, C = FieldType, Comparison


@pytest.mark.parametrize(
    ("field_type", "value", "shown"),
    [
        (T.STRING, "é\x01", '"é\\u0001"'),
        (T.STRING, None, "null"),
        (T.INTEGER, 2**53 - 1, "9007199254740991"),
        (T.INTEGER, 2**53, '"9007199254740992"'),
        (T.INTEGER, -(2**53), '"-9007199254740992"'),
        (T.INTEGER, 10**40, f'"1{"0" * 40}"'),
        (T.DECIMAL, Decimal("12.50"), '"12.50"'),
        (T.DECIMAL, Decimal("0.0000000"), '"0.0000000"'),
        (T.DECIMAL, Decimal("1E-10"), '"0.0000000001"'),
        (T.DECIMAL, Decimal("1E+3"), '"1E+3"'),
        (T.DECIMAL, Decimal("NaN"), '"NaN"'),
        (T.DECIMAL, Decimal("-Infinity"), '"-Infinity"'),
        (T.FLOAT, 1.5, "1.5"),
        (T.FLOAT, float("nan"), '"NaN"'),
        (T.FLOAT, float("inf"), '"Infinity"'),
        (T.FLOAT, float("-inf"), '"-Infinity"'),
        (T.BOOLEAN, True, "true"),
        (T.TIMESTAMP, datetime(2024, 5, 17, 9, 30, tzinfo=UTC), '"2024-05-17T09:30:00Z"'),
        (T.TIMESTAMP, datetime(2024, 5, 17, 9, 30, 0, 5000, UTC), '"2024-05-17T09:30:00.005Z"'),
        (T.TIMESTAMP, datetime(1, 5, 17, 9, 30, 0, 5, UTC), '"0001-05-17T09:30:00.000005Z"'),
        (T.DATE, date(1, 2, 3), '"0001-02-03"'),
        (T.UUID, UUID(int=10), '"00000000-0000-0000-0000-00000000000a"'),
        (T.BINARY, b"\x00\x01\x02\xff", '"AAEC/w=="'),
        (T.JSON, JsonText('{"b":1.50,"a":1}'), '{"b":1.50,"a":1}'),
        (T.OBJECTID, "65f0a1b2c3d4e5f60718293a", '"65f0a1b2c3d4e5f60718293a"'),
        (T.INTEGER, Alien({"held": "text"}), '{"held":"text"}'),
    ],
)
def test_values_are_shown_by_their_declared_type(
    field_type: FieldType, value: Any, shown: str
) -> None:
    assert orjson.dumps(wire(field_type, value)).decode() == shown


@pytest.mark.parametrize(
    ("field_type", "key", "text"),
    [
        (T.INTEGER, 42, "42"),
        (T.INTEGER, 2**53, '"9007199254740992"'),
        (T.STRING, 'o-"77"\n', '"o-\\"77\\"\\n"'),
        (T.STRING, "42", '"42"'),
        (T.UUID, UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (T.DECIMAL, Decimal("1.00"), '"1"'),
        (T.DECIMAL, Decimal("0.00"), '"0"'),
        (T.FLOAT, -0.0, "0.0"),
        (T.DATE, date(2024, 5, 17), '"2024-05-17"'),
    ],
)
def test_f32_equal_keys_have_one_text(field_type: FieldType, key: Any, text: str) -> None:
    assert key_text(field_type, key) == text


@pytest.mark.parametrize(
    ("comparison", "stored", "operand", "holds"),
    [
        (C.EQ, None, None, True),
        (C.EQ, None, 1, False),
        (C.EQ, 1, None, False),
        (C.NE, None, None, False),
        (C.NE, None, 1, True),
        (C.NE, 1, None, True),
        (C.IN, None, (1, None), True),
        (C.IN, None, (1, 2), False),
        (C.IN, 2, (1, 2), True),
        (C.LT, None, 5, False),
        (C.GTE, None, 5, False),
        (C.LT, 4, 5, True),
        (C.LTE, 5, 5, True),
        (C.GT, 5, 5, False),
        (C.GTE, 5, 5, True),
    ],
)
def test_f22_comparisons_are_two_valued(
    comparison: Comparison, stored: Any, operand: Any, holds: bool
) -> None:
    assert compare(comparison, T.INTEGER, stored, operand) is holds


def test_f22_strings_are_ordered_by_code_point_and_decimals_by_value() -> None:
    assert compare(C.LT, T.STRING, "Z", "a")
    assert compare(C.LT, T.STRING, "\uffff", "\U0001f600")
    assert compare(C.EQ, T.DECIMAL, Decimal("1.0"), Decimal(1))
    assert not compare(C.GT, T.DECIMAL, Decimal("NaN"), Decimal(1))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ('{"a":1,"b":[1.0]}', '{"b":[1],"a":1e0}', True),
        ("1e400", f"1{'0' * 400}", True),
        ("1e99999999999999999999", "1e99999999999999999999", True),
        ("1e99999999999999999999", "1e99999999999999999998", False),
        ("0.1", "0.10000000000000001", False),
        ("-0", "0.0e5", True),
        ("1", "true", False),
        ("0", "false", False),
        ("null", '"null"', False),
        ("[1,2]", "[2,1]", False),
        ('{"a":null}', "{}", False),
        ("[" * 90 + "]" * 90, "[]", False),
        ("[" * 5000 + "]" * 5000, " " + "[" * 5000 + "]" * 5000, False),
    ],
)
def test_f22_json_is_equal_by_meaning(one: str, other: str, same: bool) -> None:
    assert compare(C.EQ, T.JSON, JsonText(one), JsonText(other)) is same
    assert compare(C.NE, T.JSON, JsonText(other), JsonText(one)) is not same


def test_native_gives_drivers_int64_and_doubles() -> None:
    values = native("[1,1.50,100000000000000000000,9223372036854775807,-0,1e2]")
    assert values == [1, 1.5, 1e20, 2**63 - 1, 0, 100.0]
    assert [type(each) for each in values] == [int, float, float, int, int, float]


@pytest.mark.parametrize(
    ("field_type", "limits", "fits", "too_large"),
    [
        (T.INTEGER, INT4, 2**31 - 1, 2**31),
        (T.INTEGER, MONGODB_LIMITS[T.INTEGER], -(2**63), -(2**63) - 1),
        (T.DECIMAL, MONEY, Decimal("9999999999.99"), Decimal("10000000000.00")),
        (T.DECIMAL, MONEY, Decimal("0.01"), Decimal("NaN")),
        (T.DECIMAL, MONGODB_LIMITS[T.DECIMAL], Decimal("9" * 34), Decimal("9" * 35)),
        (T.FLOAT, Limits(), 1.7e308, float("inf")),
        (T.FLOAT, Limits(single_float=True), 3.4e38, 3.5e38),
    ],
)
def test_f23_the_result_of_an_increment_must_fit(
    field_type: FieldType, limits: Limits, fits: Any, too_large: Any
) -> None:
    of_column = field("f", field_type, limits=limits)
    check_storable(of_column, fits)
    with pytest.raises(Misfit):
        check_storable(of_column, too_large)


def test_f24_defaults_are_drawn_where_the_mapping_says_so() -> None:
    draw = FixedDraw()
    drawn = field("f", T.UUID, default_generator="uuid7")
    assert default_value(drawn, POSTGRESQL, draw) == UUID(int=1)
    as_text = field("f", T.STRING, default_generator="uuid7")
    assert default_value(as_text, POSTGRESQL, draw) == str(UUID(int=2))
    now = field("f", T.TIMESTAMP, default_generator="now")
    assert default_value(now, POSTGRESQL, draw) == DRAWN_AT
    assert default_value(now, MONGODB, draw) == DRAWN_AT.replace(microsecond=123000)
    today = field("f", T.DATE, default_generator="now")
    assert default_value(today, POSTGRESQL, draw) == date(2026, 5, 17)
    fixed = field("f", T.INTEGER, has_default=True, default=7)
    assert default_value(fixed, POSTGRESQL, draw) == 7
