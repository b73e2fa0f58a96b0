"""The guards that can be taken out, one at a time, to see whether the simulation notices."""

from __future__ import annotations

from collections.abc import Callable

GUARDS: dict[str, Callable[[], None]] = {}


def take_out(name: str) -> None:
    """Take one guard out of this process, for good."""
    GUARDS[name]()
