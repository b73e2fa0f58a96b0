"""What a round of faults did, in numbers, told at the end of the run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest

_NAMES = {"kill": "kills", "freeze": "freezes", "lose": "lost answers", "fail": "refused answers"}


@dataclass
class Tally:
    """The numbers of one round."""

    actions: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    takeovers: int = 0
    fenced: int = 0
    violations: int = 0

    def lines(self) -> list[str]:
        actions = ", ".join(f"{self.actions[each]} {name}" for each, name in _NAMES.items())
        outcomes = ", ".join(f"{count} {status}" for status, count in self.outcomes.most_common())
        return [
            f"cases: {self.actions.total()} ({actions})",
            f"daemons: {self.takeovers} taken over from, {self.fenced} of them woke and left",
            f"units: {self.outcomes.total()} ({outcomes})",
            f"violations: {self.violations}",
        ]


class Summary:
    """A plugin that shows a tally."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.write_sep("-", "faults on purpose")
        for line in self._tally.lines():
            terminalreporter.write_line(line)
