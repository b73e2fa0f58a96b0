"""The real servers of a test run: which ones are taken, and that each starts only when needed.

Per server, in this order:

1. `COORDINATOR_TEST_{POSTGRES,MONGODB,KAFKA}` give an address;
2. `COORDINATOR_TEST_CONTAINERS=1` starts a container (see `containers`);
3. otherwise the devstack starts a local process.

Nothing is skipped for want of a server: one that cannot be had is an error of the test that asked.
"""

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path

from coordinator.devstack import Addresses, Devstack

POSTGRES = "postgres"
MONGODB = "mongodb"
KAFKA = "kafka"


class Servers:
    """The addresses of the run's servers; reading one starts that server and waits for it.

    Has the attributes of `Addresses`. `prefetch` starts several side by side, ahead of their use.
    """

    def __init__(self) -> None:
        self._starting: dict[str, Future[str]] = {}
        self._used: dict[str, str] = {}
        self._lock = threading.Lock()
        self._stack: Devstack | None = None
        self._folder: Path | None = None
        self._closers: list[Callable[[], None]] = []

    @property
    def postgres_dsn(self) -> str:
        """DSN of an administrator of PostgreSQL."""
        return self._address(POSTGRES)

    @property
    def mongodb_uri(self) -> str:
        """URI of a MongoDB replica set."""
        return self._address(MONGODB)

    @property
    def kafka_bootstrap(self) -> str:
        """Bootstrap servers of Kafka."""
        return self._address(KAFKA)

    def addresses(self) -> Addresses:
        """Start all three and return their addresses."""
        self.prefetch((POSTGRES, MONGODB, KAFKA))
        return Addresses(self.postgres_dsn, self.mongodb_uri, self.kafka_bootstrap)

    def prefetch(self, names: Iterable[str]) -> None:
        """Start servers in the background."""
        for name in names:
            self._begin(name)

    def settle(self) -> None:
        """Wait until no server is being started; nothing is started for it."""
        for starting in list(self._starting.values()):
            starting.exception()

    def describe(self) -> str:
        """Return one line: which servers the run has used, and of what kind."""
        if not self._used:
            return "servers: none was needed"
        return "servers: " + ", ".join(
            f"{name} {kind}" for name, kind in sorted(self._used.items())
        )

    def close(self) -> None:
        """Stop what was started."""
        if self._stack is not None:
            for server in self._stack.servers:
                server.give_up()
        self.settle()  # an error was the test's
        if self._stack is not None:
            self._stack.down()
        for close in self._closers:
            close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _address(self, name: str) -> str:
        return self._begin(name).result()

    def _begin(self, name: str) -> "Future[str]":
        with self._lock:
            if name not in self._starting:
                self._starting[name] = future = Future[str]()
                threading.Thread(
                    target=self._start, args=(name, future), name=f"start-{name}", daemon=True
                ).start()
            return self._starting[name]

    def _start(self, name: str, future: "Future[str]") -> None:
        try:
            future.set_result(self._start_by_choice(name))
        except BaseException as error:
            future.set_exception(error)

    def _start_by_choice(self, name: str) -> str:
        given = os.environ.get(f"COORDINATOR_TEST_{name.upper()}")
        if given:
            self._used[name] = "given by its address"
            return given
        if os.environ.get("COORDINATOR_TEST_CONTAINERS") == "1":
            from tests import containers

            address, close = containers.start(name)
            self._closers.append(close)
            self._used[name] = f"in a container ({containers.IMAGES[name]})"
            return address
        server = getattr(self._devstack(), name)
        server.start()
        self._used[name] = f"as a local process ({server.describe().rstrip(',')})"
        return str(server.address)

    def _devstack(self) -> Devstack:
        with self._lock:
            if self._stack is None:
                self._folder = Path(tempfile.mkdtemp(prefix="coordinator-tests-"))
                self._stack = Devstack(self._folder)
            return self._stack
