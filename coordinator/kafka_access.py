"""How Kafka is reached: the drivers' options for a protocol, tokens, and why no broker answers.

Shared by intake, relay, topics and the client package, so that no connection goes around it. Owns
the options of aiokafka that security is made of, and a diagnosis: the driver tells only *that* it
could not bootstrap, so on failure one connection is tried by hand and its error read.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from aiokafka.abc import AbstractTokenProvider
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from coordinator.hosts import all_on_this_machine, host_of
from coordinator.tls_files import FreshContext, TlsFiles, handshake_sentence

Protocol: TypeAlias = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism: TypeAlias = Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN", "OAUTHBEARER"]
KeepSecret: TypeAlias = Callable[[str], object]

_TOKEN_BYTES_MAX: Final = 64 * 1024
_DIAGNOSIS_SECONDS: Final = 5.0


def _forget(_secret: str) -> None:
    """Whoever logs nothing has nothing to mask."""


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """How brokers are spoken to; the names are those of the settings in ``[kafka]``.

    ``token_file`` is read for every connection, so that whoever refreshes it needs no restart.
    """

    security_protocol: Protocol = "PLAINTEXT"
    ca_file: str | Path | None = None
    certificate_file: str | Path | None = None
    key_file: str | Path | None = None
    key_password: str | None = field(default=None, repr=False)
    sasl_mechanism: Mechanism | None = None
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    token_file: str | Path | None = None

    @property
    def is_tls(self) -> bool:
        """Whether brokers are verified, and what goes over is encrypted."""
        return self.security_protocol in {"SSL", "SASL_SSL"}

    def options(self, keep_secret: KeepSecret = _forget) -> dict[str, Any]:
        """Give the options for any client of aiokafka. ``keep_secret`` is told of every token."""
        options: dict[str, Any] = {"security_protocol": self.security_protocol}
        if self.is_tls:
            options["ssl_context"] = FreshContext(
                TlsFiles(
                    _path(self.ca_file),
                    _path(self.certificate_file),
                    _path(self.key_file),
                    self.key_password,
                )
            )
        if self.sasl_mechanism is not None:
            options["sasl_mechanism"] = self.sasl_mechanism
        if self.sasl_mechanism == "OAUTHBEARER" and self.token_file is not None:
            options["sasl_oauth_token_provider"] = TokenFile(Path(self.token_file), keep_secret)
        elif self.sasl_mechanism is not None:
            options["sasl_plain_username"] = self.sasl_username
            options["sasl_plain_password"] = self.sasl_password
        return options


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


class TokenFile(AbstractTokenProvider):  # type: ignore[misc]
    """Gives the token that a file holds now; somebody else keeps it fresh."""

    def __init__(self, path: Path, keep_secret: KeepSecret = _forget) -> None:
        self._path = path
        self._keep_secret = keep_secret

    async def token(self) -> str:
        """Read the file. Raises `OSError`, also for a file that holds no token."""
        token = await asyncio.to_thread(self._read)
        self._keep_secret(token)
        return token

    def _read(self) -> str:
        with self._path.open("rb") as file:
            raw = file.read(_TOKEN_BYTES_MAX + 1)
        token = raw.decode("ascii", "replace").strip()
        if not token or len(raw) > _TOKEN_BYTES_MAX or not token.isprintable() or "\ufffd" in token:
            raise TokenUnusable("the file kafka.token_file holds no token")
        return token


class TokenUnusable(OSError):
    """An `OSError`, because that is what the driver takes for a connection that failed."""


def plaintext_leaves(options: Mapping[str, Any], servers: Iterable[str]) -> bool:
    """Whether with these options something would go to another machine unprotected."""
    protocol = options.get("security_protocol", "PLAINTEXT")
    return protocol not in {"SSL", "SASL_SSL"} and not all_on_this_machine(servers)


async def why_unreachable(servers: str, options: Mapping[str, Any]) -> str | None:
    """Say why the first broker that can be asked does not take us; ``None`` if all is well now.

    Bounded in time. The sentence names no address and quotes nothing that a broker said.
    """
    reason: str | None = None
    for server in servers.split(","):
        host, port = host_of(server), int(server.strip().rpartition(":")[2])
        try:
            async with asyncio.timeout(_DIAGNOSIS_SECONDS):
                connection = await create_conn(host, port, **_for_one(options))
                try:
                    is_taken = await _answers(connection)
                finally:
                    connection.close()
            # The driver does not look at the answer to a token; so the broker takes nothing more.
            is_token = "sasl_oauth_token_provider" in options
            return _TOKEN_REFUSED if is_token and not is_taken else None
        except (KafkaError, OSError, TimeoutError, LookupError, ValueError) as error:
            reason = _sentence(error)
            if not isinstance(error, OSError) or isinstance(error, ssl.SSLError | TokenUnusable):
                return reason  # it was reached, and this is what it says
    return reason


_REFUSED: Final = "the broker refuses our name and password, or our token"
_TOKEN_REFUSED: Final = "the broker refuses our token"


async def _answers(connection: AIOKafkaConnection) -> bool:
    try:
        answer = await connection.send(MetadataRequest([]))
    except (KafkaError, OSError):
        return False
    return bool(answer.brokers)


def _for_one(options: Mapping[str, Any]) -> dict[str, Any]:
    known = ("security_protocol", "ssl_context", "request_timeout_ms")
    return {
        name: value for name, value in options.items() if name in known or name.startswith("sasl_")
    }


def _sentence(error: BaseException) -> str:
    if (sentence := handshake_sentence(error)) is not None:
        return sentence
    if isinstance(error, TokenUnusable):
        return str(error)
    if isinstance(error, SaslAuthenticationFailed | AuthenticationFailedError):
        return _REFUSED
    if isinstance(error, UnsupportedSaslMechanismError | AuthenticationMethodNotSupported):
        return "the broker does not know kafka.sasl_mechanism"
    if isinstance(error, TimeoutError):
        return "the broker does not answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there"
    if isinstance(error, LookupError | ValueError):
        return "the broker does not prove that it knows our password"
    if isinstance(error, KafkaError | ConnectionResetError):
        return (
            "the broker cuts the connection; does kafka.security_protocol fit its listener?"
            f" ({type(error).__name__})"
        )
    return f"the broker cannot be reached ({type(error).__name__})"
