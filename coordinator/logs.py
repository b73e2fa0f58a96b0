"""Logs: one JSON object per line on stdout, or aligned text for a terminal (DESIGN 2.7).

Owns the structlog set-up, the shape of a line, redaction and the way to stdout. Refuses event
names that are not in `coordinator.log_events`, and never blocks or fails its caller.

::

    log = get_log()
    log.info(LogEvent.UNIT_FINISHED, "The unit is committed.", unit=unit_id, duration_ms=6.1)
    log.error(LogEvent.DAEMON_TASK_FAILED, "The relay died.", task="relay", error=exception)

``error=`` takes an exception and becomes ``error.type`` and ``error.message``, at level error
``error.stack`` as well; what could quote a row value is left out (see `error_texts`). Fields are
named by the catalogue; row values may be passed at debug only.

**Slow readers.** A full stdout pipe would block the event loop, the lease would run out and a
healthy worker be fenced. So lines go into a bounded buffer that a thread writes; beyond the bound
they are dropped and counted (``log.dropped``). What a ``kill -9`` can lose is the last
hundredth of a second; `flush` is called on every ordinary way out.

**Redaction** (F39) is paid for only when something is found: the finished line is searched once;
when it holds a secret, or an escape that could hide one, its strings are masked one by one and
the line is rendered again. So a line stays valid JSON whatever the secret looks like.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from time import time_ns
from typing import Any, BinaryIO, Literal

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

from coordinator.error_texts import message_of, stack_of
from coordinator.log_events import LogEvent
from coordinator.log_lines import LineWriter
from coordinator.plain_text import lines, one_line, plain_json

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["json", "console"]
Redact = Callable[[str], str]

_NUMBERS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_TEXT_CHARACTERS_MAX = 4_096
_STACK_CHARACTERS_MAX = 16_384


class _State:
    """What `configure` sets and every call reads; one per process, as stdout is."""

    threshold = 30
    redact: Redact | None = None
    console: Callable[[EventDict], str] | None = None


class EventLog(structlog.BoundLoggerBase):
    """The logger: an event of the catalogue, a sentence, and named fields.

    ``bind(unit=…)`` gives one that adds these fields to every line.
    """

    def debug(self, event: LogEvent, message: str, **fields: object) -> None:
        """Log what only helps while looking for a fault; the only level that may hold values."""
        if _State.threshold <= 10:
            self._emit("debug", event, message, fields)

    def info(self, event: LogEvent, message: str, **fields: object) -> None:
        """Log what an operator wants to see happen."""
        if _State.threshold <= 20:
            self._emit("info", event, message, fields)

    def warning(self, event: LogEvent, message: str, **fields: object) -> None:
        """Log what may need somebody if it lasts."""
        if _State.threshold <= 30:
            self._emit("warning", event, message, fields)

    def error(self, event: LogEvent, message: str, **fields: object) -> None:
        """Log what needs somebody; an ``error=`` exception is shown with its stack."""
        if _State.threshold <= 40:
            self._emit("error", event, message, fields)

    def _emit(self, level: str, event: LogEvent, message: str, fields: EventDict) -> None:
        if len(_PROCESSORS) > 1 or _PROCESSORS[0] is not _render:  # structlog's own, in a test
            self._proxy_to_logger(level, event, message=message, **fields)
            return
        # What structlog does for one processor, without looking for the others: a line per unit
        # is on the hot path.
        fields["event"], fields["message"] = event, message
        if self._context:
            fields = {**self._context, **fields}
        self._logger.info(_render(self._logger, level, fields))

    @property
    def shows_debug(self) -> bool:
        """Whether debug lines are written: ask before preparing anything costly for one."""
        return _State.threshold <= 10


class _Sink:
    """What structlog calls with a finished line."""

    def __init__(self) -> None:
        self.writer: LineWriter | None = None

    def debug(self, line: bytes) -> None:
        if self.writer is None:
            self.writer = LineWriter(_stdout(), on_dropped=_dropped_line)
        self.writer.write(line)

    info = warning = error = debug


def _stdout() -> int:
    try:
        return sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # closed, or replaced by something without one
        return 1


def _dropped_line(lines: int) -> bytes:
    message = f"{lines} log lines were dropped: stdout is read too slowly."
    event = {"event": LogEvent.LOG_DROPPED, "message": message, "lines": lines}
    return _render(None, "warning", event)


_clock_second = -1
_clock_text = ""


def _timestamp() -> str:
    """Give RFC 3339 in UTC with microseconds; the part up to the second is kept between calls."""
    global _clock_second, _clock_text  # noqa: PLW0603 - a cache of one entry
    second, nanoseconds = divmod(time_ns(), 1_000_000_000)
    if second != _clock_second:
        from datetime import UTC, datetime

        _clock_text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
        _clock_second = second
    return f"{_clock_text}{nanoseconds // 1000:06d}Z"


def _render(_logger: WrappedLogger, level: str, event_dict: EventDict) -> bytes:
    """Make the line, newline included. The one processor of ours that every line goes through."""
    line: EventDict = {
        "timestamp": _timestamp(),
        "level": level,
        "event": event_dict.pop("event", None),
        "message": event_dict.pop("message", ""),
    }
    if "error" in event_dict:
        _expand_error(level, event_dict)
    if None in event_dict.values():  # a field that does not apply is left out
        event_dict = {name: value for name, value in event_dict.items() if value is not None}
    line.update(event_dict)
    if _State.console is not None:
        return _State.console(_masked(line)).encode("utf-8", "backslashreplace") + b"\n"
    text = _dump(line)
    redact = _State.redact
    if redact is not None and (b"\\" in text or _finds(redact, text)):
        text = _dump(_masked(line))
    return text


def _finds(redact: Redact, text: bytes) -> bool:
    shown = text.decode()
    return redact(shown) != shown


def _dump(line: EventDict) -> bytes:
    try:
        text = orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE)
        return text if text.isascii() else plain_json(text.decode()).encode()
    except TypeError:  # an integer past 64 bit, a lone surrogate, a key that is no string
        import json

        return json.dumps(line, default=str, skipkeys=True).encode() + b"\n"


def _expand_error(level: str, event_dict: EventDict) -> None:
    error = event_dict.pop("error")
    if not isinstance(error, BaseException):
        event_dict["error.message"] = _cut(str(error), _TEXT_CHARACTERS_MAX)
        return
    event_dict["error.type"] = type(error).__qualname__
    event_dict["error.message"] = _cut(message_of(error), _TEXT_CHARACTERS_MAX) or None
    if level == "error":
        event_dict["error.stack"] = _cut(stack_of(error), -_STACK_CHARACTERS_MAX)


_OUR_OWN = frozenset({"timestamp", "level", "event"})


def _cut(text: str, characters: int) -> str:
    """Keep the first so many characters, or the last; masked before, so that no half is left."""
    redact = _State.redact
    whole = text if redact is None else redact(text)
    return whole[:characters] if characters > 0 else whole[characters:]


def _masked(value: Any) -> Any:
    """Mask every string within, at any depth, before JSON escapes can hide a secret."""
    redact = _State.redact
    if redact is None:
        return value
    if isinstance(value, dict):
        return {
            _masked(name): item if name in _OUR_OWN else _masked(item)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact(str(value))


class _LibraryHandler(logging.Handler):
    """Takes the lines of drivers and asyncio; the same one within ten seconds is only counted."""

    QUIET_NS = 10_000_000_000
    KINDS_MAX = 256

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, str], list[int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        try:
            repeated = self._repeated(record)
            if repeated is None:
                return
            fields: dict[str, object] = {"logger": record.name}
            if repeated:
                fields["repeated"] = repeated
            if record.exc_info and record.exc_info[1] is not None:
                fields["error"] = record.exc_info[1]
            message = _library_message(record)
            method = _LOG.error if _is_grave(record) else _LOG.warning
            method(LogEvent.LIBRARY_MESSAGE, message, **fields)
        except Exception:
            # As the standard library does: a log line must not take its caller down.
            self.handleError(record)

    def _repeated(self, record: logging.LogRecord) -> int | None:
        """Give how many were held back since the last one shown, or None to hold this back."""
        kind = (record.name, str(record.msg)[:200])
        now = time_ns()
        entry = self._seen.get(kind)
        if entry is not None and now - entry[0] < self.QUIET_NS:
            entry[1] += 1
            return None
        if len(self._seen) >= self.KINDS_MAX:
            self._seen.clear()
        self._seen[kind] = [now, 0]
        return entry[1] if entry is not None else 0


def _library_message(record: logging.LogRecord) -> str:
    """Give the text; of asyncio's its first line, since representations of anything follow."""
    message = _cut(record.getMessage(), _TEXT_CHARACTERS_MAX)
    return message.partition("\n")[0] if record.name == "asyncio" else message


def _is_grave(record: logging.LogRecord) -> bool:
    """Whether a library's line is an error of ours.

    aiokafka calls each of its own retries an error, several a second while a broker is away. What
    it gives up on it raises, and that has an event of ours; with a traceback it is a fault.
    """
    if record.levelno < logging.ERROR:
        return False
    is_retry = record.name.partition(".")[0] == "aiokafka" and not record.exc_info
    return not is_retry


_SINK = _Sink()
_PROCESSORS: list[structlog.typing.Processor] = [_render]
_LOG = EventLog(_SINK, _PROCESSORS, {})


def get_log() -> EventLog:
    """Give the process's logger. May be called at import, before `configure`."""
    return _LOG


def configure(
    log_format: Format = "json",
    level: Level = "info",
    redact: Redact | None = None,
    *,
    stream: BinaryIO | None = None,
) -> None:
    """Set the format, the level and the redaction for the whole process; may be called again.

    ``redact`` masks every secret in a text, URL-encoded ones too. ``stream`` replaces stdout
    and must have a file descriptor. Loggers of libraries are routed here from warning upwards.
    """
    if _SINK.writer is not None:
        _SINK.writer.close(timeout_seconds=1)
    descriptor = _stdout() if stream is None else stream.fileno()
    _SINK.writer = LineWriter(descriptor, on_dropped=_dropped_line)
    _State.threshold = _NUMBERS[level]
    _State.redact = redact
    _State.console = _console(descriptor) if log_format == "console" else None
    structlog.configure(
        processors=_PROCESSORS,
        wrapper_class=EventLog,
        logger_factory=lambda *_: _SINK,
        cache_logger_on_first_use=False,
    )
    _route_libraries()


def _route_libraries() -> None:
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _LibraryHandler):
            root.removeHandler(handler)
    root.addHandler(_LibraryHandler())
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)


def _console(descriptor: int) -> Callable[[EventDict], str]:
    colours = os.isatty(descriptor) and not os.environ.get("NO_COLOR")
    dim, bold, reset = ("\x1b[2m", "\x1b[1m", "\x1b[0m") if colours else ("", "", "")
    tint = {"warning": "\x1b[33m", "error": "\x1b[31m"} if colours else {}

    def render(line: EventDict) -> str:
        level = line["level"]
        stack = line.pop("error.stack", None)
        clock = line["timestamp"][11:23]
        head = f"{dim}{clock}{reset} {tint.get(level, '')}{level:<7}{reset} {line['event']:<24}"
        pairs = list(line.items())[4:]
        fields = " ".join(f"{dim}{name}={reset}{one_line(str(value))}" for name, value in pairs)
        text = f"{head} {bold}{one_line(str(line['message']))}{reset} {fields}".rstrip()
        if stack is None:
            return text
        return f"{text}\n{lines(stack.rstrip())}"

    return render


def flush(timeout_seconds: float = 1.0) -> bool:
    """Wait until every line so far is written, in bounded time; whether it is."""
    return _SINK.writer is None or _SINK.writer.flush(timeout_seconds)
