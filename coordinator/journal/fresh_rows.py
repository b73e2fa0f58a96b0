"""The outbox rows that this worker has just committed, kept so that its relay need not read them.

Only what is durable gets in, and only the relay's claim of a row lets it be used: which rows are
there, and their order, is always the journal's word. A row that is not here is read from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from coordinator.domain.publishing import Message

BYTES_MAX = 8 * 1024 * 1024
"""About a second of a busy worker, packed; as objects they take some three times of it."""


class FreshRows:
    """Messages by outbox row, bounded by what the rows take packed; the oldest go first."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._rows: dict[int, tuple[Sequence[Message], int]] = {}
        self._relaying = False

    def relay(self, relaying: bool) -> None:
        """Note whether this worker relays: while it does not, there is nothing to keep."""
        self._relaying = relaying
        if not relaying:
            self._rows.clear()
            self._bytes = 0

    def keep(self, row: int, messages: Sequence[Message], size_bytes: int) -> None:
        """Keep a row whose transaction has committed."""
        if not self._relaying or size_bytes > self._bytes_max:
            return
        self._rows[row] = (messages, size_bytes)
        self._bytes += size_bytes
        while self._bytes > self._bytes_max:
            self.drop([next(iter(self._rows))])

    def known(self) -> Mapping[int, Sequence[Message]]:
        """Give what is here now; later changes do not show in it."""
        return {row: messages for row, (messages, _) in self._rows.items()}

    def drop(self, rows: Iterable[int]) -> None:
        """Let rows go that are published."""
        for row in rows:
            _, size_bytes = self._rows.pop(row, ((), 0))
            self._bytes -= size_bytes
