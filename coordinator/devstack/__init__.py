"""PostgreSQL, MongoDB and Kafka as local processes, for the demo, the tests and the benchmarks.

Owns where the server programs come from, their ports and data folders, and their life: nothing that
is started here outlives the process that asked for it, unless it was asked to (`detached`).

Refuses to be a deployment: one node each, no passwords, 127.0.0.1 only. Durability is honest all
the same (fsync is on everywhere), because what we test is what survives.

    stack = Devstack(Path(".devstack"))
    with stack as addresses:
        addresses.postgres_dsn, addresses.mongodb_uri, addresses.kafka_bootstrap
        stack.mongodb.kill()          # SIGKILL, as a power cut would
        stack.mongodb.start()         # same port, same data

Which program is taken, per server: the wheel of the extra `coordinator[devstack]` when it is
installed, else one of the right version on PATH. The wheel comes first because its version is
pinned: two people who see different results then have different code, not different servers.
"""

from coordinator.devstack.errors import DevstackUnavailable
from coordinator.devstack.server import LocalServer
from coordinator.devstack.stack import Addresses, Devstack

__all__ = ["Addresses", "Devstack", "DevstackUnavailable", "LocalServer"]
