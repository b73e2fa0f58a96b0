"""`coordinator demo`, in short: it plays to its end, everything holds, nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

UNITS = 240
SECONDS_MAX = 150


def start_demo(folder: Path) -> subprocess.Popen[str]:
    """Start a short demonstration whose temporary folder lies below `folder`."""
    return subprocess.Popen(
        [sys.executable, "-m", "coordinator.demo", "--units", str(UNITS)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )


def left_behind(folder: Path) -> list[str]:
    """Files, and processes that name the folder in their command line."""
    processes = [
        " ".join(process.info["cmdline"] or ())
        for process in psutil.process_iter(["cmdline"])
        if str(folder) in " ".join(process.info["cmdline"] or ())
    ]
    return [*map(str, folder.iterdir()), *processes]


@pytest.mark.timeout(SECONDS_MAX + 10)
def test_the_demonstration_plays_to_its_end_and_everything_holds(tmp_path: Path) -> None:
    """All four acts, kill -9 included; every check made, and every one of them holds."""
    demo = start_demo(tmp_path)
    said, _ = demo.communicate(timeout=SECONDS_MAX)
    assert demo.returncode == 0, said
    assert "DOES NOT HOLD" not in said
    assert len(re.findall(r"^✓ ", said, re.MULTILINE)) == 13, said
    assert "kill -9 " in said
    assert re.search(r"^The story of shop-0: committed$", said, re.MULTILINE), said
    assert re.search(r"^The story of shop-1: compensated$", said, re.MULTILINE), said
    assert re.search(r"steady, 200 a second .* ms .* ms", said), said
    assert left_behind(tmp_path) == []


@pytest.mark.timeout(SECONDS_MAX + 10)
def test_ctrl_c_takes_everything_away(tmp_path: Path) -> None:
    """Interrupted while the daemon works: exit code 130, no process and no file stays."""
    demo = start_demo(tmp_path)
    assert demo.stdout is not None
    with demo.stdout as output:
        for line in output:
            if line.startswith("Act 2"):
                demo.send_signal(signal.SIGINT)
                break
        said = output.read()
    assert demo.wait(SECONDS_MAX) == 130, said
    assert "Interrupted" in said
    assert "Traceback" not in said
    assert left_behind(tmp_path) == []
