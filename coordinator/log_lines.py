"""The way from a finished log line to a file descriptor, without ever blocking the caller.

Owns a bounded buffer and the thread that empties it. A reader that is too slow costs lines, which
are counted, never time of the event loop; a reader that has gone away costs all of them.
"""

from __future__ import annotations

import atexit
import errno
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

BUFFER_BYTES_MAX: Final = 8 * 1024 * 1024
_COALESCE_SECONDS: Final = 0.01
"""How long the thread lets lines gather, so that a busy daemon pays a system call per many."""
_WRITE_BYTES_MAX: Final = 256 * 1024


class LineWriter:
    """Writes lines to a file descriptor from a thread of its own, in their order."""

    def __init__(
        self,
        descriptor: int,
        *,
        on_dropped: Callable[[int], bytes],
        buffer_bytes_max: int = BUFFER_BYTES_MAX,
    ) -> None:
        """``on_dropped`` makes the line that tells how many lines were dropped."""
        self._descriptor = descriptor
        self._on_dropped = on_dropped
        self._buffer_bytes_max = buffer_bytes_max
        self._lines: deque[bytes] = deque()
        self._queued_bytes = 0
        self._written_bytes = 0
        self._dropped = 0
        self._asleep = True
        self._closed = False
        self._broken = False
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._emptied = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()
        atexit.register(self.flush, 1.0)

    def write(self, line: bytes) -> None:
        """Queue one line, newline included; drop and count it when the buffer is full.

        The two counters have one writer thread each in practice (the event loop and ours); a
        line logged from another thread at the same instant may blur the bound by its length.
        """
        if self._queued_bytes - self._written_bytes > self._buffer_bytes_max:
            self._dropped += 1
            return
        self._queued_bytes += len(line)
        self._lines.append(line)
        if self._asleep:
            self._asleep = False
            self._wake.set()

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until what is queued now is written, or the time is over; whether it is written."""
        self._hurry.set()
        self._wake.set()
        try:
            with self._emptied:
                return self._emptied.wait_for(self._is_empty, timeout_seconds)
        finally:
            self._hurry.clear()

    def close(self, timeout_seconds: float) -> None:
        """Flush and end the thread. The descriptor stays open: it is not ours."""
        self.flush(timeout_seconds)
        self._closed = True
        self._hurry.set()
        self._wake.set()
        self._thread.join(timeout_seconds)
        atexit.unregister(self.flush)

    def _is_empty(self) -> bool:
        return self._broken or (not self._lines and self._asleep)

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait()
            self._wake.clear()
            self._hurry.wait(_COALESCE_SECONDS)
            self._write_gathered()
            self._asleep = True
            if self._lines:  # came between the last look and the nap
                self._asleep = False
                self._wake.set()
            with self._emptied:
                self._emptied.notify_all()

    def _write_gathered(self) -> None:
        while self._lines and not self._broken:
            gathered = bytearray()
            while self._lines and len(gathered) < _WRITE_BYTES_MAX:
                gathered += self._lines.popleft()
            if self._dropped:
                lines, self._dropped = self._dropped, 0
                gathered += self._on_dropped(lines)
            self._write_all(memoryview(gathered))
        if self._broken:
            self._lines.clear()
            self._written_bytes = self._queued_bytes

    def _write_all(self, rest: memoryview) -> None:
        length = len(rest)
        while rest and not self._broken:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # somebody made stdout non-blocking
                select.select([], [self._descriptor], [], 1.0)
            except OSError as error:
                # The reader is gone for good, or it is a file on a full disk: then these lines.
                self._broken = error.errno in (errno.EPIPE, errno.EBADF, errno.EIO)
                break
        self._written_bytes += length
