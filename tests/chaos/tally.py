"""What a round of faults did, in numbers, told at the end of the run: ``pytest -p`` this module.

Each case tells its part by properties of its report, which reach the process that prints the
summary also when the cases are shared among several.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

ACTIONS = {"kill": "kills", "freeze": "freezes", "lose": "lost answers", "fail": "refused answers"}
Tell = Callable[[str, object], None]
"""The fixture `record_property`: name and value."""

_told: Counter[str] = Counter()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up what a case told."""
    if report.when == "call":
        _told.update({name: int(str(count)) for name, count in report.user_properties})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the sums."""
    actions = ", ".join(f"{_told[each]} {name}" for each, name in ACTIONS.items())
    ends = {each.removeprefix("unit "): n for each, n in _told.items() if each.startswith("unit ")}
    outcomes = ", ".join(f"{count} {status}" for status, count in sorted(ends.items()))
    terminalreporter.write_sep("-", "faults on purpose")
    for line in (
        f"cases: {sum(_told[each] for each in ACTIONS)} ({actions})",
        f"daemons: {_told['taken over']} taken over from, {_told['fenced']} of them woke and left",
        f"units: {sum(ends.values())} ({outcomes})",
        f"violations: {_told['violations']}",
    ):
        terminalreporter.write_line(line)
