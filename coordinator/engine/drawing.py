"""What is drawn at admission: generated keys and defaults (F24)."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from coordinator.engine.clock import Chance, Clock


class Drawing:
    """The domain's ``Draw``, over the engine's clock and chance."""

    def __init__(self, clock: Clock, chance: Chance) -> None:
        self._clock = clock
        self._chance = chance

    def uuid7(self) -> UUID:
        """Draw a new key."""
        return self._chance.uuid7()

    def now(self) -> datetime:
        """Draw the time of a ``default = "now"``."""
        return self._clock.now()
