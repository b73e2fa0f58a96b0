"""The three servers as containers, for runs with `COORDINATOR_TEST_CONTAINERS=1`.

Owns the images and how each is started; imported only then, because it needs a container engine.
MongoDB and Kafka are started by hand: the ready-made MongoDB is no replica set (no transactions),
and the ready-made Kafka expects another vendor's image.
"""

from collections.abc import Callable

import pymongo
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from coordinator.devstack.ports import free_port

IMAGES = {"postgres": "postgres:18", "mongodb": "mongo:6.0", "kafka": "apache/kafka:4.2.0"}
READY_SECONDS_MAX = 120


def start(name: str) -> tuple[str, Callable[[], None]]:
    """Start one server; return its address and what stops it."""
    return {"postgres": _postgres, "mongodb": _mongodb, "kafka": _kafka}[name]()


def _run(container: DockerContainer, message: str, times: int = 1) -> DockerContainer:
    strategy = LogMessageWaitStrategy(message, times=times)
    return container.waiting_for(strategy.with_startup_timeout(READY_SECONDS_MAX)).start()


def _local(container_port: int, port: int) -> dict[str, dict[int, tuple[str, int]]]:
    """Publish a port on 127.0.0.1 only."""
    return {"ports": {container_port: ("127.0.0.1", port)}}


def _postgres() -> tuple[str, Callable[[], None]]:
    port = free_port()
    container = (
        DockerContainer(IMAGES["postgres"])
        .with_env("POSTGRES_HOST_AUTH_METHOD", "trust")
        .with_command(["postgres", "-c", "max_connections=200", "-c", "timezone=UTC"])
        .with_kwargs(**_local(5432, port))
    )
    # The image starts it once to initialize, and then for good.
    _run(container, "database system is ready to accept connections", times=2)
    return f"postgresql://postgres@127.0.0.1:{port}/postgres", container.stop


def _mongodb() -> tuple[str, Callable[[], None]]:
    # The same port inside and outside: a replica set tells its clients its members' addresses.
    port = free_port()
    container = (
        DockerContainer(IMAGES["mongodb"])
        .with_command(["mongod", "--replSet", "rs0", "--bind_ip_all", "--port", str(port)])
        .with_kwargs(**_local(port, port))
    )
    _run(container, "Waiting for connections")
    with pymongo.MongoClient[dict[str, object]](
        f"mongodb://127.0.0.1:{port}/", directConnection=True
    ) as client:
        member = {"_id": 0, "host": f"127.0.0.1:{port}"}
        client.admin.command("replSetInitiate", {"_id": "rs0", "members": [member]})
    uri = f"mongodb://127.0.0.1:{port}/?replicaSet=rs0"
    with pymongo.MongoClient[dict[str, object]](uri) as client:
        client.admin.command("ping")  # waits until there is a primary
    return uri, container.stop


def _kafka() -> tuple[str, Callable[[], None]]:
    port = free_port()
    container = DockerContainer(IMAGES["kafka"]).with_kwargs(**_local(port, port))
    for name, value in {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@127.0.0.1:9093",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    }.items():
        container = container.with_env(name, value)
    _run(container, "Kafka Server started")
    return f"127.0.0.1:{port}", container.stop
