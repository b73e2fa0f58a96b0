"""Kafka as a local server: one process that is broker and controller (KRaft), no ZooKeeper.

Topics are never made by accident: whoever wants one creates it. Internal topics have one replica
and few partitions: the first group and the first transaction need not wait for fifty of them.
"""

import signal
import socket
import struct
import uuid
from base64 import urlsafe_b64encode

from coordinator.devstack import jars, ports, programs
from coordinator.devstack.processes import run_once
from coordinator.devstack.server import LocalServer

HEAP_MB = 400

LOG_SETTINGS = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %m (%c)%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""


class Kafka(LocalServer):
    """One Kafka broker."""

    name = "kafka"
    stop_signal = signal.SIGTERM

    @property
    def address(self) -> str:
        """The bootstrap server."""
        return f"127.0.0.1:{self.port}"

    def describe(self) -> str:
        """Return the versions and where the programs come from."""
        _, version = jars.class_path(self.report)
        return f"{version}, Java {programs.java()},"

    def prepare(self) -> None:
        """Write the settings, and format the storage once."""
        (self.folder / "server.properties").write_text(self._settings(ports.free_port()))
        (self.folder / "log4j2.properties").write_text(LOG_SETTINGS)
        if (self.folder / "data/meta.properties").exists():
            return
        run_once(
            [
                *self._java("-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"),
                *("kafka.tools.StorageTool", "format", "--ignore-formatted"),
                *(
                    "--cluster-id",
                    new_cluster_id(),
                    "--config",
                    str(self.folder / "server.properties"),
                ),
            ],
            cwd=self.folder,
            log=self.log,
            what="The formatting of Kafka's storage",
        )

    def command(self) -> list[str]:
        """Return the command that runs the server in the foreground.

        Java's second compiler and its concurrent collector take half of such a broker's processor
        time, and a broker that lives for minutes never gets it back.
        """
        light = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
        return [
            *self._java(f"-Xms{HEAP_MB // 4}m", f"-Xmx{HEAP_MB}m", *light),
            *("kafka.Kafka", str(self.folder / "server.properties")),
        ]

    def is_ready(self) -> bool:
        """Whether the broker names itself as alive, asked by the Metadata request (version 1)."""
        request = struct.pack("!hhih", 3, 1, 1, -1) + struct.pack("!i", 0)
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
            connection.sendall(struct.pack("!i", len(request)) + request)
            answer = connection.makefile("rb").read(12)
        if len(answer) < 12:
            return False
        _, _, brokers = struct.unpack("!iii", answer)
        return bool(brokers == 1)

    def _java(self, *options: str) -> list[str]:
        class_path, _ = jars.class_path(self.report)
        return [
            str(programs.java().path),
            *options,
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}",
            *("-cp", ":".join(map(str, class_path))),
        ]

    def _settings(self, controller_port: int) -> str:
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
            "log.dirs": str(self.folder / "data"),
            "auto.create.topics.enable": "false",
            "num.partitions": "4",
            "default.replication.factor": "1",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "1",
            "group.initial.rebalance.delay.ms": "0",
            # After a kill the controller holds the broker's place for this long (by default 9 s).
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            # The defaults preallocate or keep more than a laptop's disk deserves.
            "log.index.size.max.bytes": str(1024 * 1024),
            "log.retention.hours": "24",
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())


def new_cluster_id() -> str:
    """Return a random id in Kafka's form: 16 bytes in URL-safe base64, without padding."""
    number = bytearray(uuid.uuid4().bytes)
    # With this bit set the text may begin with "-", and the tool would take it for an option.
    number[0] &= 0x7F
    return urlsafe_b64encode(number).decode().rstrip("=")
