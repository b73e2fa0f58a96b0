"""TLS from files: contexts that read their files anew for every connection, and what went wrong.

Owns how a context of ours is made (TLS 1.2 at least, certificates and host names always checked)
and the sentences for failed handshakes, which name no address and no secret. Knows no driver.

A certificate that is replaced on disk is in use from the next connection on: nothing is cached, and
what is open stays open. Files that are wrong at that moment fail that connection only, and whoever
wanted it tries again; so replace certificate and key together, or accept a failed attempt.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. Without ``ca`` the system's authorities are trusted.

    ``key`` may be left out when the certificate's file holds it as well.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    key_password: str | None = field(default=None, repr=False)

    def context(self) -> ssl.SSLContext:
        """Read the files; raise `OSError`, of which ``ssl.SSLError`` is one."""
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate is not None:
            # A text even without a password: else OpenSSL would ask for it on the terminal.
            password = self.key_password or ""
            context.load_cert_chain(self.certificate, self.key, lambda: password)
        return context

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """Give (which file: ``ca``, ``certificate`` or ``key``, sentence) for what is wrong."""
        named = {"ca": self.ca, "certificate": self.certificate, "key": self.key}
        unreadable = False
        for name, path in named.items():
            if path is None:
                continue
            try:
                path.read_bytes()
            except OSError as error:
                unreadable = True
                yield name, f"the file cannot be read: {error.strerror}"
        if unreadable:
            return
        if self.ca is not None:
            try:
                TlsFiles(self.ca).context()
            except OSError:
                yield "ca", "the file holds no certificates in PEM"
        if self.certificate is not None:
            try:
                TlsFiles(None, self.certificate, self.key, self.key_password).context()
            except OSError as error:
                yield "certificate", _mistake_of_chain(error)


def _mistake_of_chain(error: OSError) -> str:
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        return "the certificate and the key do not belong together"
    return "it and its key cannot be loaded: no PEM, no key, or another password"


class FreshContext(ssl.SSLContext):
    """A context that reads its files for every connection, by whichever way a driver asks."""

    def __new__(cls, _files: TlsFiles) -> Self:
        """Make the shell that a driver takes for a context; its own settings never act."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, files: TlsFiles) -> None:
        self._files = files

    def wrap_bio(self, *args: Any, **named: Any) -> ssl.SSLObject:
        """As asyncio and uvloop ask."""
        return self._files.context().wrap_bio(*args, **named)

    def wrap_socket(self, *args: Any, **named: Any) -> ssl.SSLSocket:
        """As threads ask."""
        return self._files.context().wrap_socket(*args, **named)


# --- what went wrong ----------------------------------------------------------------------------

_VERIFY: Final = {
    9: "its certificate is not valid yet",
    10: "its certificate has expired",
    18: "its certificate is signed by itself and not by an authority that we trust",
    19: "its certificate is signed by an authority that we do not trust",
    20: "its certificate is signed by an authority that we do not trust",
    21: "its certificate is signed by an authority that we do not trust",
    23: "its certificate has been revoked",
    62: "its certificate is for another host name",
    64: "its certificate is for another address",
}
_TEXTS: Final = {
    "certificate has expired": 10,
    "certificate is not yet valid": 9,
    "unable to get local issuer certificate": 20,
    "certificate in certificate chain": 19,
    "self-signed certificate": 18,
    "self signed certificate": 18,
    "certificate revoked": 23,
    "Hostname mismatch": 62,
    "IP address mismatch": 64,
}
_CHAIN_LENGTH_MAX: Final = 8


def handshake_sentence(error: BaseException | None) -> str | None:
    """Say why a TLS handshake failed, looking through causes; ``None`` if that was not it."""
    for _ in range(_CHAIN_LENGTH_MAX):
        if error is None:
            return None
        if isinstance(error, ssl.SSLCertVerificationError):
            known = _VERIFY.get(error.verify_code, "its certificate cannot be verified")
            return f"the server cannot be trusted: {known}"
        if isinstance(error, ssl.SSLError):
            return _sentence_of_alert(getattr(error, "reason", None) or "")
        error = error.__cause__ or error.__context__
    return None


def sentence_in_text(text: str) -> str | None:
    """Say why a TLS handshake failed where a driver tells it only in a text of its own.

    OpenSSL's words are looked for; of the text itself nothing is passed on.
    """
    for words, code in _TEXTS.items():
        if words in text:
            return f"the server cannot be trusted: {_VERIFY[code]}"
    return "the TLS handshake failed" if "SSL handshake failed" in text else None


def _sentence_of_alert(reason: str) -> str:
    if reason in {"WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE"}:
        return "the server does not speak TLS there"
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:
        return f"the server refuses our certificate, or that we show none ({reason})"
    return f"the TLS handshake failed ({reason or 'the connection was cut'})"
