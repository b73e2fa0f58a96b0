"""How the driver's failures are told apart: a broker that is away, or what a batch holds."""

from __future__ import annotations

import gzip

from aiokafka.errors import CorruptRecordException, KafkaError, UnsupportedCodecError

POLL_MS = 100
"""How long one fetch waits for something to read."""

_OF_CONTENT = (CorruptRecordException, UnsupportedCodecError, gzip.BadGzipFile)
"""Kinds of `KafkaError` and `OSError` that speak of a batch and not of a broker."""


class ConsumerBroken(Exception):
    """The driver failed; ``cause`` is what it raised. Nothing it holds is to be trusted.

    ``unpacking``: it was a record that it could not unpack, not a broker.
    """

    def __init__(self, cause: Exception, *, unpacking: bool = False) -> None:
        super().__init__(repr(cause))
        self.cause = cause
        self.unpacking = unpacking


def is_unpacking(error: Exception) -> bool:
    """Whether the driver stumbled over what a batch holds, so that asking again is of no use."""
    return isinstance(error, _OF_CONTENT) or not isinstance(error, KafkaError | OSError)
