"""From a unit to the bytes that are sent, and the digest by which its outcome is known (F3).

Refuses what would become a dead letter, since a dead letter has no outcome to wait for: no valid
id, not strict JSON, too large. Everything else is the daemon's to judge.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final

import orjson

from coordinator.client.errors import UnitNotSendable
from coordinator.domain import json_text

_UNIT_ID: Final = re.compile(r"[!-~]{1,128}")


@dataclass(frozen=True, slots=True)
class EncodedUnit:
    """A unit ready to send."""

    id: str
    digest: str
    value: bytes


def encode_unit(unit: Mapping[str, Any] | str | bytes, bytes_max: int) -> EncodedUnit:
    """Encode a unit, or take JSON text as it is; raise `UnitNotSendable`.

    In a mapping, ``Decimal``, ``bytes``, aware ``datetime``, ``date`` and ``UUID`` are turned into
    the strings that the contract asks for.
    """
    if isinstance(unit, Mapping):
        value = encode(unit)
    else:
        value = unit if isinstance(unit, bytes) else unit.encode("utf-8", "surrogatepass")
    if len(value) > bytes_max:
        raise UnitNotSendable(f"The unit has {len(value)} bytes; at most {bytes_max} are taken.")
    try:
        parsed = json_text.parse(value)
    except json_text.BrokenJson as error:
        raise UnitNotSendable(f"The unit {error.fault.value}.") from error
    if not isinstance(parsed.value, dict):
        raise UnitNotSendable("The unit is not a JSON object.")
    unit_id = parsed.value.get("id")
    if not isinstance(unit_id, str) or not _UNIT_ID.fullmatch(unit_id):
        raise UnitNotSendable("The unit needs an id: 1 to 128 printable ASCII characters.")
    return EncodedUnit(unit_id, sha256(parsed.canonical).hexdigest(), value)


def encode_cancel(unit_id: str, reason: str | None) -> bytes:
    """Encode the request to cancel a unit (F8)."""
    if not _UNIT_ID.fullmatch(unit_id):
        raise UnitNotSendable("A unit's id has 1 to 128 printable ASCII characters.")
    request = {"cancel": unit_id}
    if reason is not None:
        request["reason"] = reason
    return encode(request)


def encode(value: Mapping[str, Any]) -> bytes:
    """Write JSON in the fast way where it loses nothing, else in the strict one."""
    try:
        text = orjson.dumps(dict(value), default=_as_text)
        # orjson writes NaN as null: only the strict encoder tells which it was.
        if b"null" not in text:
            return text
    except TypeError:  # an integer past 64 bit, or something that is no JSON value at all
        pass
    try:
        return json.dumps(
            dict(value),
            default=_any_as_text,
            allow_nan=False,
            ensure_ascii=False,
            separators=(",", ":"),
        ).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UnitNotSendable(f"The unit cannot be written as JSON: {error}") from error


def _as_text(value: object) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _any_as_text(value: object) -> Any:
    try:
        return _as_text(value)
    except TypeError:
        return orjson.loads(orjson.dumps(value))  # as the fast way writes dates, uuids and the like
