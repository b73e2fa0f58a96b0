"""How an exception is told: always where it came from, and what it says if that holds no row value.

The messages of databases, codecs and parsers quote what they were given: ``DETAIL: Key
(email)=(…)``, ``dup key: { email: … }``, ``invalid literal … '…'``. Row values stand in no log
above debug, so of such exceptions the type is told, and with it the SQLSTATE or the code. Our own
sentences, the system's and Kafka's hold no values. Secrets are masked elsewhere.
"""

from __future__ import annotations

import traceback
from typing import Final

_OUR_OWN: Final = "coordinator"
_OPEN_PACKAGES: Final = frozenset({_OUR_OWN, "aiokafka", "ssl", "asyncio"})
_OPEN_KINDS: Final = (
    OSError,
    ImportError,
    AttributeError,
    NameError,
    TypeError,
    MemoryError,
    RecursionError,
    NotImplementedError,
    RuntimeError,
)
"""Kinds whose messages speak of the system or of code, not of what is worked on."""


def message_of(error: BaseException) -> str:
    """Give what an exception says, or only its code if that could quote a row value."""
    if _is_open(error):
        return str(error)
    for name in ("sqlstate", "code"):
        if isinstance(code := getattr(error, name, None), str | int):
            return f"({name} {code})"
    return ""


def stack_of(error: BaseException) -> str:
    """Give the stack, causes included, as Python shows it, each message as `message_of`."""
    told = traceback.TracebackException.from_exception(error, compact=True)
    _close(told, error)
    return "".join(told.format())


def _close(told: traceback.TracebackException, error: BaseException) -> None:
    """Go through the chain of both side by side; what is not shown is left alone."""
    if not _is_open(error):
        told._str = message_of(error)  # type: ignore[attr-defined]
        told.__notes__ = None
    for ours, cause in (
        (told.__cause__, error.__cause__),
        (told.__context__, error.__context__),
    ):
        if ours is not None and cause is not None:
            _close(ours, cause)
    if isinstance(error, BaseExceptionGroup):
        for ours, inner in zip(told.exceptions or (), error.exceptions, strict=False):
            _close(ours, inner)


def _is_open(error: BaseException) -> bool:
    package = type(error).__module__.partition(".")[0]
    return package in _OPEN_PACKAGES or type(error) in _OPEN_KINDS or isinstance(error, OSError)
