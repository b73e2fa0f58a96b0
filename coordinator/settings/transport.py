"""How a configured connection is protected on its way, told from its settings alone.

Owns what counts as *verified*: encrypted, and the server's certificate and host name checked. The
weaker modes of the drivers (``sslmode=require``, ``tlsInsecure`` …) encrypt towards anybody and
count as plaintext. Refuses to connect.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

from coordinator.hosts import all_on_this_machine
from coordinator.tls_files import TlsFiles

_OUTSIDE_HOSTS: Final = ("PGHOST", "PGHOSTADDR", "PGSERVICE")
"""Variables from which the driver takes a host that the DSN does not name."""


NO_FILES: Final = TlsFiles()


@dataclass(frozen=True, slots=True)
class Transport:
    """One connection: does it leave the machine, is its server verified, and with which files.

    ``names`` tells how the files are called in the address: ``ca`` → ``sslrootcert``.
    ``lacks_ca``: it is to be verified, and the driver would find no authorities to trust.
    ``is_direct``: the driver goes to this server only, whatever others it names.
    """

    is_local: bool
    is_verified: bool
    files: TlsFiles = NO_FILES
    names: Mapping[str, str] | None = None
    lacks_ca: bool = False
    is_direct: bool = False

    @property
    def is_open(self) -> bool:
        """Whether somebody on the way could read or change what goes over it."""
        return not (self.is_local or self.is_verified)


# --- PostgreSQL ---------------------------------------------------------------------------------

_POSTGRESQL_NAMES: Final = {"ca": "sslrootcert", "certificate": "sslcert", "key": "sslkey"}


def dsn_transport(dsn: str, environ: Mapping[str, str] = os.environ) -> Transport:
    """Judge a DSN that was found well-formed. ``environ`` is what the driver looks at as well."""
    parts = urlsplit(dsn)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    servers = [unquote(each) for each in _listed(parts.netloc.rpartition("@")[2])]
    servers += _listed(query.get("host", ""))
    if servers:
        is_local = all_on_this_machine(servers)
    else:
        # The driver's own default is the local socket, unless somebody tells it a host.
        is_local = "service" not in query and not any(map(environ.get, _OUTSIDE_HOSTS))
    mode = query.get("sslmode", "").replace("_", "-")
    ca, certificate, key = (_path(query.get(name)) for name in _POSTGRESQL_NAMES.values())
    if key is None:
        certificate = None  # the driver looks for the key elsewhere: that is its affair
    files = TlsFiles(ca, certificate, key, query.get("sslpassword"))
    return Transport(
        is_local,
        is_verified=mode == "verify-full",
        files=NO_FILES if mode == "disable" else files,
        names=_POSTGRESQL_NAMES,
        lacks_ca=mode.startswith("verify") and ca is None and not _has_ca_elsewhere(environ),
    )


def _has_ca_elsewhere(environ: Mapping[str, str]) -> bool:
    """Whether the driver finds authorities without being told in the DSN."""
    if environ.get("PGSSLROOTCERT"):
        return True
    try:
        return (Path.home() / ".postgresql" / "root.crt").exists()
    except (OSError, RuntimeError):
        return False


# --- MongoDB ------------------------------------------------------------------------------------

_MONGODB_NAMES: Final = {"ca": "tlsCAFile", "certificate": "tlsCertificateKeyFile"}
_WEAK: Final = ("tlsinsecure", "tlsallowinvalidcertificates", "tlsallowinvalidhostnames")
_IMPLY_TLS: Final = ("tlscafile", "tlscertificatekeyfile", "tlscertificatekeyfilepassword")


def uri_transport(uri: str) -> Transport:
    """Judge a URI that was found well-formed. Options are known whatever their letters' case."""
    parts = urlsplit(uri)
    options: dict[str, list[str]] = {}
    for name, value in parse_qsl(parts.query):
        options.setdefault(name.lower(), []).append(value)
    is_srv = parts.scheme == "mongodb+srv"  # then DNS names the servers
    servers = [unquote(each) for each in _listed(parts.netloc.rpartition("@")[2])]
    # What is said twice must be good both times: which one the driver takes is its own affair.
    wanted = [*options.get("tls", ()), *options.get("ssl", ())]
    is_implied = is_srv or any(name in options for name in _IMPLY_TLS)
    has_tls = set(wanted) == {"true"} if wanted else is_implied
    is_weak = any(value != "false" for name in _WEAK for value in options.get(name, ()))
    ca, pair, password = (options.get(name, [""])[-1] for name in _IMPLY_TLS)
    files = TlsFiles(_path(ca), _path(pair), None, password or None)
    return Transport(
        is_local=not is_srv and all_on_this_machine(servers),
        is_verified=has_tls and not is_weak,
        files=files if has_tls else NO_FILES,
        names=_MONGODB_NAMES,
        is_direct="true" in options.get("directconnection", ()),
    )


def _listed(servers: str) -> list[str]:
    return [each for each in servers.split(",") if each]


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
