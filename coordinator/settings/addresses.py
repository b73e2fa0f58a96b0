"""What an address looks like: listen addresses, Kafka brokers, DSNs and URIs.

Owns the checks of their form and what identifies a database. Refuses to connect, and never repeats
an address in a message, because it may hold a password (F39).
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

_HOST_AND_PORT: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/@,]*):([0-9]{1,5})")
_PORT_MAX: Final = 65_535
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def check_listen(listen: str) -> str:
    """Give it back if it is ``host:port`` or ``[v6]:port``; raise `ValueError`."""
    if not _is_host_and_port(listen, least_port=0):
        raise ValueError('must be host:port, such as "127.0.0.1:8080"')
    return listen


def check_servers(servers: str) -> str:
    """Give it back if it is a list of ``host:port``; raise `ValueError`."""
    for server in servers.split(","):
        if not _is_host_and_port(server.strip(), least_port=1) or server.strip().startswith(":"):
            raise ValueError('must be host:port, several separated by commas: "a:9092,b:9092"')
    return servers


def _is_host_and_port(text: str, least_port: int) -> bool:
    parts = _HOST_AND_PORT.fullmatch(text)
    return parts is not None and least_port <= int(parts[1]) <= _PORT_MAX


def check_dsn(dsn: str) -> None:
    """Raise `ValueError` unless it is a DSN that the driver can take apart."""
    parts = _split(dsn)
    if parts is None or parts.scheme not in {"postgresql", "postgres"}:
        raise ValueError("must begin with postgresql://")
    _check_authority(parts)
    try:
        query = parse_qs(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError("has parameters after ? that are not name=value") from None
    if query.get("sslmode", [_SSL_MODES[0]])[-1].replace("_", "-") not in _SSL_MODES:
        raise ValueError(f"has an sslmode that is none of {', '.join(_SSL_MODES)}")
    for server in parts.netloc.rpartition("@")[2].split(","):
        _, colon, port = server.rpartition(":")
        if colon and "]" not in port and port and not _is_port(port):
            raise ValueError(_PORT_SENTENCE)


def check_uri(uri: str) -> None:
    """Raise `ValueError` unless it is a URI that the driver can take apart."""
    parts = _split(uri)
    if parts is None or parts.scheme not in {"mongodb", "mongodb+srv"}:
        raise ValueError("must begin with mongodb:// or mongodb+srv://")
    _check_authority(parts)
    servers = parts.netloc.rpartition("@")[2]
    if not servers:
        raise ValueError("names no host")
    for server in servers.split(","):
        _, colon, port = server.rpartition(":")
        if colon and "]" not in port and not _is_port(port):
            raise ValueError(_PORT_SENTENCE)


_PORT_SENTENCE: Final = (
    "has a port that is no number from 1 to 65535; a password with : / ? # @ in it must be "
    "URL-encoded"
)


def _is_port(text: str) -> bool:
    return text.isdecimal() and 1 <= int(text) <= _PORT_MAX


def _check_authority(parts: SplitResult) -> None:
    if parts.fragment or parts.netloc.count("@") > 1 or "@" in parts.path:
        raise ValueError("holds a # or @ that must be URL-encoded (%23, %40)")


def _split(address: str) -> SplitResult | None:
    try:
        return urlsplit(address)
    except ValueError:
        return None


def database_of(address: str) -> tuple[str, ...] | None:
    """Tell which database a DSN names: hosts, database; ``None`` when it does not say.

    Two DSNs with the same answer are one database; with different answers they may still be.
    """
    parts = _split(address)
    if parts is None:
        return None
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    hosts = query.get("host") or parts.netloc.rpartition("@")[2]
    database = query.get("dbname") or query.get("database") or unquote(parts.path.lstrip("/"))
    if not hosts or not database:
        return None
    port = query.get("port", "5432")
    servers = [
        host if re.search(r":[0-9]+$", host) else f"{host}:{port}" for host in hosts.split(",")
    ]
    return (*sorted(server.lower() for server in servers), database)


def servers_of(uri: str) -> tuple[str, ...]:
    """Give the servers that a MongoDB URI names, sorted."""
    parts = _split(uri)
    if parts is None:
        return ()
    hosts = parts.netloc.rpartition("@")[2].lower().split(",")
    return tuple(sorted(host if ":" in host else f"{host}:27017" for host in hosts))
