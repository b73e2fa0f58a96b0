"""What a run leaves to be judged: what was sent, what was published, and both stores around it.

Pure values. `checks` and `report` read nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coordinator.demo.mishaps import Broken
from coordinator.demo.shop import Sending
from coordinator.demo.stores import Snapshot
from coordinator.demo.topics import Message


@dataclass(frozen=True, slots=True)
class Story:
    """One unit that was sent alone, and the stores around it. ``journal`` is of ``/v1/units``."""

    sending: Sending
    before: Snapshot
    after: Snapshot
    journal: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True, slots=True)
class Pace:
    """What the client measured: units, seconds to the last outcome, latencies in milliseconds."""

    title: str
    units: int
    seconds: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that was seen. Messages are without repeats, in the order of their topics."""

    sendings: Sequence[Sending]
    broken: Sequence[Broken]
    before: Snapshot
    after: Snapshot
    outcomes: Sequence[Message]
    changes: Mapping[str, Sequence[Message]]
    """By entity."""
    dead_letters: Sequence[Message]
    repeats: int
    """Messages that came more than once, under the same ``ce_id``."""
    open_units: int
    exit_code: int | None
    stories: Sequence[Story]
    paces: Sequence[Pace]
