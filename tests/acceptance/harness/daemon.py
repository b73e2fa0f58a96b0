"""The daemon as a process: started, asked over HTTP, its log read, stopped by SIGTERM."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from tests.acceptance.harness.waiting import until

START_SECONDS = 30.0
STOP_SECONDS = 30.0

_OF_A_FRESH_BROKER = "GroupCoordinatorNotAvailableError"  # it is just making its offsets topic


class Daemon:
    """One `coordinator run`. Its log goes to a file, so that a full pipe cannot hold it up."""

    def __init__(self, config: Path, log_file: Path, address: str) -> None:
        self.config = config
        self.address = address
        self.expected_errors: set[str] = set()  # log events of level error that a test provokes
        self._log_file = log_file
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the daemon was not started"
        return self._process.pid

    def spawn(self, environment: dict[str, str] | None = None) -> None:
        """Start the process; it appends to the same log file after a restart."""
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "coordinator", "run", "--config", str(self.config)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONUNBUFFERED": "1"} | (environment or {}),
                cwd=Path(__file__).parents[3],
            )

    async def start(self) -> None:
        """Start and wait until `/readyz` says 200."""
        self.spawn()
        await self.ready()

    async def ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until `/readyz` says 200; fail at once when the process has ended."""

        async def look() -> bool:
            code = self.exit_code()
            assert code is None, f"the daemon ended with exit code {code}\n{self.tail()}"
            return (await self.get("/readyz"))[0] == 200

        await until(look, "the daemon is ready", seconds, self.tail)

    async def get(self, path: str) -> tuple[int, Any]:
        """Give status and JSON body of a GET, its path as it is; status 0 when nobody listens."""
        timeout = aiohttp.ClientTimeout(total=5)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(URL(f"http://{self.address}{path}", encoded=True)) as response,
            ):
                body = await response.read()
                is_json = "json" in response.headers.get("content-type", "")
                return response.status, json.loads(body) if is_json else body.decode()
        except (aiohttp.ClientConnectionError, TimeoutError):
            return 0, None

    def exit_code(self) -> int | None:
        """Give the exit code, or None while it runs."""
        return None if self._process is None else self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it."""
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for its end and give the exit code."""
        process = self._process
        assert process is not None
        try:
            return await asyncio.to_thread(process.wait, seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end in {seconds} s\n{self.tail()}") from None

    async def stop(self) -> float:
        """SIGTERM; exit code 0 within 30 s (F36), no unexpected error logged. Gives seconds."""
        if self._process is None:
            return 0.0
        began = time.monotonic()
        self.send(signal.SIGTERM)
        try:
            code = await self.ended()
        finally:
            self.kill()
        assert code == 0, f"exit code {code} after SIGTERM\n{self.tail()}"
        errors = [line for line in self.errors() if line.get("event") not in self.expected_errors]
        assert not errors, "errors were logged:\n" + "\n".join(map(json.dumps, errors[:5]))
        return time.monotonic() - began

    def kill(self) -> None:
        """Make sure that it is gone."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def log_text(self) -> str:
        """Give everything that it wrote."""
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""

    def logs(self, event: str | None = None) -> list[dict[str, Any]]:
        """Give the log's lines as objects; a line that is no JSON object is an error line."""
        lines = [_parsed(line) for line in self.log_text().splitlines() if line.strip()]
        return [line for line in lines if event is None or line.get("event") == event]

    def errors(self) -> list[dict[str, Any]]:
        """Give the lines of level error and above."""
        return [
            line
            for line in self.logs()
            if line.get("level") in {"error", "critical", None}
            and _OF_A_FRESH_BROKER not in str(line.get("message"))
            and not str(line.get("unreadable", "")).startswith("fault point ")
        ]

    def tail(self, lines: int = 12) -> str:
        """Give the last lines of the log, for failure texts."""
        text = "\n".join(line[:600] for line in self.log_text().splitlines()[-lines:])
        return f"--- the daemon's last lines ---\n{text}"


def _parsed(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {"unreadable": line}
    return value if isinstance(value, dict) else {"unreadable": line}
