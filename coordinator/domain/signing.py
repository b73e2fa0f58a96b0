"""Signed units: what a signature covers, and whether a record's signature counts.

Owns the canonical signing input, so that any language can make it, and the order in which a
signature is judged. Pure: the clock's time and the mathematics (`Verify`) are given.

A record carries one header, ``coordinator-signature``::

    v1 <key id> <audience> <issued at> <expires at> <signature, base64>

The signature is Ed25519 over these bytes, lines ended by one LF::

    coordinator-signature
    v1 <key id> <audience> <issued at> <expires at>
    <the Kafka key in base64, or - without one>
    <the header content-type in base64, or ->
    <the header reply-to in base64, or ->
    <the value, byte for byte>

So nothing that decides what the unit is, where it stands in order or who is answered can be changed
or moved: value (and the id in it), key, whether the value is an envelope, reply topic, audience and
times. Left out is what middlemen rightly change: ``traceparent``, ``ce_*`` headers, the partition.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as NoBase64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from coordinator.domain.authority import Authority, Breach

HEADER: Final = "coordinator-signature"
KEY_ID_PATTERN: Final = "[!-~]{1,128}"
AUDIENCE_PATTERN: Final = "[!-~]{1,249}"

_DOMAIN: Final = b"coordinator-signature\n"
_VERSION: Final = "v1"
_ABSENT: Final = b"-"
_CLAIMS: Final = re.compile(
    f"{_VERSION} (?P<key>{KEY_ID_PATTERN}) (?P<audience>{AUDIENCE_PATTERN})"
    " (?P<issued>0|[1-9][0-9]{0,11}) (?P<expires>0|[1-9][0-9]{0,11})"
)
_HEADER_BYTES_MAX: Final = 600

HeaderList = Sequence[tuple[str, bytes | None]]

Verify = Callable[[bytes, bytes, bytes], bool]
"""Takes (public key, signature, message): whether the signature is that key's. Never raises."""


class Claims(NamedTuple):
    """What the signer says. Times are whole seconds since 1970 in UTC."""

    key_id: str
    audience: str
    issued_at: int
    expires_at: int

    def text(self) -> str:
        """Give the form in which they are sent and signed."""
        return f"{_VERSION} {self.key_id} {self.audience} {self.issued_at} {self.expires_at}"


class TrustedKey(NamedTuple):
    """A public key (32 bytes), and what its holder may do."""

    public_key: bytes
    authority: Authority


@dataclass(frozen=True, slots=True)
class SignedIntake:
    """What a topic of signed units asks of a signature."""

    audience: str
    max_age_seconds: int
    skew_seconds: int
    keys: Mapping[str, TrustedKey]
    verify: Verify


def signing_input(claims: Claims, key: bytes | None, headers: HeaderList, value: bytes) -> bytes:
    """Give the bytes that are signed; of a header that is there twice the last counts."""
    last = dict(headers)
    return b"\n".join(
        (
            _DOMAIN + claims.text().encode(),
            _line(key),
            _line(last.get("content-type")),
            _line(last.get("reply-to")),
            value,
        )
    )


def signature_header(claims: Claims, signature: bytes) -> tuple[str, bytes]:
    """Give the header that carries a signature."""
    return HEADER, claims.text().encode() + b" " + b64encode(signature)


def read_signature(header: bytes) -> tuple[Claims, bytes] | None:
    """Read the header; None when it is not of the one form that it may have."""
    if len(header) > _HEADER_BYTES_MAX:
        return None
    try:
        text, _, encoded = header.decode("ascii").rpartition(" ")
        signature = b64decode(encoded, validate=True)
    except (UnicodeDecodeError, NoBase64):
        return None
    parts = _CLAIMS.fullmatch(text)
    if parts is None or len(signature) != 64 or b64encode(signature).decode() != encoded:
        return None
    claims = Claims(parts["key"], parts["audience"], int(parts["issued"]), int(parts["expires"]))
    return claims, signature


def judge(
    intake: SignedIntake, key: bytes | None, headers: HeaderList, value: bytes, now_seconds: float
) -> TrustedKey | Breach:
    """Tell whose unit this is, or why that cannot be known.

    What costs nothing is looked at first; only what could be genuine is verified.
    """
    last = dict(headers).get(HEADER)
    if last is None:
        return Breach.UNSIGNED
    read = read_signature(last)
    if read is None:
        return Breach.SIGNATURE_UNREADABLE
    claims, signature = read
    trusted = intake.keys.get(claims.key_id)
    if trusted is None:
        return Breach.KEY_UNKNOWN
    if claims.audience != intake.audience:
        return Breach.AUDIENCE
    untimely = _untimely(intake, claims, now_seconds)
    if untimely is not None:
        return untimely
    message = signing_input(claims, key, headers, value)
    return trusted if intake.verify(trusted.public_key, signature, message) else Breach.FORGED


def _untimely(intake: SignedIntake, claims: Claims, now_seconds: float) -> Breach | None:
    if not 0 < claims.expires_at - claims.issued_at <= intake.max_age_seconds:
        return Breach.LIFETIME
    if claims.issued_at > now_seconds + intake.skew_seconds:
        return Breach.NOT_YET
    return Breach.EXPIRED if claims.expires_at < now_seconds - intake.skew_seconds else None


def _line(content: bytes | None) -> bytes:
    return _ABSENT if content is None else b64encode(content)


SENTENCES: Final[Mapping[Breach, str]] = {
    Breach.UNSIGNED: f"This topic takes signed units only; the header {HEADER} is missing.",
    Breach.SIGNATURE_UNREADABLE: f"The header {HEADER} is not of the documented form.",
    Breach.KEY_UNKNOWN: "The unit is signed with a key that this topic does not know.",
    Breach.AUDIENCE: "The unit is signed for another audience.",
    Breach.LIFETIME: "The signature's times are longer apart than this topic allows, or reversed.",
    Breach.NOT_YET: "The signature is of a time that has not come yet; compare the clocks.",
    Breach.EXPIRED: "The signature has expired; sign the unit anew.",
    Breach.FORGED: "The signature does not fit the unit: value, key or headers are not as signed.",
}
"""What a refusal says (the breaches that `judge` finds)."""
