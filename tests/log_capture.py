"""What is logged, as it is logged: for tests that look at events while something runs."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from structlog.testing import LogCapture

from coordinator import logs


@contextmanager
def captured_log() -> Iterator[list[MutableMapping[str, Any]]]:
    """Take every event at every level instead of writing it; `log_level` is its level."""
    capture = LogCapture()
    processors, threshold = list(logs._PROCESSORS), logs._State.threshold
    logs._PROCESSORS[:] = [capture]
    logs._State.threshold = 10
    try:
        yield capture.entries
    finally:
        logs._PROCESSORS[:] = processors
        logs._State.threshold = threshold
