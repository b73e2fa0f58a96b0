"""What ``coordinator check`` found: `coordinator.bootstrap` fills it, the command shows it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How one thing that was checked stands."""

    OK = "ok"
    WARNING = "warning"
    AWAY = "away"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked: ``subject`` such as ``entity account`` or ``store ledger``."""

    subject: str
    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Everything that was checked, in the order of its being checked."""

    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """2 when something is wrong, 1 when a server is away (F35), else 0."""
        verdicts = {finding.verdict for finding in self.findings}
        if Verdict.WRONG in verdicts:
            return 2
        return 1 if Verdict.AWAY in verdicts else 0
