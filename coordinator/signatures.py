"""Ed25519 by libsodium (PyNaCl): keys in the files that openssl writes, signing, verifying.

Owns the library: no other module imports it, and it is loaded at the first key or signature, so
that a daemon without signed topics never does. What is signed is `coordinator.domain.signing`'s.

Ed25519 keys have one encoding each in PKCS#8 and in SubjectPublicKeyInfo (RFC 8410): a fixed head
and 32 bytes. So PEM is read and written here, and no second library is needed for it.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from binascii import Error as NoBase64
from pathlib import Path
from typing import Final

from coordinator.domain.signing import Claims, HeaderList, signature_header, signing_input

KEY_BYTES: Final = 32
_PUBLIC_HEAD: Final = bytes.fromhex("302a300506032b6570032100")
_PRIVATE_HEAD: Final = bytes.fromhex("302e020100300506032b657004220420")
_FILE_BYTES_MAX: Final = 10_000


class KeyUnusable(ValueError):
    """A key cannot be used; the text is a sentence's end that never repeats the key."""


def verify(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the signature is this key's for this message. Never raises for what they hold."""
    from nacl.bindings import crypto_sign_open
    from nacl.exceptions import CryptoError

    try:
        crypto_sign_open(signature + message, public_key)
    except (CryptoError, ValueError):
        return False
    return True


class Signer:
    """Signs units with one private key, for one audience.

    ``lifetime_seconds`` is how long a signature is good; not longer than the topic allows, and long
    enough to outlast a time in which the coordinator is away.
    """

    def __init__(
        self, seed: bytes, key_id: str, audience: str, *, lifetime_seconds: int = 900
    ) -> None:
        from nacl.bindings import crypto_sign_seed_keypair

        self.public_key, self._secret = crypto_sign_seed_keypair(seed)
        self._key_id, self._audience = key_id, audience
        self._lifetime_seconds = lifetime_seconds

    def header(
        self, key: bytes | None, headers: HeaderList, value: bytes, now_seconds: float
    ) -> tuple[str, bytes]:
        """Give the header that signs a record; ``headers`` are those that it will have."""
        from nacl.bindings import crypto_sign

        issued_at = int(now_seconds)
        claims = Claims(self._key_id, self._audience, issued_at, issued_at + self._lifetime_seconds)
        signed = crypto_sign(signing_input(claims, key, headers, value), self._secret)
        return signature_header(claims, signed[:64])


def generate_seed() -> bytes:
    """Draw a private key."""
    return os.urandom(KEY_BYTES)


def public_key_of(seed: bytes) -> bytes:
    """Give the public key that belongs to a private one."""
    from nacl.bindings import crypto_sign_seed_keypair

    public_key: bytes = crypto_sign_seed_keypair(seed)[0]
    return public_key


def read_public_key(text: str) -> bytes:
    """Read a public key: PEM, or the 32 bytes in base64. Raises `KeyUnusable`."""
    is_pem = "-----BEGIN" in text
    raw = _from_pem(text, "PUBLIC KEY", _PUBLIC_HEAD) if is_pem else _decoded(text)
    if len(raw) != KEY_BYTES:
        raise KeyUnusable("must be an Ed25519 public key: PEM, or its 32 bytes in base64")
    if not _is_sound(raw):
        raise KeyUnusable("is no point that a private key could have; everybody could sign with it")
    return raw


def read_private_key(text: str) -> bytes:
    """Read a private key from PEM (PKCS#8, not encrypted). Raises `KeyUnusable`."""
    return _from_pem(text, "PRIVATE KEY", _PRIVATE_HEAD)


def load_private_key(path: Path) -> bytes:
    """Read a private key's file. Raises `KeyUnusable`."""
    return read_private_key(read_key_file(path))


def read_key_file(path: Path) -> str:
    """Read a key's file as text. Raises `KeyUnusable`."""
    try:
        with path.open("rb") as file:
            raw = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise KeyUnusable(f"{path} cannot be read: {error.strerror}") from error
    if len(raw) > _FILE_BYTES_MAX:
        raise KeyUnusable(f"{path} is larger than {_FILE_BYTES_MAX} bytes")
    return raw.decode("ascii", "replace")


def public_pem(public_key: bytes) -> str:
    """Write a public key as PEM."""
    return _pem("PUBLIC KEY", _PUBLIC_HEAD + public_key)


def private_pem(seed: bytes) -> str:
    """Write a private key as PEM (PKCS#8, not encrypted)."""
    return _pem("PRIVATE KEY", _PRIVATE_HEAD + seed)


def _pem(label: str, content: bytes) -> str:
    return f"-----BEGIN {label}-----\n{b64encode(content).decode()}\n-----END {label}-----\n"


def _from_pem(text: str, label: str, head: bytes) -> bytes:
    _, begin, rest = text.partition(f"-----BEGIN {label}-----")
    body, end, _ = rest.partition(f"-----END {label}-----")
    raw = _decoded("".join(body.split())) if begin and end else b""
    if not raw.startswith(head) or len(raw) != len(head) + KEY_BYTES:
        raise KeyUnusable(f"must be an Ed25519 {label.lower()} in PEM")
    return raw[len(head) :]


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text.strip(), validate=True)
    except (NoBase64, ValueError):
        return b""


def _is_sound(public_key: bytes) -> bool:
    """Refuse points of small order, for which signatures can be made without a private key."""
    from nacl.bindings import crypto_core_ed25519_is_valid_point

    return bool(crypto_core_ed25519_is_valid_point(public_key))
