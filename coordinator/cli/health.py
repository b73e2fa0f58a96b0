"""Asks the daemon on this machine how it is, over its HTTP port."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any

_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the daemon said; when nothing answers, ``body`` says so."""

    is_good: bool
    body: dict[str, Any]


def ask(listen: str, path: str) -> Answer:
    """Get a health page of the daemon that listens on ``listen`` (``host:port``)."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    if host in ("", "0.0.0.0", "::"):  # it listens everywhere, so here too
        host = "::1" if host == "::" else "127.0.0.1"
    connection = http.client.HTTPConnection(host, int(port), timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return Answer(response.status == 200, json.loads(response.read()))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Answer(False, {"error": f"no coordinator answers on {listen}: {error}"})
    finally:
        connection.close()
