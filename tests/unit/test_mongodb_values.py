"""The column "MongoDB" of the table "Values": what is written, what is read, what is an alien."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import bson
import orjson
import pytest
from bson.binary import UUID_SUBTYPE, Binary
from bson.datetime_ms import DatetimeMS
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.objectid import ObjectId
from bson.regex import Regex
from hypothesis import given
from hypothesis import strategies as st

from coordinator.domain.entity import FieldType
from coordinator.domain.json_value import JsonText
from coordinator.domain.values import Alien
from coordinator.participants.mongodb.bson_values import (
    READERS,
    WRITERS,
    decimal128_of,
    decimal_of,
    match_key,
)
from coordinator.participants.mongodb.elements import (
    EXACT,
    document_of,
    elements_from,
    elements_of,
    values_of,
)

OID = "65a1b2c3d4e5f60718293a4b"
UUID_TEXT = "0198c0de-0000-7000-8000-000000000001"

WRITTEN: list[tuple[FieldType, Any, Any]] = [
    (FieldType.STRING, "é\0x", "é\0x"),
    (FieldType.INTEGER, 42, Int64(42)),
    (FieldType.DECIMAL, Decimal("12.50"), Decimal128("12.50")),
    (FieldType.FLOAT, 0.1, 0.1),
    (FieldType.BOOLEAN, True, True),
    (
        FieldType.TIMESTAMP,
        datetime(1969, 12, 31, 23, 59, 59, 999_000, UTC),
        DatetimeMS(-1),
    ),
    (FieldType.DATE, date(2026, 1, 2), DatetimeMS(1_767_312_000_000)),
    (FieldType.UUID, UUID(UUID_TEXT), Binary(UUID(UUID_TEXT).bytes, UUID_SUBTYPE)),
    (FieldType.BINARY, b"\x00\xff", b"\x00\xff"),
    (FieldType.OBJECTID, OID, ObjectId(OID)),
]


def stored(value: Any) -> Any:
    """What a reader gets of a value that was stored."""
    return bson.decode(bson.encode({"v": value}), EXACT)["v"]


@pytest.mark.parametrize(("of_type", "value", "expected"), WRITTEN, ids=[w[0] for w in WRITTEN])
def test_what_is_written_is_read_back(of_type: FieldType, value: Any, expected: Any) -> None:
    written = WRITERS[of_type](value)
    assert type(written) is type(expected)
    assert written == expected
    assert READERS[of_type](stored(written)) == value


def test_integers_are_read_from_int32_int64_and_whole_doubles() -> None:
    assert [READERS[FieldType.INTEGER](stored(each)) for each in (7, Int64(7), 7.0)] == [7, 7, 7]


@pytest.mark.parametrize(
    ("of_type", "value", "shown"),
    [
        (FieldType.INTEGER, 7.5, 7.5),
        (FieldType.INTEGER, True, True),
        (FieldType.INTEGER, "7", "7"),
        (FieldType.INTEGER, Decimal128("7"), "7"),
        (FieldType.DECIMAL, 7, 7),
        (FieldType.DECIMAL, Decimal128("NaN"), "NaN"),
        (FieldType.DECIMAL, Decimal128("-Infinity"), "-Infinity"),
        (FieldType.FLOAT, 7, 7),
        (FieldType.STRING, ObjectId(OID), OID),
        (FieldType.STRING, Regex("a", "i"), None),
        (FieldType.BOOLEAN, 1, 1),
        (FieldType.TIMESTAMP, DatetimeMS(2**60), {"$date": {"$numberLong": str(2**60)}}),
        (FieldType.DATE, DatetimeMS(1), "1970-01-01T00:00:00.001Z"),
        (FieldType.UUID, Binary(UUID(UUID_TEXT).bytes, 3), None),
        (FieldType.BINARY, Binary(b"\1", 5), "AQ=="),
        (FieldType.OBJECTID, OID, OID),
        (FieldType.JSON, {"a": [ObjectId(OID), float("nan")]}, {"a": [OID, "NaN"]}),
    ],
)
def test_another_type_is_an_alien_that_json_can_show(  # F33
    of_type: FieldType, value: Any, shown: Any
) -> None:
    read = READERS[of_type](stored(value))
    assert isinstance(read, Alien)
    orjson.dumps(read.shown)
    if shown is not None:
        assert read.shown == shown


def test_a_stored_nan_in_a_float_field_is_a_float() -> None:
    assert READERS[FieldType.FLOAT](stored(float("inf"))) == float("inf")


def test_json_is_stored_as_int64_and_double_and_keeps_its_order() -> None:
    text = '{"b":1,"a":[2.5,"x",null,true,-9223372036854775808],"$":{"c":1e2}}'
    written = WRITERS[FieldType.JSON](JsonText(text))
    assert list(written) == ["b", "a", "$"]
    assert type(written["b"]) is Int64
    assert type(written["a"][4]) is Int64
    assert type(written["$"]["c"]) is float
    read = READERS[FieldType.JSON](stored(written))
    assert isinstance(read, JsonText)
    assert json.loads(read) == json.loads(text)


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30
    ).filter(
        lambda value: (
            len(value.as_tuple().digits) <= 34 and -6143 <= int(value.as_tuple().exponent) <= 6111
        )
    )
)
def test_decimals_are_those_of_bson_digit_for_digit(value: Decimal) -> None:
    assert decimal128_of(value).bid == Decimal128(value).bid
    assert decimal_of(Decimal128(value)).as_tuple() == Decimal128(value).to_decimal().as_tuple()


@pytest.mark.parametrize("text", ["0E+6111", "-0.00", "9" * 34, "1E-6176", "1E+6144", "-0"])
def test_decimals_at_the_edges(text: str) -> None:
    value = Decimal128(text).to_decimal()
    assert decimal128_of(value).bid == Decimal128(value).bid
    assert decimal_of(Decimal128(text)).as_tuple() == value.as_tuple()


def test_keys_match_as_mongodb_compares_them() -> None:  # F32: 42 and "42" in, 42.0 stored
    assert match_key(Int64(42)) == match_key(42.0) == match_key(Decimal128("42.0"))
    assert match_key(True) != match_key(1)
    assert match_key("42") != match_key(42)
    assert match_key(b"x") != match_key(Binary(b"x", 4))


EVERY_TYPE: dict[str, Any] = {
    "_id": 1,
    "double": 1.5,
    "string": "x\0y",
    "document": {"a": {"b": [1, {"c": None}]}},
    "array": [1, "2", 3.0],
    "binary": b"\0\1",
    "old binary": Binary(b"abc", 2),
    "uuid": Binary(bytes(16), UUID_SUBTYPE),
    "objectid": ObjectId(OID),
    "true": True,
    "date": DatetimeMS(-(2**61)),
    "null": None,
    "regex": Regex("^a\\.", "im"),
    "code": bson.Code("f()"),
    "scoped": bson.Code("f()", {"x": 1}),
    "int32": 1,
    "timestamp": bson.Timestamp(1, 2),
    "int64": Int64(1),
    "decimal": Decimal128("1.10"),
    "min": bson.MinKey(),
    "max": bson.MaxKey(),
    "": "a name may be empty",
    "$x.y": "or look like an operator",
}


def test_elements_are_the_document_byte_for_byte() -> None:
    raw = bson.encode(EVERY_TYPE)
    elements = elements_of(raw)
    assert list(elements) == list(EVERY_TYPE)
    assert document_of(elements) == raw
    assert values_of(elements) == bson.decode(raw, EXACT)


def test_elements_keep_deprecated_types_and_broken_text() -> None:
    body = b"\x0esym\0\2\0\0\0a\0" + b"\x06und\0" + b"\x0cptr\0\2\0\0\0a\0" + bytes(12)
    body += b"\x02bad\xff\0\3\0\0\0\xff\xfe\0"
    raw = (len(body) + 5).to_bytes(4, "little") + body + b"\0"
    assert len(elements_of(raw)) == 4
    assert document_of(elements_of(raw)) == raw


def test_elements_compare_by_type_and_value_but_not_by_order() -> None:
    one = elements_from({"a": 1, "b": 2})
    assert one == elements_from({"b": 2, "a": 1})
    assert one != elements_from({"a": Int64(1), "b": 2})
    assert one != elements_from({"a": 1.0, "b": 2})


@pytest.mark.parametrize("raw", [b"\7\0\0\0\x55a\0\0", b"\x09\0\0\0\x10a\0\1\0"])
def test_what_is_no_bson_is_refused(raw: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        elements_of(raw)
