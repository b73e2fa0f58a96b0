"""Strict JSON: the only way from bytes to values, and the canonical form behind every digest.

Owns what F1 calls broken and what F3 calls the same content. Refuses what parsers usually let
pass: a repeated member, NaN, lost digits, unbounded nesting, lone surrogates, a byte order mark.

There are two roads. orjson reads fast, but lets the last of two equal members win and rounds
long numbers. So what it read is written again: if that gives the input back (white space aside)
then nothing was dropped and no number changed its text. All else goes the slow road: the standard
library with hooks that see every member and every number's text. Its scanner recurses, so the
depth is known before it starts. What is broken is read once more by `coordinator.domain.json_scan`,
which does not recurse, to find out whether the sender's ``id`` can still be told (F1).
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import Any, Final, NamedTuple, NoReturn

import orjson

from coordinator.domain.json_scan import Scan

DEPTH_MAX: Final = 64
"""Nested containers at most, the outermost being 1 (F1)."""


class JsonFault(StrEnum):
    """What is wrong with a text; the value ends the sentence "the value ..."."""

    NOT_UTF8 = "is not UTF-8"
    NOT_JSON = "is not JSON"
    DUPLICATE_MEMBER = "has a member twice in one object"
    NOT_A_NUMBER = "holds NaN or Infinity, which JSON does not know"
    TOO_DEEP = "is nested too deep"
    LONE_SURROGATE = "holds half of a surrogate pair"


RECOVERABLE_FAULTS: Final = frozenset(
    {JsonFault.DUPLICATE_MEMBER, JsonFault.NOT_A_NUMBER, JsonFault.TOO_DEEP}
)
"""JSON but for this: a sender's id may still be read (F1)."""


class BrokenJson(Exception):
    """The text is not strict JSON, for ``fault``. ``text`` is set if the fault is recoverable."""

    def __init__(self, fault: JsonFault, text: str | None = None) -> None:
        super().__init__(fault.value)
        self.fault = fault
        self.text = text


class JsonNumber:
    """A number that neither ``int`` nor ``float`` keeps as it was written; ``text`` does."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JsonNumber) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"JsonNumber({self.text!r})"


class Parsed(NamedTuple):
    """A value of dict, list, str, int, float, bool, None, `JsonNumber`; and its F3 form."""

    value: Any
    canonical: bytes


def parse(raw: bytes, depth_max: int = DEPTH_MAX) -> Parsed:
    """Read strict JSON; raise `BrokenJson` for anything else, and nothing but that."""
    try:
        value = orjson.loads(raw)
        again = orjson.dumps(value)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return _parse_slowly(raw, depth_max)
    # Deleting white space inside strings as well is sound: it changes neither the number of
    # members nor a digit, and those are what the comparison is after.
    if again != raw and again.translate(None, _SPACE) != raw.translate(None, _SPACE):
        return _parse_slowly(raw, depth_max)
    if not is_shallow(raw, depth_max):
        raise BrokenJson(JsonFault.TOO_DEEP, raw.decode())
    return Parsed(value, orjson.dumps(value, option=orjson.OPT_SORT_KEYS))


def canonical(value: Any) -> bytes:
    """Write a parsed value in its F3 form."""
    return orjson.dumps(value, default=_number_text, option=orjson.OPT_SORT_KEYS)


def compact(value: Any) -> bytes:
    """Write a parsed value without white space, members in their written order."""
    return orjson.dumps(value, default=_number_text)


_SPACE: Final = b" \t\n\r"
# The closing quote may be missing: a string that is never closed is taken to its end as well, or
# every escaped quote in it would be tried as the beginning of one, each up to the end again.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_PARENTHESES: Final = bytes.maketrans(b"[{]}", b"(())")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[{]}"))


def is_shallow(raw: bytes, depth_max: int) -> bool:
    """Say whether every bracket has its partner and at most ``depth_max`` are nested.

    Each round takes away the innermost pairs, so the rounds are the depth.
    """
    if raw.count(b"{") + raw.count(b"[") <= depth_max:
        return True
    brackets = _STRING.sub(b"", raw).translate(_PARENTHESES, _NO_BRACKETS)
    for _ in range(depth_max):
        if not brackets:
            return True
        brackets = brackets.replace(b"()", b"")
    return not brackets


# --- the slow road ------------------------------------------------------------------------------


def _parse_slowly(raw: bytes, depth_max: int) -> Parsed:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise BrokenJson(JsonFault.NOT_UTF8) from error
    if text.startswith("\ufeff"):
        raise BrokenJson(JsonFault.NOT_JSON)
    if not is_shallow(raw, depth_max):
        _raise_judged(text, JsonFault.TOO_DEEP)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise BrokenJson(JsonFault.NOT_JSON) from error
    except _Found as found:
        _raise_judged(text, found.fault)
    try:
        return Parsed(value, canonical(value))
    except orjson.JSONEncodeError as error:
        raise BrokenJson(JsonFault.LONE_SURROGATE) from error


def _raise_judged(text: str, fault: JsonFault) -> NoReturn:
    """Raise ``fault`` only if the rest is JSON: what stopped the parser may not be all."""
    scan = Scan(text)
    if not scan.valid:
        raise BrokenJson(JsonFault.NOT_JSON)
    if scan.lone_surrogate:
        raise BrokenJson(JsonFault.LONE_SURROGATE)
    raise BrokenJson(fault, text)


class _Found(Exception):
    def __init__(self, fault: JsonFault) -> None:
        super().__init__(fault.value)
        self.fault = fault


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Found(JsonFault.DUPLICATE_MEMBER)
    return members


_SHORT_DIGITS: Final = 18
_INTEGER_MIN: Final = -(2**63)
_INTEGER_MAX: Final = 2**64 - 1
_INTEGER_DIGITS: Final = 20


def _integer(text: str) -> int | JsonNumber:
    if len(text) <= _SHORT_DIGITS:
        return JsonNumber(text) if text == "-0" else int(text)
    if len(text) <= _INTEGER_DIGITS:
        value = int(text)
        if _INTEGER_MIN <= value <= _INTEGER_MAX:
            return value
    return JsonNumber(text)


def _fraction(text: str) -> float | JsonNumber:
    value = float(text)
    return value if orjson.dumps(value) == text.encode() else JsonNumber(text)


def _constant(_: str) -> NoReturn:
    raise _Found(JsonFault.NOT_A_NUMBER)


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_members,
    parse_int=_integer,
    parse_float=_fraction,
    parse_constant=_constant,
)


def _number_text(value: Any) -> Any:
    if isinstance(value, JsonNumber):
        return orjson.Fragment(value.text)
    raise TypeError(f"{type(value).__name__} is no JSON value")
