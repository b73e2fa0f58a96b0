"""Values from JSON: the column "In" of the table "Values", F22, F23, F32."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from coordinator.domain.entity import FieldType, Limits, StoreKind
from coordinator.domain.json_text import JsonNumber, parse
from coordinator.domain.values import (
    JsonText,
    Misfit,
    delta_reader,
    read_operand,
    read_value,
)
from tests.mapping_samples import INT4, MONEY, MONGODB, POSTGRESQL, field

T = FieldType


def given(text: str) -> Any:
    """What the parser makes of a JSON text."""
    return parse(text.encode()).value


def read(text: str, field_type: FieldType, kind: StoreKind = POSTGRESQL, **more: Any) -> Any:
    return read_value(field("f", field_type, kind, **more), kind, given(text))


def misfit(text: str, field_type: FieldType, kind: StoreKind = POSTGRESQL, **more: Any) -> str:
    with pytest.raises(Misfit) as caught:
        read(text, field_type, kind, **more)
    assert caught.value.code == "invalid"
    return caught.value.sentence


@pytest.mark.parametrize(
    ("text", "field_type", "value"),
    [
        ('"a\\u0001é😀"', T.STRING, "a\x01é😀"),
        ("42", T.INTEGER, 42),
        ('"42"', T.INTEGER, 42),
        ('"-0042"', T.INTEGER, -42),
        ("-0", T.INTEGER, 0),
        ('"12.50"', T.DECIMAL, Decimal("12.50")),
        ("12", T.DECIMAL, Decimal(12)),
        ("123456789012345678901234567890", T.DECIMAL, Decimal("123456789012345678901234567890")),
        ('"-1.5e-3"', T.DECIMAL, Decimal("-0.0015")),
        ('"1E2"', T.DECIMAL, Decimal(100)),
        ("1.5", T.FLOAT, 1.5),
        ("1.50", T.FLOAT, 1.5),
        ("1E5", T.FLOAT, 100000.0),
        ("0.1", T.FLOAT, 0.1),
        ("3", T.FLOAT, 3.0),
        ("1152921504606846976", T.FLOAT, 2.0**60),
        ("100000000000000000000000", T.FLOAT, 1e23),
        ("true", T.BOOLEAN, True),
        ('"2024-05-17T09:30:00Z"', T.TIMESTAMP, datetime(2024, 5, 17, 9, 30, tzinfo=UTC)),
        ('"2024-05-17t09:30:00.5z"', T.TIMESTAMP, datetime(2024, 5, 17, 9, 30, 0, 500000, UTC)),
        ('"2024-05-17T09:30:00.123456000+02:30"', T.TIMESTAMP,
         datetime(2024, 5, 17, 7, 0, 0, 123456, UTC)),
        ('"2024-02-29"', T.DATE, date(2024, 2, 29)),
        ('"0198C0DE-0000-7000-8000-00000000000A"', T.UUID,
         UUID("0198c0de-0000-7000-8000-00000000000a")),
        ('"AAEC/w=="', T.BINARY, b"\x00\x01\x02\xff"),
        ('""', T.BINARY, b""),
        ('{"b": 1.50, "a": [null, "\\u0041"]}', T.JSON, JsonText('{"b":1.50,"a":[null,"A"]}')),
        ('{"$ref": "0.key"}', T.JSON, JsonText('{"$ref":"0.key"}')),
    ],
)  # fmt: skip
def test_values_are_read_by_their_declared_type(
    text: str, field_type: FieldType, value: Any
) -> None:
    seen = read(text, field_type)
    assert type(seen) is type(value)
    assert repr(seen) == repr(value)


def test_an_objectid_is_24_hexadecimal_digits_in_any_case() -> None:
    assert read('"65F0A1B2C3D4E5F60718293A"', T.OBJECTID, MONGODB) == "65f0a1b2c3d4e5f60718293a"
    misfit('"65f0a1b2c3d4e5f60718293"', T.OBJECTID, MONGODB)


@pytest.mark.parametrize(
    ("text", "field_type"),
    [
        ("1", T.STRING),
        ("[]", T.STRING),
        ("1.0", T.INTEGER),
        ("1e2", T.INTEGER),
        ("true", T.INTEGER),
        ('"4 2"', T.INTEGER),
        ('"+42"', T.INTEGER),
        ('"٣"', T.INTEGER),
        ('"1_000"', T.INTEGER),
        ('""', T.INTEGER),
        ("9" * 5000, T.INTEGER),
        ("12.5", T.DECIMAL),
        ("12.50", T.DECIMAL),
        ("1e2", T.DECIMAL),
        ('"NaN"', T.DECIMAL),
        ('"Infinity"', T.DECIMAL),
        ('".5"', T.DECIMAL),
        ('" 1"', T.DECIMAL),
        ('"1e9999999"', T.DECIMAL),
        ('"1e5000"', T.DECIMAL),
        ('"1e-17000"', T.DECIMAL),
        ("false", T.DECIMAL),
        ('"1.5"', T.FLOAT),
        ("1e400", T.FLOAT),
        ("0.10000000000000001", T.FLOAT),
        ("9007199254740993", T.FLOAT),
        ("1e-400", T.FLOAT),
        ("true", T.FLOAT),
        ("1", T.BOOLEAN),
        ('"true"', T.BOOLEAN),
        ('"2024-05-17T09:30:00"', T.TIMESTAMP),
        ('"2024-05-17 09:30:00Z"', T.TIMESTAMP),
        ('"2024-05-17T09:30Z"', T.TIMESTAMP),
        ('"2024-05-17T09:30:00+0200"', T.TIMESTAMP),
        ('"2024-05-17T23:59:60Z"', T.TIMESTAMP),
        ('"2024-05-17T24:00:00Z"', T.TIMESTAMP),
        ('"2024-02-30T00:00:00Z"', T.TIMESTAMP),
        ('"0000-01-01T00:00:00Z"', T.TIMESTAMP),
        ('"0001-01-01T00:00:00+01:00"', T.TIMESTAMP),
        ('"9999-12-31T23:59:59-00:01"', T.TIMESTAMP),
        ('"2024-05-17T09:30:00.1234567Z"', T.TIMESTAMP),
        ("1715938200.5", T.TIMESTAMP),
        ('"2023-02-29"', T.DATE),
        ('"0000-01-01"', T.DATE),
        ('"20240517"', T.DATE),
        ('"2024-W20-5"', T.DATE),
        ('"{0198c0de-0000-7000-8000-00000000000a}"', T.UUID),
        ('"0198c0de00007000800000000000000a"', T.UUID),
        ('"AAEC/w"', T.BINARY),
        ('"AAEC_w=="', T.BINARY),
        ('"AAEC/x=="', T.BINARY),
        ('"AA EC/w=="', T.BINARY),
        ('"é"', T.BINARY),
        ("null", T.STRING),
        ("null", T.JSON),
    ],
)
def test_f32_what_is_not_of_the_type_is_a_misfit(text: str, field_type: FieldType) -> None:
    sentence = misfit(text, field_type)
    assert sentence
    assert sentence[0].islower()
    assert not sentence.endswith(".")


def test_null_is_for_nullable_fields() -> None:
    assert read("null", T.JSON, nullable=True) is None
    assert read("null", T.STRING, nullable=True, enum=("a",), pattern="x") is None


# --- what the stores hold (F32) -------------------------------------------------------------------


def test_f32_nul_is_refused_for_postgresql_and_kept_for_mongodb() -> None:
    misfit('"a\\u0000"', T.STRING)
    assert read('"a\\u0000"', T.STRING, MONGODB) == "a\0"
    misfit('{"a":["\\u0000"]}', T.JSON)
    misfit('{"a\\u0000":1}', T.JSON)
    assert read('["\\u0000"]', T.JSON, MONGODB) == '["\\u0000"]'


def test_f32_columns_bound_integers_and_lengths_in_code_points() -> None:
    assert read("2147483647", T.INTEGER, limits=INT4) == 2**31 - 1
    misfit("2147483648", T.INTEGER, limits=INT4)
    misfit('"-2147483649"', T.INTEGER, limits=INT4)
    assert read("99", T.INTEGER, limits=Limits(precision=2, scale=0)) == 99
    misfit("100", T.INTEGER, limits=Limits(precision=2, scale=0))
    assert read('"😀😀"', T.STRING, limits=Limits(length=2)) == "😀😀"
    misfit('"abc"', T.STRING, limits=Limits(length=2))
    assert read('" a"', T.STRING, limits=Limits(length=2, padded=True)) == " a"
    misfit('"a "', T.STRING, limits=Limits(length=2, padded=True))


def test_f32_mongodb_holds_int64() -> None:
    assert read("9223372036854775807", T.INTEGER, MONGODB) == 2**63 - 1
    misfit("9223372036854775808", T.INTEGER, MONGODB)
    misfit('"-9223372036854775809"', T.INTEGER, MONGODB)


@pytest.mark.parametrize(
    ("text", "held"),
    [('"12.5"', "12.50"), ('"12"', "12.00"), ('"12.500"', "12.50"), ('"-0.0"', "0.00"),
     ('"9999999999.99"', "9999999999.99"), ('"1e3"', "1000.00"), ("0", "0.00")],
)  # fmt: skip
def test_f32_a_numeric_column_gives_decimals_its_scale(text: str, held: str) -> None:
    assert str(read(text, T.DECIMAL, limits=MONEY)) == held


@pytest.mark.parametrize("text", ['"12.505"', '"10000000000"', '"1e999999"', '"1e-999999"'])
def test_f32_too_many_digits_for_a_numeric_column(text: str) -> None:
    misfit(text, T.DECIMAL, limits=MONEY)


def test_f32_a_numeric_column_with_negative_scale() -> None:
    hundreds = Limits(precision=2, scale=-2)
    assert str(read('"9900"', T.DECIMAL, limits=hundreds)) == "9900"
    misfit('"9901"', T.DECIMAL, limits=hundreds)
    misfit('"10000"', T.DECIMAL, limits=hundreds)


def test_f32_an_unbounded_numeric_keeps_the_scale_as_written() -> None:
    assert str(read('"12.500"', T.DECIMAL)) == "12.500"
    assert str(read(f'"{"9" * 100}.{"9" * 100}"', T.DECIMAL)) == f"{'9' * 100}.{'9' * 100}"
    misfit(f'"{"9" * 131_073}"', T.DECIMAL)


@pytest.mark.parametrize(
    ("text", "held"),
    [('"12.50"', "12.50"), (f'"{"9" * 34}"', "9" * 34), ('"1e6144"', f"1.{'0' * 33}E+6144"),
     ('"1e-6176"', "1E-6176"), (f'"1{"0" * 40}"', f"1.{'0' * 33}E+40"), ('"1E+3"', "1E+3")],
)  # fmt: skip
def test_f32_decimal128_holds_34_digits(text: str, held: str) -> None:
    assert str(read(text, T.DECIMAL, MONGODB)) == held


@pytest.mark.parametrize("text", [f'"{"9" * 35}"', '"1e6145"', '"1e-6177"', f'"1.{"1" * 34}"'])
def test_f32_what_decimal128_cannot_hold(text: str) -> None:
    misfit(text, T.DECIMAL, MONGODB)


def test_f32_mongodb_dates_have_milliseconds() -> None:
    at = datetime(2024, 5, 17, 9, 30, 0, 123000, UTC)
    assert read('"2024-05-17T09:30:00.123000Z"', T.TIMESTAMP, MONGODB) == at
    misfit('"2024-05-17T09:30:00.1234Z"', T.TIMESTAMP, MONGODB)


@pytest.mark.parametrize("text", ["0.1", "1.5", "16777216", "3.4028235e38", "-0.0", "1e-45"])
def test_f32_a_real_column_takes_what_it_shows_again(text: str) -> None:
    assert read(text, T.FLOAT, limits=Limits(single_float=True)) == float(text)


@pytest.mark.parametrize("text", ["0.123456789", "16777217", "3.5e38", "1e-50"])
def test_f32_what_a_real_column_cannot_hold(text: str) -> None:
    misfit(text, T.FLOAT, limits=Limits(single_float=True))


@pytest.mark.parametrize(
    "text",
    ["0.1", "9223372036854775807", "-9223372036854775808", "1e300", "100000000000000000000",
     "1.50", "-0", "[1.0,{}]", '{"":1}', '{"a$":1}', '"$a.b"'],
)  # fmt: skip
def test_f32_json_that_mongodb_holds(text: str) -> None:
    assert read(text, T.JSON, MONGODB) == text


@pytest.mark.parametrize(
    "text",
    ["9223372036854775809", "9223372036854775808", "0.10000000000000001", "1e400", "[[1e-400]]",
     "12345678901234567890123", '{"$a":1}', '[{"a.b":1}]', '{"a":{"b\\u0000":1}}'],
)  # fmt: skip
def test_f32_json_that_mongodb_cannot_hold(text: str) -> None:
    misfit(text, T.JSON, MONGODB)


def test_f32_postgresql_json_takes_any_number_up_to_numeric() -> None:
    for text in ("9223372036854775809", "0.10000000000000001", "1e400", "1e-400", "1e131071"):
        assert read(text, T.JSON) == text
    for text in ("1e131072", "1e-16384", "1e99999999999999999999999", f"[{'1e131071,' * 9}1]"):
        misfit(text, T.JSON)


# --- the field's own bounds -----------------------------------------------------------------------


def test_bounds_of_the_mapping() -> None:
    assert read('"0"', T.DECIMAL, min=Decimal(0), max=Decimal(5)) == 0
    assert "min" in misfit('"-0.01"', T.DECIMAL, min=Decimal(0), max=Decimal(5))
    assert "max" in misfit('"5.01"', T.DECIMAL, min=Decimal(0), max=Decimal(5))
    assert read('"a"', T.STRING, enum=("a", "b")) == "a"
    assert "enum" in misfit('"c"', T.STRING, enum=("a", "b"))
    assert "max_length" in misfit('"😀😀😀"', T.STRING, max_length=2)
    assert read('{"a":1.0}', T.JSON, enum=(JsonText('{"a":1}'),)) == '{"a":1.0}'
    misfit('{"a":2}', T.JSON, enum=(JsonText('{"a":1}'),))


def test_a_pattern_must_match_the_whole_value() -> None:
    assert read('"abc"', T.STRING, pattern="[a-c]+") == "abc"
    assert "pattern" in misfit('"abcd"', T.STRING, pattern="[a-c]+")
    assert "pattern" in misfit('"abc\\n"', T.STRING, pattern="[a-c]+$")
    assert "too long" in misfit(f'"{"a" * 10_001}"', T.STRING, pattern="a+")


def test_f22_operands_are_judged_by_type_only() -> None:
    assert read_operand(T.STRING, "a\0") == "a\0"
    assert read_operand(T.INTEGER, 2**80) == 2**80
    assert read_operand(T.DECIMAL, "1.23456789") == Decimal("1.23456789")
    assert read_operand(T.DECIMAL, None) is None
    assert read_operand(T.FLOAT, JsonNumber("0.10000000000000001")) == 0.1
    with pytest.raises(Misfit):
        read_operand(T.INTEGER, "x")


def test_f23_increments_are_judged_by_type_and_store_not_by_bounds() -> None:
    read_delta = delta_reader(
        field("f", T.DECIMAL, min=Decimal(0), nullable=True, limits=MONEY), POSTGRESQL
    )
    assert str(read_delta("-12.5")) == "-12.50"
    for wrong in (None, "0.001", 1.5, {"$ref": "0.key"}):
        with pytest.raises(Misfit):
            read_delta(wrong)
