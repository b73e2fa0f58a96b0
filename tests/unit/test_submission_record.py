"""Records: dead letter, early refusal, cancel or unit (F1, F2, F3, F8, F12, F40, F42)."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest

from coordinator.domain.submission import (
    Cancel,
    DeadLetter,
    Reading,
    RefusedEarly,
    Submission,
    read,
)
from tests.mapping_samples import MAPPING, FixedDraw

Headers = tuple[tuple[str, bytes | None], ...]
DELETE: dict[str, Any] = {"op": "delete", "entity": "customer", "key": 5}
STRUCTURED: Headers = (("content-type", b"Application/CloudEvents+JSON; charset=utf-8"),)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def read_raw(raw: bytes | None, headers: Headers = (), max_bytes: int = 10_000) -> Reading:
    return read(raw, headers, MAPPING, max_bytes, 30_000, frozenset({"replies"}), FixedDraw())


def read_json(value: Any, headers: Headers = ()) -> Reading:
    return read_raw(json.dumps(value).encode(), headers)


def unit(**members: Any) -> dict[str, Any]:
    return {"id": "u-1", "operations": [DELETE], **members}


def submission_of(value: Any, headers: Headers = ()) -> Submission:
    seen = read_json(value, headers)
    assert isinstance(seen, Submission), seen
    return seen


def refusal_of(value: Any, headers: Headers = ()) -> RefusedEarly:
    seen = read_json(value, headers)
    assert isinstance(seen, RefusedEarly), seen
    return seen


def dead_letter_of(raw: bytes | None, headers: Headers = ()) -> DeadLetter:
    seen = read_raw(raw, headers)
    assert isinstance(seen, DeadLetter), seen
    return seen


# --- F1 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [None, b"", b" ", b"\xff", b"{", b"[]", b'"x"', b"null", b"{}", b'{"id":""}', b'{"id":5}',
     b'{"id":"a b"}', b'{"id":"\\u00e9"}', b'{"id":"a\\n"}', b'{"id":null,"operations":[]}',
     b'{"id":"u","x":"\\ud800"}', b'{"id":"u","id":"u"}', b'{"id":5,"a":NaN}',
     b'[{"id":"u","a":NaN}]', b'{"id":"u","a":1,"a":2'],
)  # fmt: skip
def test_f1_what_is_no_unit_is_a_dead_letter_without_an_answer(raw: bytes | None) -> None:
    letter = dead_letter_of(raw)
    assert letter.code == "malformed"
    assert letter.message.endswith(".")
    assert letter.answer is None


@pytest.mark.parametrize(
    "raw",
    [b'{"id":"u-1","a":1,"a":2}', b'{"id":"u-1","a":[NaN]}',
     b'{"id":"u-1","a":' + b"[" * 64 + b"]" * 64 + b"}"],
)  # fmt: skip
def test_f1_a_recoverable_unit_is_answered_as_well(raw: bytes) -> None:
    letter = dead_letter_of(raw, (("reply-to", b"replies"), ("traceparent", TRACEPARENT.encode())))
    answer = letter.answer
    assert letter.code == "malformed"
    assert answer is not None
    assert (answer.id, answer.digest, answer.metadata) == ("u-1", None, None)
    assert (answer.reply_to, answer.traceparent) == ("replies", TRACEPARENT)
    assert [problem.code for problem in answer.problems] == ["malformed"]
    forbidden = dead_letter_of(raw, (("reply-to", b"elsewhere"),)).answer
    assert forbidden is not None
    assert forbidden.reply_to is None


def test_f1_depth_counts_from_the_submission() -> None:
    nested: Any = 1
    for _ in range(63):
        nested = [nested]
    submission_of(unit(metadata=nested))
    assert isinstance(read_json(unit(metadata=[nested])), DeadLetter)
    submission_of({"specversion": "1.0", "data": unit(metadata=nested)}, STRUCTURED)
    seen = read_json({"specversion": "1.0", "data": unit(metadata=[nested])}, STRUCTURED)
    assert isinstance(seen, DeadLetter)
    assert seen.answer is not None


def test_f1_too_large_is_a_dead_letter_and_nothing_is_read() -> None:
    raw = json.dumps(unit()).encode()
    assert isinstance(read_raw(raw, max_bytes=len(raw)), Submission)
    letter = read_raw(raw, max_bytes=len(raw) - 1)
    assert isinstance(letter, DeadLetter)
    assert (letter.code, letter.answer) == ("too_large", None)


@pytest.mark.parametrize("unit_id", ["!", "~" * 128, '"', "a/b:c"])
def test_f1_ids_are_1_to_128_printable_ascii_characters(unit_id: str) -> None:
    assert submission_of(unit(id=unit_id)).id == unit_id
    assert isinstance(read_json(unit(id=unit_id + "x" * 128)), DeadLetter)


# --- F3 ------------------------------------------------------------------------------------------


def test_f3_the_digest_is_that_of_the_canonical_submission() -> None:
    raw = b' {"operations": [{"key": 5, "op":"delete", "entity":"customer"}], "id":"u-1"} '
    canonical = b'{"id":"u-1","operations":[{"entity":"customer","key":5,"op":"delete"}]}'
    seen = read_raw(raw, (("x", b"y"), ("ce_id", b"z")))
    assert isinstance(seen, Submission)
    assert seen.digest == sha256(canonical).hexdigest()
    wrapped = {"specversion": "1.0", "id": "other", "data": json.loads(raw)}
    assert submission_of(wrapped, STRUCTURED).digest == seen.digest


def test_f3_numbers_count_by_their_text() -> None:
    digests = {
        read_raw(b'{"id":"u","operations":[{"op":"delete","entity":"customer","key":5}],'
                 b'"metadata":' + text + b"}").digest  # type: ignore[union-attr]
        for text in (b"1", b"1.0", b"1.00", b"1e0", b"1E0")
    }  # fmt: skip
    assert len(digests) == 5


# --- the unit's own members ---------------------------------------------------------------------


def test_a_valid_unit() -> None:
    headers = (("reply-to", b"replies"), ("traceparent", TRACEPARENT.encode()), ("other", None))
    seen = submission_of(unit(timeout_ms=5, metadata={"b": 1.5, "a": [None]}), headers)
    assert (seen.id, seen.timeout_ms) == ("u-1", 5)
    assert seen.metadata == b'{"b":1.5,"a":[null]}'
    assert (seen.reply_to, seen.traceparent) == ("replies", TRACEPARENT)
    assert [each.key for each in seen.plan.operations] == [5]


def test_what_is_left_out_of_a_unit_has_its_default() -> None:
    seen = submission_of(unit())
    assert (seen.timeout_ms, seen.metadata, seen.reply_to, seen.traceparent) == (
        30_000, None, None, None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("members", "path"),
    [
        ({"timeout_ms": 0}, "timeout_ms"),
        ({"timeout_ms": 86_400_001}, "timeout_ms"),
        ({"timeout_ms": "5"}, "timeout_ms"),
        ({"timeout_ms": True}, "timeout_ms"),
        ({"timeout_ms": 5.0}, "timeout_ms"),
        ({"timeout_ms": None}, "timeout_ms"),
        ({"metadata": None}, "metadata"),
        ({"comment": "x"}, "comment"),
        ({"reason": "x"}, "reason"),
        ({"operations": []}, "operations"),
        ({"operations": None}, "operations"),
        ({"operations": {}}, "operations"),
        ({"operations": [DELETE] * 101}, "operations"),
    ],
)
def test_f26_f42_a_unit_is_refused_for_its_own_members(members: dict[str, Any], path: str) -> None:
    refusal = refusal_of(unit(**members))
    assert [(each.code, each.path, each.operation) for each in refusal.problems] == [
        ("invalid", path, None)
    ]
    assert refusal.id == "u-1"
    assert refusal.digest is not None


def test_f26_100_operations_are_allowed() -> None:
    assert len(submission_of(unit(operations=[DELETE] * 100)).plan.operations) == 100


def test_f10_an_early_refusal_keeps_metadata_and_answers_the_reply_topic() -> None:
    headers = (("reply-to", b"replies"), ("traceparent", TRACEPARENT.encode()))
    refusal = refusal_of(unit(timeout_ms=0, metadata={"a": 1}), headers)
    assert (refusal.metadata, refusal.reply_to, refusal.traceparent) == (
        b'{"a":1}', "replies", TRACEPARENT,
    )  # fmt: skip


# --- F8 ------------------------------------------------------------------------------------------


def test_f8_a_cancel() -> None:
    assert read_json({"cancel": "u-1"}) == Cancel("u-1", None)
    headers = (("reply-to", b"replies"),)
    assert read_json({"cancel": "u-1", "reason": ""}, headers) == Cancel("u-1", "", "replies")
    assert read_json({"cancel": "u-1"}, (("reply-to", b"other"),)) == Cancel("u-1", None)
    wrapped = {"specversion": "1.0", "data": {"cancel": "u-1"}}
    assert read_json(wrapped, STRUCTURED) == Cancel("u-1", None)


@pytest.mark.parametrize(
    "value",
    [
        {"cancel": "u-1", "reason": None},
        {"cancel": "u-1", "reason": 5},
        {"cancel": "u-1", "other": 5},
        {"cancel": "u-1", "operations": []},
        {"cancel": "u-1", "id": "not an id"},
        {"cancel": None},
        {"cancel": ""},
        {"cancel": 5, "reason": "x"},
    ],
)
def test_f8_f42_a_wrong_cancel_without_an_id_is_a_dead_letter(value: Any) -> None:
    seen = read_json(value)
    assert isinstance(seen, DeadLetter)
    assert (seen.code, seen.answer) == ("malformed", None)


@pytest.mark.parametrize(
    "value",
    [{"cancel": "u-1", "id": "u-2"}, {"cancel": None, **unit(id="u-2")}],
)
def test_f8_a_cancel_with_an_id_beside_it_is_invalid(value: Any) -> None:
    refusal = refusal_of(value)
    assert refusal.id == "u-2"
    assert refusal.problems[0].code == "invalid"


# --- F12 -----------------------------------------------------------------------------------------


def test_f12_binary_mode_and_other_content_types_are_judged_as_json() -> None:
    binary: Headers = (
        ("ce_specversion", b"0.3"), ("ce_id", b"other"), ("ce_traceparent", TRACEPARENT.encode()),
        ("content-type", b"application/json"),
    )  # fmt: skip
    seen = submission_of(unit(), binary)
    assert (seen.id, seen.traceparent) == ("u-1", TRACEPARENT)
    for content_type in (b"text/xml", b"application/cloudevents-batch+json", b"\xff", None):
        assert submission_of(unit(), (("content-type", content_type),)).id == "u-1"


def test_f12_structured_mode_reads_data() -> None:
    envelope = {
        "specversion": "1.0", "id": "other", "type": "t", "data": unit(),
        "traceparent": TRACEPARENT, "any": "thing",
    }  # fmt: skip
    seen = submission_of(envelope, STRUCTURED)
    assert (seen.id, seen.traceparent) == ("u-1", TRACEPARENT)
    raw = json.dumps(envelope).replace('"op":', '"x": NaN, "op":').encode()
    answer = dead_letter_of(raw, STRUCTURED).answer
    assert answer is not None
    assert answer.id == "u-1"


@pytest.mark.parametrize(
    "envelope",
    [
        [],
        {"id": "u-1", "operations": [DELETE]},
        {"specversion": "1.0"},
        {"specversion": "1.0", "data": [unit()]},
        {"specversion": "1.0", "data": json.dumps(unit())},
        {"specversion": "1.0", "data_base64": "e30="},
        {"specversion": "0.3", "data": unit()},
        {"specversion": 1.0, "data": unit()},
        {"data": unit()},
    ],
)
def test_f12_what_is_no_envelope_is_a_dead_letter(envelope: Any) -> None:
    seen = read_json(envelope, STRUCTURED)
    assert isinstance(seen, DeadLetter)
    assert (seen.code, seen.answer) == ("malformed", None)


@pytest.mark.parametrize(
    "traceparent",
    [b"", b"x", b"\xff", TRACEPARENT.upper().encode(), b"ff" + TRACEPARENT[2:].encode(),
     b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01", None],
)  # fmt: skip
def test_a_traceparent_that_is_none_is_left_out(traceparent: bytes | None) -> None:
    assert submission_of(unit(), (("traceparent", traceparent),)).traceparent is None


# --- F40 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", [b"elsewhere", b"\xff", b" replies", b"x" * 1000])
def test_f40_a_reply_topic_that_is_not_allow_listed_is_forbidden(topic: bytes) -> None:
    refusal = refusal_of(unit(), (("reply-to", topic),))
    assert [each.code for each in refusal.problems] == ["forbidden"]
    assert refusal.reply_to is None
    assert len(refusal.problems[0].message) < 300


def test_f42_an_empty_reply_topic_counts_as_absent_and_the_last_header_counts() -> None:
    assert submission_of(unit(), (("reply-to", b""),)).reply_to is None
    assert submission_of(unit(), (("reply-to", None),)).reply_to is None
    twice = (("reply-to", b"elsewhere"), ("reply-to", b"replies"))
    assert submission_of(unit(), twice).reply_to == "replies"
    assert refusal_of(unit(), twice[::-1]).problems[0].code == "forbidden"
