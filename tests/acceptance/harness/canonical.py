"""The digest of a submission, made a second time from the letter of F3, sharing no product code."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class NumberText(str):
    """A JSON number, kept as it was written."""

    __slots__ = ()


def canonical(text: bytes | str) -> str:
    """Give the canonical JSON of a JSON text."""
    raw = text.decode() if isinstance(text, bytes) else text
    return _render(json.loads(raw, parse_int=NumberText, parse_float=NumberText))


def digest_of(text: bytes | str) -> str:
    """Give the hex SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(text).encode()).hexdigest()


def _render(value: Any) -> str:
    if isinstance(value, dict):
        members = sorted(value.items(), key=lambda item: [ord(c) for c in item[0]])
        return "{" + ",".join(f"{_quoted(k)}:{_render(v)}" for k, v in members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_render, value)) + "]"
    if isinstance(value, NumberText):
        return str(value)
    if isinstance(value, str):
        return _quoted(value)
    return {None: "null", True: "true", False: "false"}[value]


def _quoted(text: str) -> str:
    escaped = (_SHORT.get(c) or (f"\\u{ord(c):04x}" if c < " " else c) for c in text)
    return f'"{"".join(escaped)}"'
