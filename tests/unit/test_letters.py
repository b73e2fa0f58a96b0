"""Dead letters read back: the inverse of making one, and nothing believed that is not ours."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.domain.letters import Letter, Place, letter_of, shown
from coordinator.engine.dead_letters import dead_letter
from coordinator.engine.ports import Record

ORIGIN = Place("units", 3, 41, 1_700_000_000_123)


def made_of(record: Record) -> Letter:
    message = dead_letter(record, "units-dlt", "malformed", "It is not JSON: é.")
    return letter_of(1, 7, 99, message.key, message.value, message.headers)


@pytest.mark.parametrize(
    "record",
    [
        Record(*ORIGIN, None, None, ()),
        Record(*ORIGIN, b"\xff\x00", b"\x00\xfe", (("a", None), ("a", b"\xff"))),
        # It was a dead letter before, and was put back with its headers by somebody else.
        Record(
            *ORIGIN, b"k", b"v", dead_letter(Record(*ORIGIN, b"k", b"v", ()), "", "", "").headers
        ),
    ],
)
def test_a_letter_gives_its_record_back_byte_for_byte(record: Record) -> None:
    letter = made_of(record)
    assert (letter.key, letter.value, letter.headers) == (record.key, record.value, record.headers)
    assert (letter.origin, letter.code, letter.id) == (ORIGIN, "malformed", "1/7")


GOOD = [
    (f"coordinator.errors.{name}", content)
    for name, content in [
        ("topic", b"units"),
        ("partition", b"3"),
        ("offset", b"41"),
        ("timestamp", b"-1"),
        ("code", b"malformed"),
        ("message", b"m"),
    ]
]


def _with(at: int, content: bytes | None) -> list[Any]:
    return [*GOOD[:at], (GOOD[at][0], content), *GOOD[at + 1 :]]


def test_a_time_that_kafka_does_not_know_is_no_obstacle() -> None:
    assert letter_of(0, 0, 0, None, None, GOOD).origin == Place("units", 3, 41, -1)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        GOOD[:5],
        [*GOOD, ("later", b"")],
        list(reversed(GOOD)),
        _with(0, b""),
        _with(0, None),
        _with(0, b"\xff"),
        _with(1, b"x"),
        _with(1, b"2147483648"),
        _with(2, b"9223372036854775808"),
        _with(2, "٣".encode()),
        _with(3, b"1e9"),
    ],
)
def test_what_is_no_letter_of_ours_is_shown_and_names_no_place(headers: list[Any]) -> None:
    letter = letter_of(0, 5, 0, b"k", b"v", headers)
    assert (letter.origin, letter.code) == (None, None)
    assert letter.headers == tuple(headers)
    assert shown(letter)["origin"] is None


@pytest.mark.parametrize(
    ("value", "limit", "expected"),
    [
        (b"abc", 3, {"text": "abc", "cut": False}),
        (b"abc", 2, {"text": "ab", "cut": True}),
        ("aé".encode(), 2, {"text": "a", "cut": True}),  # the cut goes through a character
        ("aé".encode()[:2], 9, {"base64": "YcM=", "cut": False}),  # it was like that
        (b"\x1b[2J", 9, {"base64": "G1sySg==", "cut": False}),  # would clear the terminal
        (b"\xff\xfe\xfd", 2, {"base64": "//4=", "cut": True}),
        (b"", 9, {"text": "", "cut": False}),
        (None, 9, None),
    ],
)
def test_values_are_shown_cut_and_only_when_asked_for(
    value: bytes | None, limit: int, expected: object
) -> None:
    letter = made_of(Record(*ORIGIN, None, value, ()))
    assert shown(letter, limit)["value"] == expected
    assert "value" not in shown(letter)
    assert shown(letter)["value_bytes"] == (None if value is None else len(value))
