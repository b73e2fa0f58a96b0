"""The right to publish: one relay at a time per journal.

The journal's clock decides when a lease expires; this side stops early, by its own monotonic
clock taken *before* a renewal was sent, so that a frozen relay that wakes does not go on (H7). A
batch that is already at the broker may still land, late: consumers drop repeats by `ce_id`.
"""

from __future__ import annotations

import asyncio
import time

from coordinator.domain.errors import StoreError
from coordinator.engine.ports import Outbox
from coordinator.log_events import LogEvent
from coordinator.logs import get_log

_RENEW_SHARE = 1 / 3
_ASK_SECONDS = 1.0
_TRUST_SHARE = 0.8

_log = get_log()


class RelayLease:
    """Holds the lease while `keep` runs; ``taken`` is set while it is ours."""

    def __init__(self, outbox: Outbox, ttl_seconds: float) -> None:
        self._outbox = outbox
        self._ttl_seconds = ttl_seconds
        self._held_until = 0.0
        self._had = False
        self.taken = asyncio.Event()

    def held(self) -> bool:
        """Whether we may send now."""
        if time.monotonic() < self._held_until:
            return True
        if self._had:
            self._had = False
            self.taken.clear()
            _log.warning(
                LogEvent.RELAY_LEASE_LOST,
                "The relay's lease is not ours any more; another daemon publishes.",
            )
        return False

    async def keep(self) -> None:
        """Take and renew until cancelled. A journal that is away only makes the lease run out."""
        while True:
            before = time.monotonic()
            try:
                ours = await self._outbox.hold_lease()
            except StoreError:
                ours = None
            if ours:
                self._held_until = before + self._ttl_seconds * _TRUST_SHARE
                if not self._had and self.held():
                    self._had = True
                    self.taken.set()
                    _log.info(LogEvent.RELAY_STARTED, "This daemon publishes the outbox now.")
            elif ours is False:
                self._held_until = 0.0
            renew_seconds = self._ttl_seconds * _RENEW_SHARE
            await asyncio.sleep(renew_seconds if self.held() else min(renew_seconds, _ASK_SECONDS))

    async def give_back(self) -> None:
        """Let another relay go on at once; harmless if it is not ours."""
        if self._had:
            self._had, self._held_until = False, 0.0
            self.taken.clear()
            await self._outbox.release_lease()
