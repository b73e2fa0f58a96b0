"""What the daemon knows of its own health: which servers are away, and whether it is ready.

Owns the state behind ``/livez`` and ``/readyz``. Components tell it; it asks nobody, because a
probe that asks a server turns that server's trouble into restarts of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

HEARTBEAT_SECONDS: Final = 0.5
HEARTBEAT_LATE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Away:
    """A server that cannot be reached: why, and since when (monotonic seconds)."""

    reason: str
    since: float


class Health:
    """Updated by components, read by the HTTP port. One per daemon, used in the loop only."""

    def __init__(
        self,
        *,
        redact: Callable[[str], str] = str,
        on_change: Callable[[str, bool], None] | None = None,
    ) -> None:
        """``on_change(name, is_up)`` is told of every change (metrics)."""
        self._redact = redact
        self._on_change = on_change
        self._away: dict[str, Away] = {}
        self._is_ready = False
        self._is_draining = False
        self._beat_at = monotonic()
        self.loop_lag_seconds = 0.0
        self.dead_tasks: Callable[[], tuple[str, ...]] = tuple

    def away(self, name: str, reason: str) -> bool:
        """Note that ``name`` (a store, ``journal`` or ``kafka``) is away; whether that is new."""
        known = self._away.get(name)
        self._away[name] = Away(self._redact(reason), known.since if known else monotonic())
        if known is None and self._on_change is not None:
            self._on_change(name, False)
        return known is None

    def back(self, name: str) -> float | None:
        """Note that ``name`` is there; how many seconds it was away, None if it was not."""
        known = self._away.pop(name, None)
        if self._on_change is not None:
            self._on_change(name, True)
        return None if known is None else monotonic() - known.since

    def ready(self, is_ready: bool = True) -> None:
        """Note that start-up is over: checked, migrated, taking units in."""
        self._is_ready = is_ready

    def draining(self) -> None:
        """Note that the daemon is on its way out; it is never ready again."""
        self._is_draining = True

    @property
    def is_ready(self) -> bool:
        """Whether the start is over, nothing is away and the daemon is not leaving."""
        return self._is_ready and not self._is_draining and not self._away

    def is_away(self, name: str) -> bool:
        """Whether ``name`` is known to be away."""
        return name in self._away

    def readiness(self) -> dict[str, object]:
        """Give the body of ``/readyz``: ``ready``, ``state``, ``away``, ``reasons``."""
        state = "running" if self._is_ready else "starting"
        if self._is_draining:
            state = "draining"
        return {
            "ready": self.is_ready,
            "state": state,
            "away": sorted(self._away),
            "reasons": {name: away.reason for name, away in sorted(self._away.items())},
        }

    def beat(self) -> None:
        """Note that the event loop is alive; called every `HEARTBEAT_SECONDS` by `heartbeat`."""
        now = monotonic()
        self.loop_lag_seconds = max(0.0, now - self._beat_at - HEARTBEAT_SECONDS)
        self._beat_at = now

    def liveness(self) -> dict[str, object]:
        """Give the body of ``/livez``: ``alive``, and the supervised tasks that are ``dead``."""
        dead = list(self.dead_tasks())
        late = monotonic() - self._beat_at > HEARTBEAT_LATE_SECONDS
        return {"alive": not dead and not late, "dead": dead, "heartbeat_late": late}


async def heartbeat(health: Health) -> None:
    """Beat for ever; a supervised task of its own."""
    from asyncio import sleep

    while True:
        health.beat()
        await sleep(HEARTBEAT_SECONDS)
