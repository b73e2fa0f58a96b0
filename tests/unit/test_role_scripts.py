"""The role scripts of the sample mapping, in ``deploy/roles``, are what the command prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("store", "script"), [("ledger", "postgresql.sql"), ("catalog", "mongodb.js")]
)
def test_a_script_is_what_the_command_prints(store: str, script: str) -> None:
    """After a change: ``coordinator roles STORE > deploy/roles/…``."""
    printed = subprocess.run(
        [sys.executable, "-m", "coordinator", "roles", store],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=True,
    )
    assert (ROOT / "deploy" / "roles" / script).read_text() == printed.stdout
