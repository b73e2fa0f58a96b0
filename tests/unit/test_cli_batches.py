"""Many units at once, as typed: what is asked for, what is refused, and what is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

import coordinator.bootstrap
import coordinator.settings
from coordinator.cli import configuration, entry
from coordinator.cli.times import milliseconds_since, seconds_of
from coordinator.engine.units_api import ActionRefused
from coordinator.journal.selection import UnitFilter

FOUND = [
    {"unit": f"u-{n}", "status": "accepted", "received_at": "2026", "problem": None, "cause": None}
    for n in range(3)
]


class Journal:
    """Three units; the second has moved on by the time it is acted on."""

    def __init__(self) -> None:
        self.selected: list[tuple[UnitFilter, int]] = []
        self.done: list[tuple[str, str, str | None]] = []

    async def select(self, wanted: UnitFilter, limit: int) -> Sequence[Mapping[str, Any]]:
        self.selected.append((wanted, limit))
        return FOUND

    async def cancel(self, unit_id: str, reason: str | None) -> Mapping[str, Any]:
        if unit_id == "u-1":
            raise ActionRefused("Unit u-1 is committed; it cannot be cancelled.")
        self.done.append(("cancel", unit_id, reason))
        return FOUND[0]

    async def retry(self, unit_id: str, reason: str | None) -> Mapping[str, Any]:
        self.done.append(("retry", unit_id, reason))
        return FOUND[0]


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> Journal:
    made = Journal()

    @asynccontextmanager
    async def lend(_settings: object) -> AsyncIterator[Journal]:
        yield made

    def load(_path: Path | None, _overrides: Mapping[str, str]) -> object:
        return SimpleNamespace(redact=str)

    monkeypatch.setattr(coordinator.bootstrap, "operator", lend)
    monkeypatch.setattr(coordinator.bootstrap, "selector", lend)
    monkeypatch.setattr(coordinator.settings, "load_settings", load)
    monkeypatch.setattr(configuration, "_redact", str)
    return made


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, list[dict[str, Any]]]:
    monkeypatch.setattr("sys.argv", ["coordinator", "units", *arguments])
    with pytest.raises(SystemExit) as leaving:
        entry.main()
    assert isinstance(leaving.value.code, int)
    return leaving.value.code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_one_that_moved_on_is_told_and_the_others_go_on(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = run(
        monkeypatch, capsys, "cancel", "--all", "--older", "2h", "--yes", "--reason", "why"
    )
    assert code == 1
    assert [(each["unit"], each["result"]) for each in told] == [
        ("u-0", "done"),
        ("u-1", "left"),
        ("u-2", "done"),
    ]
    assert journal.done == [("cancel", "u-0", "why"), ("cancel", "u-2", "why")]
    ((wanted, limit),) = journal.selected
    assert (wanted.statuses, wanted.older_seconds, limit) == (("accepted",), 7200.0, 1000)


def test_a_dry_run_changes_nothing(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = run(monkeypatch, capsys, "retry", "--all", "--code", "undo_failed", "--dry-run")
    assert (code, len(told), journal.done) == (0, 3, [])
    assert journal.selected[0][0] == UnitFilter(statuses=("parked",), code="undo_failed")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments",
    [
        ("cancel",),
        ("cancel", "u-0", "--all", "--yes"),
        ("cancel", "u-0", "--yes"),
        ("cancel", "u-0", "--entity", "account"),
        ("cancel", "--all"),  # nobody is there to confirm it
        ("cancel", "--all", "--yes", "--key", "1"),
        ("cancel", "--all", "--yes", "--older", "soon"),
    ],
)
def test_what_is_ambiguous_is_refused_before_anything_is_done(
    arguments: tuple[str, ...],
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, told = run(monkeypatch, capsys, *arguments)
    assert (code, told, journal.done) == (2, [], [])


def test_spans_and_times() -> None:
    assert [seconds_of(text, "--older") for text in ("90s", "15m", "2h", "7d", None)] == [
        90.0,
        900.0,
        7200.0,
        604_800.0,
        None,
    ]
    assert milliseconds_since("1970-01-01T00:00:01Z", "--since") == 1000
    with pytest.raises(typer.BadParameter):
        milliseconds_since("999999999d", "--since")
    with pytest.raises(typer.BadParameter):
        milliseconds_since("2026-01-01T00:00:00", "--since")
