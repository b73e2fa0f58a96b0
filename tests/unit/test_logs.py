"""Log lines: their shape, redaction, the bound on a slow reader, and the catalogue's page."""

import ast
import json
import logging
import os
import re
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from coordinator import logs
from coordinator.domain.errors import StoreUnavailable
from coordinator.log_events import CATALOGUE, LogEvent, render_page
from coordinator.log_lines import LineWriter
from coordinator.settings.redaction import Redactor

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/log-events.md"
log = logs.get_log()


class LogFile:
    """What is logged, to be read back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stream = path.open("w+b")

    def text(self) -> str:
        assert logs.flush(5)
        return self.path.read_text()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[LogFile]:
    handlers = list(logging.getLogger().handlers)
    file = LogFile(tmp_path / "log")
    logs.configure("json", "info", stream=file.stream)
    yield file
    logs.configure("json", "warning")
    file.stream.close()
    logging.captureWarnings(False)
    logging.getLogger().handlers[:] = handlers


def test_a_line_has_its_fields_in_order(log_file: LogFile) -> None:
    log.info(LogEvent.UNIT_FINISHED, "Done.", unit="u-1", duration_ms=6.1, code=None)
    [line] = log_file.lines()
    assert list(line) == ["timestamp", "level", "event", "message", "unit", "duration_ms"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["timestamp"])
    assert (line["level"], line["event"], line["unit"]) == ("info", "unit.finished", "u-1")


def test_what_is_below_the_level_is_not_written(log_file: LogFile) -> None:
    log.debug(LogEvent.UNIT_ACCEPTED, "Taken.", unit="u-1")
    assert not log.shows_debug
    assert log_file.lines() == []


def test_bound_fields_stand_in_every_line(log_file: LogFile) -> None:
    bound = log.bind(trace_id="t-1")
    bound.info(LogEvent.UNIT_FINISHED, "Done.")
    bound.warning(LogEvent.UNIT_PARKED, "Parked.")
    log.info(LogEvent.UNIT_FINISHED, "Done.")
    assert [line.get("trace_id") for line in log_file.lines()] == ["t-1", "t-1", None]


def test_an_error_has_its_stack_and_a_warning_has_not(log_file: LogFile) -> None:
    try:
        raise RuntimeError("gone")
    except RuntimeError as error:
        log.error(LogEvent.DAEMON_TASK_FAILED, "It died.", error=error)
        log.warning(LogEvent.DEPENDENCY_AWAY, "It is away.", error=error)
    loud, quiet = log_file.lines()
    assert (loud["error.type"], loud["error.message"]) == ("RuntimeError", "gone")
    assert "test_logs.py" in loud["error.stack"]
    assert "error.stack" not in quiet


@pytest.mark.parametrize("value", [2**80, "\ud800", {1: 2}, {"x"}, uuid.UUID(int=1), object()])
def test_whatever_is_passed_becomes_a_line(log_file: LogFile, value: object) -> None:
    log.info(LogEvent.UNIT_FINISHED, "Done.", unit="u-1", code=value)
    [line] = log_file.lines()
    assert line["unit"] == "u-1"


SECRETS = ("hunter2", 'qu"ote', "back\\slash", "ünïcode", "new\nline", "info", "1")


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_are_masked_everywhere_and_the_line_stays_json(
    log_file: LogFile, secret: str, log_format: logs.Format
) -> None:
    logs.configure(
        log_format, "info", lambda text: text.replace(secret, "***"), stream=log_file.stream
    )
    try:
        raise ConnectionError(f"postgresql://app:{secret}@h/db")
    except ConnectionError as error:
        log.error(
            LogEvent.DAEMON_TASK_FAILED,
            f"with {secret}",
            error=error,
            store=[{"deep": secret}],
            attempt=1,
        )
    text = log_file.text()
    if log_format == "json":
        [line] = log_file.lines()
        assert line["level"] == "error"
        shown = [line["message"], line["error.message"], line["error.stack"], line["store"]]
        text = json.dumps(shown, ensure_ascii=False).replace('\\"', '"').replace("\\\\", "\\")
    masked = text.replace("\\n", "\n")
    assert "with ***" in masked
    if len(secret) > 4:  # the short ones also occur in paths and line numbers
        assert secret not in masked


@pytest.mark.parametrize("code", [0x85, 0x9B, 0x2028, 0x2029, 0x202E, 0x2066])
def test_no_text_ends_a_line_or_turns_it_around(log_file: LogFile, code: int) -> None:
    """Some readers end a line at more characters than one, and a terminal obeys some."""
    hostile = f"a{chr(code)}forged"
    log.info(LogEvent.UNIT_FINISHED, "Done.", unit=hostile)
    [line] = log_file.lines()
    assert line["unit"] == hostile
    assert chr(code) not in log_file.text()
    logs.configure("console", "info", stream=log_file.stream)
    log.info(LogEvent.UNIT_FINISHED, "Done.", unit=hostile, error=ValueError(hostile))
    log.error(LogEvent.UNIT_FINISHED, "Done.", error=ValueError(hostile))
    assert chr(code) not in log_file.text()
    assert "forged" in log_file.text()


def test_a_console_line_cannot_be_forged(log_file: LogFile) -> None:
    logs.configure("console", "info", stream=log_file.stream)
    log.info(LogEvent.UNIT_FINISHED, "Done.\n12:00 forged", unit="\x1b[2J")
    assert len(log_file.text().splitlines()) == 1
    assert "\x1b" not in log_file.text()


def test_library_warnings_come_along_and_repeats_are_held_back(log_file: LogFile) -> None:
    library = logging.getLogger("aiokafka.test")
    for attempt in range(5):
        library.warning("no broker, attempt %d", attempt)
    library.info("chatter")
    [line] = log_file.lines()
    assert (line["event"], line["logger"]) == ("library.message", "aiokafka.test")
    assert line["message"] == "no broker, attempt 0"


def test_what_aiokafka_retries_by_itself_is_no_error_of_ours(log_file: LogFile) -> None:
    library = logging.getLogger("aiokafka.consumer.test")
    for _ in range(3):
        library.error("Group Coordinator Request failed: %s", LookupError("not available"))
    try:
        raise LookupError("a fault")
    except LookupError:
        library.exception("Unexpected error in coordinator routine")
    logging.getLogger("asyncio").error("Task exception was never retrieved")
    levels = [(line["level"], line["message"][:11]) for line in log_file.lines()]
    assert levels == [
        ("warning", "Group Coord"),
        ("error", "Unexpected "),
        ("error", "Task except"),
    ]


def test_repeats_are_counted_when_their_time_is_over(
    log_file: LogFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ns = 10**18
    monkeypatch.setattr(logs, "time_ns", lambda: now_ns)
    library = logging.getLogger("aiokafka.quiet.test")
    for second in (0, 1, 9, 11, 12):
        now_ns = 10**18 + second * 10**9
        library.error("no broker, second %d", second)
    assert [(line["message"], line.get("repeated")) for line in log_file.lines()] == [
        ("no broker, second 0", None),
        ("no broker, second 11", 2),
    ]


def test_a_reader_that_does_not_read_costs_lines_and_no_time() -> None:
    reader, writer = os.pipe()
    lines = LineWriter(writer, on_dropped=lambda n: b"dropped %d\n" % n, buffer_bytes_max=200_000)
    sent = 5_000
    for number in range(sent):
        lines.write(b"%099d\n" % number)
    assert not lines.flush(0.05)  # the pipe is full, and this thread is not
    text, told = bytearray(), 0
    kept: list[int] = []
    while len(kept) + told < sent:
        text += os.read(reader, 65_536)
        shown = text[: text.rfind(b"\n") + 1].decode().splitlines()
        kept = [int(line) for line in shown if not line.startswith("dropped ")]
        told = sum(int(line[8:]) for line in shown if line.startswith("dropped "))
    assert told > 0
    assert kept == sorted(kept)
    lines.close(5)
    os.close(reader)
    os.close(writer)


def test_a_reader_that_has_gone_away_is_no_fault() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    lines = LineWriter(writer, on_dropped=lambda _: b"")
    for _ in range(10):
        lines.write(b"x\n")
        assert lines.flush(5)
    lines.close(5)
    os.close(writer)


def test_lines_reach_stdout_before_the_process_ends() -> None:
    import subprocess

    program = (
        "from coordinator import logs; from coordinator.log_events import LogEvent\n"
        "logs.configure()\n"
        "for n in range(1000): logs.get_log().info(LogEvent.UNIT_FINISHED, 'x', offset=n)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert [json.loads(line)["offset"] for line in done.stdout.splitlines()] == list(range(1000))


def test_every_event_is_in_the_catalogue_once() -> None:
    assert sorted(entry.event for entry in CATALOGUE) == sorted(LogEvent)


def test_names_are_dotted_and_levels_known() -> None:
    for entry in CATALOGUE:
        assert re.fullmatch(r"[a-z_]+\.[a-z_]+", entry.event)
        assert entry.level in ("debug", "info", "warning", "error")
        if entry.level == "error":
            assert entry.remedy != "None needed."


class Call(NamedTuple):
    """A call of a log method somewhere in the package."""

    place: str
    events: tuple[str, ...]
    fields: frozenset[str]


def calls() -> Iterator[Call]:
    for path in sorted((ROOT / "coordinator").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            events = named(node.args[0]) if node.args else ()
            if events or is_log_method(node.func):
                given = frozenset(each.arg for each in node.keywords if each.arg is not None)
                yield Call(f"{path.relative_to(ROOT)}:{node.lineno}", events, given)


def named(argument: ast.expr) -> tuple[str, ...]:
    """The events that a first argument can be, none when it is something else."""
    if isinstance(argument, ast.IfExp):
        return (*named(argument.body), *named(argument.orelse))
    text = ast.unparse(argument)
    return (text.removeprefix("LogEvent."),) if text.startswith("LogEvent.") else ()


def is_log_method(function: ast.expr) -> bool:
    if not isinstance(function, ast.Attribute):
        return False
    is_log = ast.unparse(function.value).lower().endswith("log")
    return is_log and function.attr in ("debug", "info", "warning", "error", "exception")


def test_every_call_in_the_package_names_an_event_of_the_catalogue() -> None:
    known = {each.name for each in LogEvent}
    found = list(calls())
    assert len(found) > 40
    assert [call.place for call in found if not call.events or set(call.events) - known] == []


def test_every_event_is_logged_somewhere() -> None:
    used = {event for call in calls() for event in call.events}
    elsewhere = {"LIBRARY_MESSAGE", "LOG_DROPPED"}  # by `logs` itself
    assert {each.name for each in LogEvent} - used - elsewhere == set()


def test_there_is_no_other_way_to_log() -> None:
    texts = {path: path.read_text() for path in (ROOT / "coordinator").rglob("*.py")}
    others = [
        path.name
        for path, text in texts.items()
        if re.search("^(import|from) structlog", text, re.M)
    ]
    assert others == ["logs.py"]


def test_calls_pass_only_the_fields_of_their_event() -> None:
    fields = {entry.event.name: {*entry.fields} for entry in CATALOGUE}
    for known in fields.values():
        known.update(["error"] if "error.type" in known else [])
    unlisted = [
        f"{call.place} {field}"
        for call in calls()
        for event in call.events
        for field in sorted(call.fields - fields[event])
    ]
    assert unlisted == [], "add the fields to the event's entry in coordinator/log_events.py"


def test_the_page_is_generated() -> None:
    assert PAGE.read_text() == render_page(), "run: python -m coordinator.log_events > the page"


def test_half_a_secret_is_not_left_where_a_text_is_cut(log_file: LogFile) -> None:
    logs.configure("json", "info", Redactor(["opensesame"]), stream=log_file.stream)
    for length in range(4_080, 4_100):
        log.warning(
            LogEvent.DEPENDENCY_AWAY, "Away.", error=OSError("x" * length + "opensesame" * 3)
        )
    assert "open" not in log_file.text()
    assert "esame" not in log_file.text()


def test_names_within_fields_are_masked_too(log_file: LogFile) -> None:
    logs.configure("json", "info", Redactor(["opensesame"]), stream=log_file.stream)
    log.info(LogEvent.UNIT_FINISHED, "Done.", reason={"opensesame": [{"opensesame": 1}]})
    assert log_file.lines()[0]["reason"] == {"***": [{"***": 1}]}


class Told(Exception):
    sqlstate = "23505"


def test_what_could_quote_a_row_is_told_by_its_code(log_file: LogFile) -> None:
    detail = f"DETAIL: Key (email)=({'@'.join(('ann', 'example.org'))}) already exists."
    try:
        try:
            raise Told(detail)
        except Told as error:
            raise StoreUnavailable("ledger", "it is away") from error
    except StoreUnavailable as error:
        group = ExceptionGroup("two", [error, ValueError(detail)])
        log.error(LogEvent.DAEMON_TASK_FAILED, "It died.", error=group)
        log.warning(LogEvent.DEPENDENCY_AWAY, "Away.", error=error.__cause__)
        log.warning(LogEvent.DEPENDENCY_AWAY, "Away.", error=error)
    assert "ann@example.org" not in log_file.text()
    grave, code, ours = log_file.lines()
    assert "Told: (sqlstate 23505)" in grave["error.stack"]
    assert "StoreUnavailable: ledger: it is away" in grave["error.stack"]
    assert code["error.message"] == "(sqlstate 23505)"
    assert ours["error.message"] == "ledger: it is away"
