"""CloudEvents around a submission, and the headers that we read (F12, F40).

Owns the question where in a record the unit is: in binary mode and in plain records it is the
value, in structured mode its ``data``. Refuses to read ``ce_id``: the id in the JSON counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple


class Headers(NamedTuple):
    """What the headers of one record say. ``reply_to`` is ``None`` when absent or empty."""

    structured: bool = False
    reply_to: str | None = None
    traceparent: str | None = None


NO_HEADERS: Final = Headers()
_STRUCTURED: Final = b"application/cloudevents+json"

_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)


def read_headers(headers: Sequence[tuple[str, bytes | None]]) -> Headers:
    """Read what concerns us; of a header that is there more than once the last counts, as in Kafka.

    A ``reply-to`` that is not UTF-8 is given with replacement characters: no topic has such a name.
    """
    last = dict(headers)
    content_type = last.get("content-type")
    reply_to = last.get("reply-to")
    return Headers(
        content_type is not None and _is_structured(content_type),
        reply_to.decode(errors="replace") if reply_to else None,
        _traceparent(last.get("traceparent")) or _traceparent(last.get("ce_traceparent")),
    )


def _is_structured(content_type: bytes) -> bool:
    return content_type.partition(b";")[0].strip().lower() == _STRUCTURED


def _traceparent(header: bytes | None) -> str | None:
    return None if header is None else traceparent_of(header.decode(errors="replace"))


def traceparent_of(given: Any) -> str | None:
    """Give a trace context as W3C writes it, else ``None``: a bad one is no reason to refuse."""
    return given if isinstance(given, str) and _TRACEPARENT.fullmatch(given) else None


class NotAnEnvelope(Exception):
    """A structured event without a submission in it; the text is a sentence."""


def unwrap(envelope: Any) -> dict[str, Any]:
    """Give the ``data`` of a structured event; raise `NotAnEnvelope`."""
    if type(envelope) is not dict:
        raise NotAnEnvelope("The structured CloudEvent is no object.")
    version = envelope.get("specversion")
    if not isinstance(version, str) or not version.startswith("1."):
        raise NotAnEnvelope("The structured CloudEvent is not of specversion 1.x.")
    data = envelope.get("data")
    if type(data) is not dict:
        raise NotAnEnvelope("The structured CloudEvent has no object as its data.")
    return data
