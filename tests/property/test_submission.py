"""Reading never raises, whatever the bytes, and valid units are accepted (I10)."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator import signatures
from coordinator.domain.authority import Authority, Breach
from coordinator.domain.errors import error_as_json
from coordinator.domain.plan_json import plan_as_json, plan_from_json
from coordinator.domain.signing import HEADER, SignedIntake, TrustedKey, judge
from coordinator.domain.submission import (
    Cancel,
    DeadLetter,
    Reading,
    RefusedEarly,
    Submission,
    read,
    read_unauthentic,
)
from coordinator.signatures import Signer
from tests.mapping_samples import MAPPING, FixedDraw

VALID: dict[str, Any] = {
    "id": "0198c0de-0000-7000-8000-000000000001",
    "timeout_ms": 1000,
    "operations": [
        {"op": "insert", "entity": "order", "values": {"customer": {"$ref": "1.key"}}},
        {"op": "insert", "entity": "customer", "key": 5, "values": {}},
        {"op": "update", "entity": "account", "key": 42, "set": {"status": "active"},
         "unset": ["note"], "increment": {"balance": "-12.50"}, "if_missing": "ignore",
         "expect": {"version": 7, "balance": {"gte": "12.50"}},
         "compensate": {"op": "update", "set": {"status": "closed"}}},
        {"op": "upsert", "entity": "mongo_thing", "key": "t", "values": {
            "string": "s", "integer": "7", "decimal": "1.50", "float": 0.5, "boolean": True,
            "timestamp": "2024-05-17T09:30:00Z", "date": "2024-05-17", "json": {"a": [1, None]},
            "uuid": "0198c0de-0000-7000-8000-00000000000a", "binary": "AA==",
            "objectid": "65f0a1b2c3d4e5f60718293a"}},
        {"op": "delete", "entity": "order", "key": {"$ref": "0.key"}},
        {"op": "check", "entity": "pg_thing", "key": "x", "absent": True},
        {"op": "check", "entity": "pg_thing", "key": "x", "expect": {"string": {"in": ["a"]}}},
    ],
    "metadata": {"any": ["json"]},
}  # fmt: skip

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(
        ["insert", "update", "account", "order", "0.key", "2.key", "ignore", "1e5", "12.50"]
    ),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["$ref", "op", "key", "entity", "values", "eq", "in", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["content-type", "reply-to", "traceparent", "ce_id", "other"]),
        st.none()
        | st.binary(max_size=5)
        | st.sampled_from([b"application/cloudevents+json", b"replies", b"elsewhere"]),
    ),
    max_size=3,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    members = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else ()
    for name, each in (*members, *items):
        found += places(each, (*path, name))
    return found


PLACES = places(VALID)[1:]


def replaced(value: Any, path: tuple[Any, ...], new: Any, drop: bool) -> Any:
    copy = json.loads(json.dumps(value))
    at = copy
    for step in path[:-1]:
        at = at[step]
    if drop:
        del at[path[-1]]
    else:
        at[path[-1]] = new
    return copy


def read_raw(raw: bytes, headers: list[tuple[str, bytes | None]] | None = None) -> Reading:
    return read(raw, headers or (), MAPPING, 100_000, 1, frozenset({"replies"}), FixedDraw())


def check_shape(seen: Reading) -> None:
    """What holds of every reading: its parts can be journaled and published."""
    if isinstance(seen, Submission):
        assert plan_from_json(plan_as_json(seen.plan), MAPPING) == seen.plan
        assert len(seen.plan.operations) == sum(map(len, seen.plan.branches.values()))
    elif isinstance(seen, DeadLetter):
        assert seen.message.endswith(".")
        if seen.answer is not None:
            check_shape(seen.answer)
    elif isinstance(seen, RefusedEarly):
        shown = json.dumps(error_as_json(seen.problems))
        assert len(shown) < 500_000
        shown.encode()
        assert all(problem.message.endswith(".") for problem in seen.problems)
        assert seen.reply_to in (None, "replies")
    else:
        assert isinstance(seen, Cancel)


def test_the_valid_unit_is_valid() -> None:
    seen = read_raw(json.dumps(VALID).encode())
    assert isinstance(seen, Submission), seen
    compact = json.dumps(VALID, sort_keys=True, separators=(",", ":")).encode()
    assert seen.digest == sha256(compact).hexdigest()
    check_shape(seen)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), HEADERS)
def test_i10_any_bytes_are_read(raw: bytes, headers: list[tuple[str, bytes | None]]) -> None:
    check_shape(read_raw(raw, headers))


@settings(max_examples=1200, deadline=None)
@given(st.sampled_from(PLACES), TREES, st.booleans(), HEADERS)
def test_i10_a_unit_with_one_place_changed_is_read(
    path: tuple[Any, ...], new: Any, drop: bool, headers: list[tuple[str, bytes | None]]
) -> None:
    check_shape(read_raw(json.dumps(replaced(VALID, path, new, drop)).encode(), headers))


@settings(max_examples=300, deadline=None)
@given(TREES, HEADERS)
def test_i10_any_json_is_read_as_operations(
    tree: Any, headers: list[tuple[str, bytes | None]]
) -> None:
    check_shape(read_raw(json.dumps({"id": "u", "operations": [tree, tree]}).encode(), headers))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_i10_a_unit_with_bytes_changed_is_read(data: st.DataObject) -> None:
    raw = bytearray(json.dumps(VALID).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    check_shape(read_raw(bytes(raw)))


SIGNER = Signer(b"\x05" * 32, "k", "units")
SIGNED = SignedIntake(
    "units", 3_600, 30, {"k": TrustedKey(SIGNER.public_key, Authority())}, signatures.verify
)
WORDS = st.sampled_from(
    ["v1", "v2", "k", "units", "0", "1000", "1900", "01", "-", "\u00e9", "\n", "", "A" * 86 + "=="]
)
SIGNATURES = (
    st.none()
    | st.binary(max_size=100)
    | st.lists(WORDS, min_size=4, max_size=7).map(lambda words: " ".join(words).encode())
)


@given(st.binary(max_size=60), st.none() | st.binary(max_size=9), HEADERS, SIGNATURES)
def test_no_signature_is_taken_that_the_key_did_not_make_and_none_is_too_odd(
    raw: bytes, key: bytes | None, headers: list[tuple[str, bytes | None]], signature: bytes | None
) -> None:
    breach = judge(SIGNED, key, [*headers, (HEADER, signature)], raw, 1_000)
    assert isinstance(breach, Breach)
    seen = read_unauthentic(raw, headers, 50, breach)
    check_shape(seen)
    assert not isinstance(seen, DeadLetter) or seen.answer is None


@given(st.binary(max_size=60), st.none() | st.binary(max_size=9), HEADERS, st.data())
def test_one_changed_byte_of_what_is_signed_is_a_forgery(
    raw: bytes, key: bytes | None, headers: list[tuple[str, bytes | None]], data: st.DataObject
) -> None:
    signed = [*headers, SIGNER.header(key, headers, raw, 1_000)]
    assert isinstance(judge(SIGNED, key, signed, raw, 1_000), TrustedKey)
    position = data.draw(st.integers(0, len(raw)))
    changed = raw[:position] + data.draw(st.binary(min_size=1, max_size=1)) + raw[position + 1 :]
    if changed != raw:
        assert judge(SIGNED, key, signed, changed, 1_000) is Breach.FORGED
    other = data.draw(st.none() | st.binary(max_size=9))
    if other != key:
        assert judge(SIGNED, other, signed, raw, 1_000) is Breach.FORGED
    for name in ("content-type", "reply-to"):
        content = data.draw(st.none() | st.binary(max_size=9))
        if content != dict(headers).get(name):
            assert judge(SIGNED, key, [*signed, (name, content)], raw, 1_000) is Breach.FORGED
