"""PostgreSQL as a local server: one cluster, user `postgres`, TCP only, no password.

fsync and synchronous_commit stay on: the tests are about what survives.
"""

import signal
import socket
import struct

from coordinator.devstack import privileges, programs
from coordinator.devstack.processes import run_once
from coordinator.devstack.server import LocalServer

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # below the data folder its path could be too long
    "max_connections": "200",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "128MB",
    "max_prepared_transactions": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_line_prefix": "%m [%p] ",
    "wal_level": "logical",
}


class PostgreSQL(LocalServer):
    """One PostgreSQL cluster."""

    name = "postgresql"
    stop_signal = signal.SIGINT  # "fast": ends the sessions, then shuts down cleanly

    @property
    def address(self) -> str:
        """The DSN of the administrator in the database `postgres`."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def describe(self) -> str:
        """Return the version and where the program comes from."""
        return str(programs.postgresql())

    def prepare(self) -> None:
        """Create the cluster, once."""
        data = self.folder / "data"
        if (data / "PG_VERSION").exists():
            return
        data.mkdir(mode=0o700, exist_ok=True)
        privileges.give_to_other_user(data)
        initdb = programs.postgresql().path.with_name("initdb")
        run_once(
            [
                *privileges.command_prefix(),
                *(str(initdb), "--pgdata", str(data), "--username", "postgres", "--auth", "trust"),
                *("--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions"),
            ],
            cwd=self.folder,
            log=self.log,
            what="initdb, which makes PostgreSQL's data folder,",
        )

    def command(self) -> list[str]:
        """Return the command that runs the server in the foreground."""
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        data = str(self.folder / "data")
        program = str(programs.postgresql().path)
        return [
            *privileges.command_prefix(),
            *(program, "-D", data, "-p", str(self.port), *settings),
        ]

    def is_ready(self) -> bool:
        """Whether a session can be opened, by the protocol's own first messages."""
        parameters = b"user\0postgres\0database\0postgres\0\0"
        start = struct.pack("!II", 8 + len(parameters), 196608) + parameters
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
            connection.sendall(start)
            kind = connection.recv(1)  # R: authenticated. E: still starting
            if kind == b"R":
                connection.sendall(b"X\0\0\0\x04")
        return kind == b"R"
