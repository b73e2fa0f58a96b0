"""The daemon as a stranger runs it: ``python -m coordinator run``, asked over HTTP, killed, ended.

Owns one process at a time and its log file. Its configuration is the one in ``config/``; only the
addresses of the servers are replaced, by environment variables (DESIGN 2.5). It runs on the
devstack's tether, so that it ends with the demonstration even when that is killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote

import aiohttp

from coordinator.devstack import Addresses, tether

START_SECONDS_MAX: Final = 40.0
STOP_SECONDS_MAX: Final = 35.0
LEASE_TTL_SECONDS: Final = 3
"""Short, so that the kill is made good while you watch; the default is 15."""

_POLL_SECONDS: Final = 0.05
_PREFIX: Final = "COORDINATOR_"
_LOG_LINES_SHOWN: Final = 6
_LOG_COLUMNS_SHOWN: Final = 400


class DemoFailed(Exception):
    """The demonstration cannot go on; the message says why and what to look at."""


class Daemon:
    """One daemon, which may be killed and started again."""

    def __init__(
        self, config: Path, log_file: Path, addresses: Addresses, http_listen: str, database: str
    ) -> None:
        """``database`` is the name of the MongoDB database."""
        self.address = http_listen
        self._log_file = log_file
        self._tether: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self._config = config
        self.overrides = {
            "COORDINATOR_KAFKA__BOOTSTRAP_SERVERS": addresses.kafka_bootstrap,
            "COORDINATOR_STORES__LEDGER__DSN": addresses.postgres_dsn,
            "COORDINATOR_STORES__CATALOG__URI": addresses.mongodb_uri,
            "COORDINATOR_STORES__CATALOG__DATABASE": database,
            "COORDINATOR_HTTP__LISTEN": http_listen,
            "COORDINATOR_WORKER__LEASE_TTL_SECONDS": str(LEASE_TTL_SECONDS),
        }
        """What differs from the configuration file."""
        # A developer's own overrides must not reach this daemon: they name other servers.
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith(_PREFIX)
        } | self.overrides

    @property
    def pid(self) -> int:
        """The process id of the one that runs, or ran last."""
        return self._pid

    def spawn(self) -> None:
        """Start the process and return at once."""
        self._tether = subprocess.Popen(
            [
                *(sys.executable, "-P", tether.__file__),
                *("--signal", str(int(signal.SIGTERM)), "--grace", str(STOP_SECONDS_MAX)),
                *("--log", str(self._log_file), "--cwd", str(self._log_file.parent), "--"),
                *(sys.executable, "-m", "coordinator", "run", "--config", str(self._config)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment,
            start_new_session=True,  # Ctrl-C is ours; we end it in order
        )
        assert self._tether.stdout is not None
        with self._tether.stdout as said:
            self._pid = int(said.readline())

    async def start(self) -> float:
        """Start it and wait until ``/readyz`` says 200; give the seconds that took."""
        began = time.monotonic()
        self.spawn()
        await self.ready()
        return time.monotonic() - began

    async def ready(self) -> None:
        """Wait until ``/readyz`` says 200."""
        ends_at = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < ends_at:
            if self._tether is None or self._tether.poll() is not None:
                raise DemoFailed(f"The daemon has ended by itself.\n{self.last_words()}")
            if (await self.get("/readyz"))[0] == 200:
                return
            await asyncio.sleep(_POLL_SECONDS)
        raise DemoFailed(
            f"The daemon was not ready in {START_SECONDS_MAX:.0f} s.\n{self.last_words()}"
        )

    async def get(self, path: str) -> tuple[int, Mapping[str, Any]]:
        """Ask its HTTP port; status 0 when nobody answers."""
        timeout = aiohttp.ClientTimeout(total=5)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"http://{self.address}{path}") as response,
            ):
                return response.status, cast(Mapping[str, Any], await response.json())
        except (aiohttp.ClientError, TimeoutError):
            return 0, {}

    async def unit(self, unit_id: str) -> Mapping[str, Any]:
        """What the journal says of a unit: ``unit``, ``status``, ``outcome`` (F38)."""
        return (await self.get(f"/v1/units/{quote(unit_id, safe='')}"))[1]

    def kill(self) -> None:
        """``kill -9``: no signal handler, no goodbye."""
        self._end(signal.SIGKILL)

    def stop(self) -> int | None:
        """SIGTERM and wait (F36); give the exit code, None when it did not run."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int | None:
        process = self._tether
        if process is None or process.poll() is not None:
            return None
        try:
            os.kill(self._pid, number)
            return process.wait(STOP_SECONDS_MAX)
        except (subprocess.TimeoutExpired, ProcessLookupError):
            return None
        finally:
            assert process.stdin is not None
            process.stdin.close()  # whatever is left, the tether ends

    def last_words(self) -> str:
        """The last lines of its log."""
        lines = self._log_file.read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
        return "\n".join(f"    {line[:_LOG_COLUMNS_SHOWN]}" for line in lines)


def free_listen_address() -> str:
    """A loopback address on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
