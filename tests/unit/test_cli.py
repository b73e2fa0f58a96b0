"""The commands from the outside: exit codes, where output goes, and what it looks like."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from coordinator import __version__
from coordinator.cli import configuration, entry
from coordinator.daemon.check_report import CheckReport, Finding, Verdict
from coordinator.domain.errors import ConfigurationInvalid, StoreUnavailable
from coordinator.engine.units_api import UnitUnknown

SECRET = "hunter2"


class Units:
    """A `UnitsApi` with one parked unit."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    async def show(self, unit_id: str) -> Mapping[str, Any] | None:
        if unit_id == "away":
            raise StoreUnavailable("journal", f"password {SECRET}")
        if unit_id == "bug":
            raise RuntimeError(f"password {SECRET}")
        return self._view() if unit_id == "p-1" else None

    async def list(self, status: str | None, limit: int) -> list[Mapping[str, Any]]:
        self.asked.append(("list", status, limit))
        return [self._view()]

    async def retry(self, unit_id: str, reason: str | None) -> Mapping[str, Any]:
        return self._note("retry", unit_id, reason)

    async def resolve(self, unit_id: str, as_status: str, reason: str) -> Mapping[str, Any]:
        return self._note("resolve", unit_id, as_status, reason)

    async def cancel(self, unit_id: str, reason: str | None) -> Mapping[str, Any]:
        return self._note("cancel", unit_id, reason)

    def _view(self) -> Mapping[str, Any]:
        return {"unit": "p-1", "status": "parked", "outcome": None}

    def _note(self, *asked: object) -> Mapping[str, Any]:
        if asked[1] != "p-1":
            raise UnitUnknown(str(asked[1]))
        self.asked.append(asked)
        return self._view()


class Shell:
    """Runs command lines in this process, with a settings file and a journal of our own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.units = Units()
        self.report = CheckReport(())
        self.loaded: list[tuple[object, object]] = []
        self._monkeypatch, self._capsys = monkeypatch, capsys
        settings_module = ModuleType("coordinator.settings")
        settings_module.load_settings = self._load  # type: ignore[attr-defined]
        bootstrap = ModuleType("coordinator.bootstrap")
        bootstrap.operator = self._operator  # type: ignore[attr-defined]
        bootstrap.check = self._check  # type: ignore[attr-defined]
        bootstrap.migrate = self._check  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "coordinator.settings", settings_module)
        monkeypatch.setitem(sys.modules, "coordinator.bootstrap", bootstrap)
        monkeypatch.setattr(configuration, "_redact", str)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["coordinator", *arguments])
        with pytest.raises(SystemExit) as leaving:
            entry.main()
        out, err = self._capsys.readouterr()
        assert isinstance(leaving.value.code, int)
        return leaving.value.code, out, err

    def _load(self, path: Path | None, overrides: Mapping[str, str]) -> object:
        self.loaded.append((path, overrides))
        if path == Path("wrong.toml"):
            raise ConfigurationInvalid(["wrong.toml: kafka: missing", "wrong.toml: stores: empty"])
        return SimpleNamespace(
            redact=lambda text: text.replace(SECRET, "***"),
            http=SimpleNamespace(listen="127.0.0.1:9"),
        )

    @asynccontextmanager
    async def _operator(self, _settings: object) -> AsyncIterator[Units]:
        yield self.units

    async def _check(self, _settings: object) -> CheckReport:
        return self.report


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


def test_the_version_needs_no_configuration(shell: Shell) -> None:
    assert shell.run("version") == (0, __version__ + "\n", "")
    assert shell.loaded == []


def test_the_shell_completes_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the installed script asks for when somebody has typed ``coordinator dead-letters d``."""
    monkeypatch.setenv("_COORDINATOR_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "coordinator dead-letters d")
    monkeypatch.setenv("COMP_CWORD", "2")
    monkeypatch.setattr(sys, "argv", ["coordinator"])
    with pytest.raises(SystemExit) as leaving:
        entry.main()
    assert (leaving.value.code, capsys.readouterr().out.split()) == (0, ["discard"])


def test_wrong_configuration_gives_two_and_every_mistake_a_line(shell: Shell) -> None:
    assert shell.run("check", "--config", "wrong.toml") == (
        2,
        "",
        "wrong.toml: kafka: missing\nwrong.toml: stores: empty\n",
    )


def test_overrides_reach_the_settings(shell: Shell) -> None:
    shell.run("check", "--config", "c.toml", "--set", "kafka.group_id=a=b", "--set", "log.level=")
    assert shell.loaded == [(Path("c.toml"), {"kafka.group_id": "a=b", "log.level": ""})]
    code, _, err = shell.run("check", "--set", "kafka")
    assert (code, err) == (2, "--set kafka: write it as NAME=VALUE\n")


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ((), 0),
        ((Verdict.OK, Verdict.WARNING), 0),
        ((Verdict.AWAY, Verdict.OK), 1),
        ((Verdict.AWAY, Verdict.WRONG), 2),
    ],
)
def test_check_exits_as_the_worst_finding(
    shell: Shell, verdicts: tuple[Verdict, ...], code: int
) -> None:
    shell.report = CheckReport(tuple(Finding("store x", verdict, "why") for verdict in verdicts))
    got, out, _ = shell.run("check")
    assert got == code
    assert [json.loads(line)["verdict"] for line in out.splitlines()] == list(verdicts)


def test_the_commands_for_a_parked_unit(shell: Shell) -> None:
    code, out, _ = shell.run("units", "list", "--status", "parked")
    assert (code, json.loads(out)["unit"]) == (0, "p-1")
    assert shell.run("units", "show", "p-1")[0] == 0
    assert shell.run("units", "retry", "p-1")[0] == 0
    resolve = ("units", "resolve", "p-1", "--as", "compensated", "--reason", "by hand")
    assert shell.run(*resolve)[0] == 0
    assert shell.run("units", "cancel", "p-1", "--reason", "enough")[0] == 0
    assert shell.units.asked == [
        ("list", "parked", 100),
        ("retry", "p-1", None),
        ("resolve", "p-1", "compensated", "by hand"),
        ("cancel", "p-1", "enough"),
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("units", "resolve", "p-1", "--as", "committed", "--reason", "x"),
        ("units", "resolve", "p-1", "--as", "compensated"),
        ("units", "resolve", "p-1", "--as", "compensated", "--reason", " "),
        ("units", "list", "--status", "lost"),
        ("units", "retry"),
        ("no-such-command",),
    ],
)
def test_wrong_usage_gives_two_and_does_nothing(shell: Shell, arguments: tuple[str, ...]) -> None:
    code, out, err = shell.run(*arguments)
    assert (code, out) == (2, "")
    assert err
    assert shell.units.asked == []


@pytest.mark.parametrize("action", ["show", "retry"])
def test_an_unknown_unit_is_a_failure(shell: Shell, action: str) -> None:
    assert shell.run("units", action, "nobody") == (
        1,
        "",
        "coordinator: There is no unit nobody.\n",
    )


@pytest.mark.parametrize("unit_id", ["away", "bug"])
def test_no_fault_shows_a_secret(shell: Shell, unit_id: str) -> None:
    code, out, err = shell.run("units", "show", unit_id)
    assert (code, out) == (1, "")
    assert "password ***" in err
    assert SECRET not in err


def test_health_fails_when_nobody_answers(shell: Shell) -> None:
    code, out, _ = shell.run("health")
    assert code == 1
    assert "127.0.0.1:9" in json.loads(out)["error"]


PROGRAM = """
import sys
from coordinator.cli import entry, output
@entry.app.command()
def rows(count: int):
    output.show_rows([{"unit": f"u-{n}", "status": "parked"} for n in range(count)],
                     ("unit", "status"), empty="There is none.")
entry.main()
"""


def rows(count: int, **options: Any) -> "subprocess.Popen[bytes]":
    arguments = [sys.executable, "-c", PROGRAM, "rows", str(count)]
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, **options)


def test_rows_are_json_lines_in_a_pipe() -> None:
    out, _ = rows(2, stdout=subprocess.PIPE).communicate(timeout=20)
    assert out == b'{"unit":"u-0","status":"parked"}\n{"unit":"u-1","status":"parked"}\n'


@pytest.mark.parametrize(("count", "shown"), [(1, b"u-0"), (0, b"There is none.")])
def test_rows_are_a_table_on_a_terminal(count: int, shown: bytes) -> None:
    ours, theirs = pty.openpty()
    process = rows(count, stdout=theirs, env={**os.environ, "NO_COLOR": "1", "TERM": "xterm"})
    os.close(theirs)
    text = b""
    try:
        while chunk := os.read(ours, 4096):
            text += chunk
    except OSError:  # how Linux tells that the other side has closed
        pass
    os.close(ours)
    process.communicate(timeout=20)
    assert shown in text
    assert b"{" not in text
    assert b"\x1b[3" not in text


def test_a_reader_that_leaves_early_is_not_complained_of() -> None:
    process = rows(20_000, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(20) != 0


def test_starting_up_imports_nothing_heavy() -> None:
    program = (
        "import sys, coordinator.cli.entry\n"
        "heavy = {'aiokafka', 'asyncpg', 'motor', 'pymongo', 'aiohttp', 'pydantic', 'structlog'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"[]\n"


def test_every_command_is_on_the_page(shell: Shell) -> None:
    page = (Path(__file__).parents[2] / "docs/reference/commands.md").read_text()
    _, out, _ = shell.run("--help")
    commands = [line.split()[0] for line in out.partition("Commands:")[2].splitlines() if line]
    assert "submit" in commands
    assert [name for name in commands if f"\n## {name}" not in page] == []
