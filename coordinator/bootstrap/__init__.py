"""The composition root: the only place that knows concrete classes."""

from coordinator.bootstrap.checking import check
from coordinator.bootstrap.daemon import run_daemon
from coordinator.bootstrap.doctoring import doctor
from coordinator.bootstrap.explaining import explain_submissions, situation
from coordinator.bootstrap.operating import migrate, operator, selector
from coordinator.bootstrap.verifying import verify

__all__ = [
    "check",
    "doctor",
    "explain_submissions",
    "migrate",
    "operator",
    "run_daemon",
    "selector",
    "situation",
    "verify",
]
