"""Strict JSON against a slow, plain reference."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.domain.json_scan import Scan
from coordinator.domain.json_text import BrokenJson, JsonFault, JsonNumber, Parsed, parse
from coordinator.domain.json_value import native, same_json

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBER_TEXTS = st.one_of(
    st.integers().map(str),
    st.integers(-(10**30), 10**30).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(allow_nan=False, allow_infinity=False).map(lambda each: f"{each:E}".lower()),
    st.sampled_from(["-0", "-0.0", "1E5", "1.50", "0e0", "1e400", "-1e-400", "1e16"]),
)
SPACE = st.sampled_from(["", "", " ", "\n", "\t \r"])


@st.composite
def documents(draw: st.DrawFn, depth: int = 3) -> str:
    """JSON texts as many hands write them: odd white space, escapes, member orders and numbers."""
    kind = draw(st.integers(0, 5 if depth else 3))
    if kind == 0:
        text = draw(NUMBER_TEXTS)
    elif kind in (1, 2):
        text = json.dumps(draw(TEXTS), ensure_ascii=draw(st.booleans()))
    elif kind == 3:
        text = draw(st.sampled_from(["true", "false", "null"]))
    elif kind == 4:
        items = draw(st.lists(documents(depth - 1), max_size=4))
        text = "[" + ",".join(items) + "]"
    else:
        names = draw(st.lists(TEXTS, max_size=4))
        members = [
            f"{json.dumps(name)}{draw(SPACE)}:{draw(documents(depth - 1))}" for name in names
        ]
        text = "{" + ",".join(members) + "}"
    return f"{draw(SPACE)}{text}{draw(SPACE)}"


class Twice(Exception):
    pass


def attempt(text: str) -> Parsed | JsonFault:
    try:
        return parse(text.encode())
    except BrokenJson as broken:
        return broken.fault


def reference(text: str) -> Any:
    """The standard library with every number as its text."""

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) < len(pairs):
            raise Twice
        return dict(pairs)

    return json.loads(text, object_pairs_hook=members, parse_int=JsonNumber, parse_float=JsonNumber)


def plain(value: Any) -> Any:
    """What `parse` gave, with every number as its text."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, float) or type(value) is int:
        return JsonNumber(orjson.dumps(value).decode())
    return value


def reference_canonical(value: Any) -> str:
    if isinstance(value, dict):
        members = (
            f"{json_string(name)}:{reference_canonical(value[name])}" for name in sorted(value)
        )
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(reference_canonical, value)) + "]"
    if isinstance(value, JsonNumber):
        return value.text
    return json_string(value) if isinstance(value, str) else json.dumps(value)


def json_string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


@settings(max_examples=400, deadline=None)
@given(documents())
def test_parse_agrees_with_the_reference_on_values_numbers_and_canonical_form(text: str) -> None:
    try:
        expected = reference(text)
    except Twice:
        assert attempt(text) is JsonFault.DUPLICATE_MEMBER
        return
    parsed = parse(text.encode())
    assert plain(parsed.value) == expected
    assert parsed.canonical == reference_canonical(expected).encode()
    assert parse(parsed.canonical).canonical == parsed.canonical
    assert Scan(text).valid
    assert same_json(text, parsed.canonical.decode())


MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, 200), st.sampled_from(['"', "{", "]", ",", ":", "\\", "0", "e", "\x00"])
    ),
    max_size=3,
)


@settings(max_examples=400, deadline=None)
@given(documents(), MUTATIONS)
def test_the_scan_and_the_parser_agree_on_what_is_json(
    text: str, mutations: list[tuple[int, str]]
) -> None:
    for at, put in mutations:
        place = at % (len(text) + 1)
        text = text[:place] + put + text[place + at % 2 :]
    try:
        json.loads(text)
        valid = True
    except ValueError:
        valid = False
    assert Scan(text).valid == valid
    assert (attempt(text) is JsonFault.NOT_JSON) == (not valid)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_parsed_or_broken(raw: bytes) -> None:
    try:
        parsed = parse(raw)
    except BrokenJson:
        return
    assert parse(parsed.canonical).canonical == parsed.canonical


@settings(max_examples=300, deadline=None)
@given(NUMBER_TEXTS, NUMBER_TEXTS)
def test_json_numbers_are_equal_by_value(one: str, other: str) -> None:
    assert same_json(one, other) == (Decimal(one) == Decimal(other))
    scaled = f"{one}0" if "." in one and "e" not in one.lower() else one
    assert same_json(one, scaled)


@settings(max_examples=100, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1), st.lists))
def test_native_gives_the_value_back(value: Any) -> None:
    assert native(json.dumps(value)) == value
