"""BSON documents as their top-level elements, byte for byte.

Undo has to give back what stood there, and no decoding is exact for all of BSON (deprecated types,
text that is not UTF-8). So undo works on elements: a field's type byte and payload, never looked
into. Refuses to know what a value means; `values_of` decodes where somebody must.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import bson
from bson.codec_options import CodecOptions, DatetimeConversion

Elements: TypeAlias = dict[str, bytes]
"""Field name → its type byte and payload, in the document's order. Equality ignores the order."""

EXACT: Final[CodecOptions[dict[str, Any]]] = CodecOptions(
    document_class=dict,
    tz_aware=True,
    datetime_conversion=DatetimeConversion.DATETIME_MS,
    unicode_decode_error_handler="replace",
)
"""Decodes every stored document: dates of any year, uuids and old binaries as they are."""

_LENGTH: Final = 4
_FIXED: Final = {
    0x01: 8,  # double
    0x06: 0,  # undefined
    0x07: 12,  # ObjectId
    0x08: 1,  # bool
    0x09: 8,  # date
    0x0A: 0,  # null
    0x10: 4,  # int32
    0x11: 8,  # timestamp
    0x12: 8,  # int64
    0x13: 16,  # Decimal128
    0x7F: 0,  # MaxKey
    0xFF: 0,  # MinKey
}
_COUNTED_AFTER: Final = {
    0x02: 4,  # string
    0x05: 5,  # binary: length, subtype
    0x0C: 16,  # DBPointer: string, ObjectId
    0x0D: 4,  # code
    0x0E: 4,  # symbol
}
_COUNTED_WHOLE: Final = frozenset({0x03, 0x04, 0x0F})  # document, array, code with scope
_REGEX: Final = 0x0B


def elements_of(raw: bytes) -> Elements:
    """Split a document; raise `ValueError` if it is no BSON."""
    found: Elements = {}
    at, end = _LENGTH, len(raw) - 1
    while at < end:
        named = raw.index(b"\0", at + 1)
        after = _end_of(raw, raw[at], named + 1)
        name = raw[at + 1 : named].decode("utf-8", "surrogateescape")
        found[name] = raw[at : at + 1] + raw[named + 1 : after]
        at = after
    if at != end:
        raise ValueError("no BSON document")
    return found


def document_of(elements: Mapping[str, bytes]) -> bytes:
    """Join elements into a document, in their order."""
    parts = [b""]
    for name, element in elements.items():
        parts += (element[:1], name.encode("utf-8", "surrogateescape"), b"\0", element[1:])
    body = b"".join(parts)
    return (len(body) + _LENGTH + 1).to_bytes(_LENGTH, "little") + body + b"\0"


def elements_from(values: Mapping[str, Any]) -> Elements:
    """Encode BSON values."""
    return elements_of(bson.encode(values))


def values_of(elements: Mapping[str, bytes]) -> dict[str, Any]:
    """Decode elements, as exactly as `EXACT` does."""
    return bson.decode(document_of(elements), EXACT)


def _end_of(raw: bytes, kind: int, at: int) -> int:
    size = _FIXED.get(kind)
    if size is not None:
        return at + size
    if kind == _REGEX:
        return raw.index(b"\0", raw.index(b"\0", at) + 1) + 1
    counted = int.from_bytes(raw[at : at + _LENGTH], "little")
    if kind in _COUNTED_WHOLE:
        return at + counted
    extra = _COUNTED_AFTER.get(kind)
    if extra is None:
        raise ValueError(f"no BSON type 0x{kind:02x}")
    return at + extra + counted
