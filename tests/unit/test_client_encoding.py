"""What the client sends, and the digest by which it knows its outcome again."""

from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any
from uuid import UUID

import orjson
import pytest

from coordinator.client import UnitNotSendable, check, delete, insert, unit, update, upsert
from coordinator.client.encoding import encode, encode_cancel, encode_unit
from coordinator.client.operations import new_unit_id
from coordinator.client.outcome import read_outcome
from coordinator.domain import json_text
from coordinator.domain.lifecycle import Status

BYTES_MAX = 10_000


def test_values_of_the_language_become_the_contracts_strings() -> None:
    values = {
        "total": Decimal("12.50"),
        "tiny": Decimal("1E-7"),
        "photo": b"\x00\xff",
        "at": datetime(2026, 1, 2, 3, 4, 5, 678900, UTC),
        "on": date(2026, 1, 2),
        "ref": UUID(int=5),
        "big": 2**53,
    }
    assert orjson.loads(encode(values)) == {
        "total": "12.50",
        "tiny": "0.0000001",
        "photo": "AP8=",
        "at": "2026-01-02T03:04:05.678900+00:00",
        "on": "2026-01-02",
        "ref": "00000000-0000-0000-0000-000000000005",
        "big": 2**53,
    }


@pytest.mark.parametrize("value", [Decimal("12.50"), b"\x00", UUID(int=5), date(2026, 1, 2)])
def test_the_strict_encoder_writes_the_same_as_the_fast_one(value: object) -> None:
    fast = encode({"v": value})
    strict = encode({"v": value, "n": 2**70})
    assert strict == fast[:-1] + b',"n":%d}' % 2**70


def test_integers_of_any_size_are_kept() -> None:
    assert encode({"n": 10**30}) == b'{"n":1' + b"0" * 30 + b"}"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1: 1, "1": 2}])
def test_what_is_no_json_is_not_sendable(value: object) -> None:
    with pytest.raises(UnitNotSendable):
        encode_unit({"id": "u", "metadata": value, "note": None}, BYTES_MAX)


def test_text_is_sent_as_it_stands_and_its_digest_is_of_its_canonical_form() -> None:
    text = b' { "metadata": 1.0e2,  "id" : "u" } '
    encoded = encode_unit(text, BYTES_MAX)
    assert (encoded.id, encoded.value) == ("u", text)
    assert encoded.digest == sha256(b'{"id":"u","metadata":1.0e2}').hexdigest()


def test_a_mapping_and_its_text_have_one_digest() -> None:
    made = unit(insert("order", "ö", {"total": Decimal("1.10"), "n": 2**70}), id="u")
    encoded = encode_unit(made, BYTES_MAX)
    assert encode_unit(encoded.value, BYTES_MAX).digest == encoded.digest
    assert encoded.digest == sha256(json_text.parse(encoded.value).canonical).hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '"u"',
        "{}",
        '{"id": 5}',
        '{"id": ""}',
        '{"id": "a b"}',
        '{"id": "ü"}',
        '{"id": "%s"}' % ("x" * 129),
        '{"id": "u", "id": "u"}',
        '{"id": "u", "m": NaN}',
        '{"id": "u", "m": %s}' % ("[" * 64 + "]" * 64),
        '{"id": "u\n"}',
        b"\xff",
        '{"id": "u", "m": "\ud800"}',
    ],
)
def test_what_would_be_a_dead_letter_is_refused(text: str | bytes) -> None:
    with pytest.raises(UnitNotSendable):
        encode_unit(text, BYTES_MAX)


def test_the_size_is_bounded_as_the_daemons() -> None:
    text = b'{"id":"u"}'
    assert encode_unit(text, len(text)).id == "u"
    with pytest.raises(UnitNotSendable, match="10 bytes"):
        encode_unit(text, len(text) - 1)


def test_a_cancel_has_its_two_members_only() -> None:
    assert encode_cancel("u-1", None) == b'{"cancel":"u-1"}'
    assert encode_cancel("u-1", "enough") == b'{"cancel":"u-1","reason":"enough"}'
    with pytest.raises(UnitNotSendable):
        encode_cancel("", None)


def test_builders_leave_out_what_is_not_given() -> None:
    assert [
        insert("order", values={"a": 1}),
        update("account", 42, increment={"balance": "-1"}, expect={"version": 7}),
        upsert("cart", "c", {"state": "closed"}),
        delete("hold", "h", if_missing="ignore"),
        check("customer", 5, absent=True),
    ] == [
        {"op": "insert", "entity": "order", "values": {"a": 1}},
        {
            "op": "update",
            "entity": "account",
            "key": 42,
            "increment": {"balance": "-1"},
            "expect": {"version": 7},
        },
        {"op": "upsert", "entity": "cart", "key": "c", "values": {"state": "closed"}},
        {"op": "delete", "entity": "hold", "key": "h", "if_missing": "ignore"},
        {"op": "check", "entity": "customer", "key": 5, "absent": True},
    ]


def test_made_ids_are_uuids_of_version_seven_in_the_order_of_time() -> None:
    ids = [UUID(new_unit_id()) for _ in range(100)]
    assert {(made.version, made.variant) for made in ids} == {(7, "specified in RFC 4122")}
    assert [made.int >> 80 for made in ids] == sorted(made.int >> 80 for made in ids)
    assert len(set(ids)) == 100


def test_an_outcome_is_typed() -> None:
    error: dict[str, Any] = {"code": "not_found", "message": "No.", "key": 2**70, "retryable": True}
    body = {"unit": "u", "digest": "d", "status": "rejected", "duplicate": True, "error": error}
    outcome = read_outcome(encode(body))
    assert (outcome.status, outcome.duplicate, outcome.final) == (Status.REJECTED, True, True)
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.key, outcome.error.retryable) == (
        "not_found",
        2**70,
        True,
    )
    assert outcome.operations == []


@pytest.mark.parametrize("value", [b"", b"[]", b"{}", b'{"unit":"u","status":"lost"}', b"\xff"])
def test_what_is_no_outcome_is_told(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_outcome(value)
