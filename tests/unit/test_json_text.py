"""Strict JSON and its canonical form (F1, F3)."""

from __future__ import annotations

import json

import pytest

from coordinator.domain.json_scan import recover_strings
from coordinator.domain.json_text import BrokenJson, JsonFault, JsonNumber, compact, parse


def fault_of(raw: bytes) -> JsonFault:
    with pytest.raises(BrokenJson) as caught:
        parse(raw)
    return caught.value.fault


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"\xff", JsonFault.NOT_UTF8),
        (b'"\xed\xa0\x80"', JsonFault.NOT_UTF8),
        (b"", JsonFault.NOT_JSON),
        (b"  ", JsonFault.NOT_JSON),
        (b"\xef\xbb\xbf{}", JsonFault.NOT_JSON),
        (b"{}{}", JsonFault.NOT_JSON),
        (b"[1,]", JsonFault.NOT_JSON),
        (b"{'a':1}", JsonFault.NOT_JSON),
        (b"[01]", JsonFault.NOT_JSON),
        (b"[1.]", JsonFault.NOT_JSON),
        (b"[+1]", JsonFault.NOT_JSON),
        (b'["a\x01"]', JsonFault.NOT_JSON),
        (b"[" * 5000, JsonFault.NOT_JSON),
        (b"[\xc2\xa01]", JsonFault.NOT_JSON),
        ("[٣]".encode(), JsonFault.NOT_JSON),
        (b'{"a":1,"a":1}', JsonFault.DUPLICATE_MEMBER),
        (b'{"a":1, "\\u0061":2}', JsonFault.DUPLICATE_MEMBER),
        (b'[{"b":{"a":1,"a":2}}]', JsonFault.DUPLICATE_MEMBER),
        (b"[NaN]", JsonFault.NOT_A_NUMBER),
        (b"[-Infinity]", JsonFault.NOT_A_NUMBER),
        (b"[" * 65 + b"]" * 65, JsonFault.TOO_DEEP),
        (b'{"a":' * 65 + b"1" + b"}" * 65, JsonFault.TOO_DEEP),
        (b"[" * 200_000 + b"]" * 200_000, JsonFault.TOO_DEEP),
        (b'"\\ud800"', JsonFault.LONE_SURROGATE),
        (b'{"\\udc00":1}', JsonFault.LONE_SURROGATE),
        (b'{"a":1,"a":"\\ud800"}', JsonFault.LONE_SURROGATE),
        (b'{"a":1,"a":2', JsonFault.NOT_JSON),
        (b"[NaN", JsonFault.NOT_JSON),
        (b"[" * 70 + b"}" * 70, JsonFault.NOT_JSON),
    ],
)
def test_f1_broken_texts_are_told_apart(raw: bytes, fault: JsonFault) -> None:
    assert fault_of(raw) is fault


def test_f1_depth_64_is_allowed_and_brackets_in_strings_do_not_count() -> None:
    parse(b"[" * 64 + b"]" * 64)
    parse(json.dumps({"a": "[" * 100 + '\\"' + "{" * 100}).encode())
    parse(json.dumps({"a": [[]] * 100}).encode())
    with pytest.raises(BrokenJson):
        parse(b"[" * 64 + b"]" * 64, 63)


def test_surrogate_pairs_and_an_escaped_backslash_before_u_are_fine() -> None:
    assert parse(b'["\\ud83d\\ude00","\\\\ud800"]').value == ["😀", "\\ud800"]


def test_numbers_keep_their_text_where_python_numbers_would_not() -> None:
    texts = ["1.50", "-0", "1E5", "1e400", "1e-07", "12345678901234567890123", "9" * 5000]
    value = parse(f"[{','.join(texts)}]".encode()).value
    assert value == [JsonNumber(text) for text in texts]
    assert parse(b"[18446744073709551615,-9223372036854775808]").value == [2**64 - 1, -(2**63)]
    assert compact(value) == f"[{','.join(texts)}]".encode()


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        (b' { "b" : 1 , "a" : [ 1 , 2 ] } ', b'{"a":[1,2],"b":1}'),
        (b'{"b":1.0,"a":1.00,"c":1e5,"d":-0}', b'{"a":1.00,"b":1.0,"c":1e5,"d":-0}'),
        (b'"\\u0041\\/\\u00e9"', '"A/é"'.encode()),
        (b'"\\u0008\\u000c\\n\\r\\t\\u0001\\u001f\x7f"', b'"\\b\\f\\n\\r\\t\\u0001\\u001f\x7f"'),
        (b'"\\u2028\\ud83d\\ude00"', '"\u2028😀"'.encode()),
        ('{"\U0001f600":1,"\uffff":2}'.encode(), '{"\uffff":2,"\U0001f600":1}'.encode()),
    ],
)
def test_f3_canonical_form(raw: bytes, canonical: bytes) -> None:
    assert parse(raw).canonical == canonical
    assert parse(canonical).canonical == canonical


def test_f3_orjson_escapes_exactly_what_the_contract_lists() -> None:
    """The fast road leaves the escapes to orjson, so each code point below 0x80 is looked at."""
    short = {8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}
    for code in range(0x80):
        written = short.get(code) or (f"\\u{code:04x}" if code < 0x20 else chr(code))
        assert parse(json.dumps([chr(code)]).encode()).canonical == f'["{written}"]'.encode()


@pytest.mark.parametrize(
    ("raw", "path", "found"),
    [
        (b'{"id":"x","a":1,"a":2}', ("id",), ["x"]),
        (b'{"a":1,"a":2,"\\u0069d":"x"}', ("id",), ["x"]),
        (b'{"id":"x","id":"x"}', ("id",), ["x", "x"]),
        (b'{"id":7,"a":NaN}', ("id",), [None]),
        (b'{"id":{"id":"y"},"a":NaN}', ("id",), [None]),
        (b'{"a":{"id":"y"},"b":NaN}', ("id",), []),
        (b'[{"id":"y","b":NaN}]', ("id",), []),
        (b'{"b":[[{"id":"y"}],NaN],"id":"z"}', ("id",), ["z"]),
        (b'{"data":{"id":"y","a":NaN},"id":"e"}', ("data", "id"), ["y"]),
        (b'{"data":{"id":"y"},"data":{}}', ("data", "id"), []),
        (b'{"data":[{"id":"y"}],"a":NaN}', ("data", "id"), []),
        (b'{"id":"x","a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", ("id",), ["x"]),
    ],
)
def test_f1_an_id_is_found_in_what_is_json_but_for_a_recoverable_fault(
    raw: bytes, path: tuple[str, ...], found: list[str | None]
) -> None:
    with pytest.raises(BrokenJson) as caught:
        parse(raw)
    assert caught.value.text is not None
    assert recover_strings(caught.value.text, path) == found


@pytest.mark.parametrize("raw", [b'{"id":"x"', b'{"id":"x","a":"\\ud800"}', b'{"id":"x"}\xff'])
def test_f1_nothing_is_recovered_from_what_is_no_json(raw: bytes) -> None:
    with pytest.raises(BrokenJson) as caught:
        parse(raw)
    assert caught.value.text is None
