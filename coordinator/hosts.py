"""Which servers are on this machine: loopback addresses, ``localhost``, unix sockets.

Pure: names are not resolved, so any other name counts as another machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address


def is_this_machine(host: str) -> bool:
    """Whether a host is a loopback address, ``localhost`` or a unix socket's path."""
    host = host.strip("[]").lower()
    if host.startswith("/") or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(server: str) -> str:
    """Give the host of ``host:port``, ``[v6]:port`` or a host alone."""
    server = server.strip()
    if server.startswith("["):
        return server[1:].partition("]")[0]
    host, colon, port = server.rpartition(":")
    return host if colon and port.isdecimal() else server


def all_on_this_machine(servers: Iterable[str]) -> bool:
    """Whether every one of ``host:port`` is on this machine."""
    return all(is_this_machine(host_of(server)) for server in servers)
