"""The three servers together: started side by side, noted in one file, stopped as one.

Owns the data folder's layout:

    postgresql/ mongodb/ kafka/     each server's data, and its port
    logs/                           what each server said
    state.json                      who runs on this folder now (see `state`)
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from coordinator.devstack import state
from coordinator.devstack.errors import DevstackUnavailable
from coordinator.devstack.kafka import Kafka
from coordinator.devstack.mongodb import MongoDB
from coordinator.devstack.postgresql import PostgreSQL
from coordinator.devstack.server import LocalServer


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the three servers are."""

    postgres_dsn: str
    mongodb_uri: str
    kafka_bootstrap: str


class Devstack:
    """PostgreSQL, MongoDB and Kafka below one data folder.

    A single server can be started alone (`stack.mongodb.start()`), which is what tests do that need
    only that one.

    Args:
        data_folder: created when missing; a stack on the same folder later finds the same data.
        detached: let the servers live on when this process ends.
        report: takes one line of progress at a time, from several threads.
    """

    def __init__(
        self,
        data_folder: Path,
        *,
        detached: bool = False,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.data_folder = data_folder.absolute()
        self.detached = detached
        self._noting = threading.Lock()
        self._is_stopping = False

        def build(kind: type[LocalServer]) -> LocalServer:
            return kind(
                self.data_folder / kind.name,
                self.data_folder / "logs" / f"{kind.name}.log",
                detached=detached,
                report=report,
                on_change=self._note,
            )

        self.postgres = build(PostgreSQL)
        self.mongodb = build(MongoDB)
        self.kafka = build(Kafka)
        self.servers = (self.postgres, self.mongodb, self.kafka)

    @property
    def addresses(self) -> Addresses:
        """Where the servers are, or will be once they run."""
        return Addresses(self.postgres.address, self.mongodb.address, self.kafka.address)

    def up(self) -> Addresses:
        """Start what does not run, side by side, and return when all are ready.

        Raises:
            DevstackUnavailable: one cannot be had; the others are stopped again.
        """
        self._refuse_folder_in_use()
        pool = ThreadPoolExecutor(len(self.servers), thread_name_prefix="devstack")
        try:
            for started in [pool.submit(server.start) for server in self.servers]:
                started.result()
        except BaseException:
            # Ctrl-C included: the starts that still wait must not hold us up.
            for server in self.servers:
                server.give_up()
            pool.shutdown(wait=True)
            self.down()
            raise
        pool.shutdown()
        return self.addresses

    def down(self) -> None:
        """Stop all servers, side by side. Does nothing when none runs."""
        # No note of what still runs is written meanwhile: whoever watches takes a note that is gone
        # for "this was meant", and one that is there for a server lost.
        self._is_stopping = True
        try:
            with ThreadPoolExecutor(len(self.servers), thread_name_prefix="devstack") as pool:
                list(pool.map(lambda server: server.stop(), self.servers))
        finally:
            self._is_stopping = False
        state.remove(self.data_folder)

    def attach(self) -> bool:
        """Take over the servers that `state.json` names; False when none of them runs."""
        noted = state.read(self.data_folder)
        if noted is None:
            return False
        found = False
        for server in self.servers:
            known = noted.servers.get(server.name)
            if known is not None:
                found |= server.attach(known.pid, known.created, known.port)
        return found

    def __enter__(self) -> Addresses:
        """Start all servers."""
        return self.up()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop all servers."""
        self.down()

    def _refuse_folder_in_use(self) -> None:
        if any(server.is_running for server in self.servers):
            return
        if Devstack(self.data_folder).attach():
            raise DevstackUnavailable(
                f"Servers run on {self.data_folder} already.",
                "stop them (`coordinator devstack down`) or take another data folder.",
            )

    def _note(self) -> None:
        if self._is_stopping:
            return
        with self._noting:
            running = {
                server.name: state.ServerState(server.pid, server.created, server.port)
                for server in self.servers
                if server.pid is not None and server.created is not None
            }
            if running:
                state.write(self.data_folder, state.StackState(os.getpid(), self.detached, running))
            else:
                state.remove(self.data_folder)
