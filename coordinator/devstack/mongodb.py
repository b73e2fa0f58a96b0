"""MongoDB as a local server: a replica set `rs0` of one node, because transactions need one.

Writes are acknowledged after the journal, as on a real replica set with `w: majority`.
"""

import signal
import socket
from typing import Any

import pymongo
from pymongo.errors import OperationFailure, PyMongoError

from coordinator.devstack import programs
from coordinator.devstack.server import LocalServer

REPLICA_SET = "rs0"
NOT_YET_INITIALIZED = 94
INVALID_REPLICA_SET_CONFIG = 93


class MongoDB(LocalServer):
    """One `mongod`, primary of its own replica set."""

    name = "mongodb"
    stop_signal = signal.SIGTERM

    @property
    def address(self) -> str:
        """The URI of the replica set."""
        return f"mongodb://127.0.0.1:{self.port}/?replicaSet={REPLICA_SET}"

    def describe(self) -> str:
        """Return the version and where the program comes from."""
        return str(programs.mongodb())

    def prepare(self) -> None:
        """Make the data folder; `mongod` fills it."""
        (self.folder / "data").mkdir(exist_ok=True)

    def command(self) -> list[str]:
        """Return the command that runs the server in the foreground."""
        return [
            str(programs.mongodb().path),
            *("--dbpath", str(self.folder / "data")),
            *("--port", str(self.port), "--bind_ip", "127.0.0.1", "--nounixsocket"),
            *("--replSet", REPLICA_SET, "--oplogSize", "512"),
            *("--wiredTigerCacheSizeGB", "0.5"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            # A primary waits this long for a successor before it stops; there is none.
            *("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"),
            "--quiet",
        ]

    def is_ready(self) -> bool:
        """Whether the node is primary; makes it the replica set's only member on the way."""
        # The driver would wait out its time-out where a plain connection is refused at once.
        socket.create_connection(("127.0.0.1", self.port), timeout=2).close()
        client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(
            f"mongodb://127.0.0.1:{self.port}/",
            directConnection=True,
            serverSelectionTimeoutMS=500,
            connectTimeoutMS=2000,
            socketTimeoutMS=5000,
        )
        try:
            if client.admin.command("hello").get("isWritablePrimary"):
                return True
            self._configure(client)
        except PyMongoError as error:
            raise ConnectionError(str(error)) from error
        finally:
            client.close()
        return False

    def _configure(self, client: "pymongo.MongoClient[dict[str, Any]]") -> None:
        host = f"127.0.0.1:{self.port}"
        members = [{"_id": 0, "host": host}]
        try:
            present = client.admin.command("replSetGetConfig")["config"]
        except OperationFailure as error:
            if error.code != NOT_YET_INITIALIZED:
                raise
            client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
            return
        if present["members"][0]["host"] != host:
            # The data was made on another port: the node does not find itself in its own set.
            moved = present | {"members": members, "version": present["version"] + 1}
            client.admin.command("replSetReconfig", moved, force=True)
