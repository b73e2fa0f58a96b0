"""Dead letters read back: the record that one was made of, and how it is shown.

Pure. The inverse of `coordinator.engine.dead_letters`: ours are the last six headers, so that a
record which had such headers before it became a dead letter gets them back. Whoever may write to
the dead-letter topic may write anything there: nothing in a letter is believed but as the place
that it names, and what is no letter of ours is shown, but never put back.
"""

from __future__ import annotations

from base64 import b64encode
from codecs import getincrementaldecoder
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

PREFIX: Final = "coordinator.errors."
NAMES: Final = ("topic", "partition", "offset", "timestamp", "code", "message")
_OFFSET_MAX: Final = 2**63 - 1
_PARTITION_MAX: Final = 2**31 - 1
_KEY_SHOWN_MAX: Final = 200

Header = tuple[str, bytes | None]


class Place(NamedTuple):
    """Where a dead letter's record came from. The time tells a topic that was made anew."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


class Letter(NamedTuple):
    """One record of the dead-letter topic. ``headers`` are those of the original record.

    ``origin`` is None where it is no letter of ours; then ``headers`` are all that it has.
    """

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    origin: Place | None
    code: str | None
    message: str | None

    @property
    def id(self) -> str:
        """The name by which a person speaks of it: partition and offset of the letter's topic."""
        return f"{self.partition}/{self.offset}"


def letter_of(
    partition: int,
    offset: int,
    timestamp_ms: int,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[Header],
) -> Letter:
    """Read a record of the dead-letter topic."""
    cut = len(headers) - len(NAMES)
    ours = headers[cut:] if cut >= 0 else ()
    said = _said(ours)
    origin = None if said is None else _origin(said)
    if said is None or origin is None:
        return Letter(partition, offset, timestamp_ms, key, value, tuple(headers), None, None, None)
    kept = tuple(headers[:cut])
    return Letter(
        partition, offset, timestamp_ms, key, value, kept, origin, said["code"], said["message"]
    )


def _said(ours: Sequence[Header]) -> dict[str, str] | None:
    if [name for name, _ in ours] != [PREFIX + name for name in NAMES]:
        return None
    try:
        return {
            name.removeprefix(PREFIX): (content or b"").decode("utf-8") for name, content in ours
        }
    except UnicodeDecodeError:
        return None


def _origin(said: dict[str, str]) -> Place | None:
    numbers = [_number(said[name]) for name in ("partition", "offset", "timestamp")]
    partition, offset, timestamp = numbers
    if not said["topic"] or partition is None or offset is None or timestamp is None:
        return None
    if partition > _PARTITION_MAX:
        return None
    return Place(said["topic"], partition, offset, timestamp)


def _number(text: str) -> int | None:
    if text == "-1":  # Kafka's word for a time that nobody knows
        return -1
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        return None
    number = int(text)
    return number if number <= _OFFSET_MAX else None


def shown(letter: Letter, value_bytes: int | None = None) -> dict[str, Any]:
    """Give a letter as the command shows it; its value only if asked for, cut to so many bytes."""
    told: dict[str, Any] = {
        "letter": letter.id,
        "code": letter.code,
        "message": letter.message,
        "origin": None if letter.origin is None else str(letter.origin),
        "origin_timestamp_ms": None if letter.origin is None else letter.origin.timestamp_ms,
        "timestamp_ms": letter.timestamp_ms,
        "key": _bytes(letter.key, _KEY_SHOWN_MAX),
        "value_bytes": None if letter.value is None else len(letter.value),
        "headers": [name for name, _ in letter.headers],
    }
    if value_bytes is not None:
        told["value"] = _bytes(letter.value, value_bytes)
    return told


def _bytes(content: bytes | None, bytes_max: int) -> dict[str, Any] | None:
    """Give bytes as text where they are text that a terminal can show, else as base64."""
    if content is None:
        return None
    cut = content[:bytes_max]
    is_cut = len(cut) < len(content)
    # An incremental decoder takes a character that was cut in two for unfinished, not for wrong.
    decoder = getincrementaldecoder("utf-8")()
    try:
        text = decoder.decode(cut, final=not is_cut)
    except UnicodeDecodeError:
        return {"base64": b64encode(cut).decode(), "cut": is_cut}
    if all(each.isprintable() or each in "\n\t" for each in text):
        return {"text": text, "cut": is_cut}
    return {"base64": b64encode(cut).decode(), "cut": is_cut}
