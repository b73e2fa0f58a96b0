"""The servers of a run, and the doors through which each daemon reaches them.

The servers are the run's own, since it restarts them. Each slot has a proxy of its own to each
server, so that one daemon can be cut off while the others go on. A Kafka client connects to the
address that the broker tells it, so the broker has a listener per slot and tells the proxy's
address there. In MongoDB `directConnection` keeps the driver at the proxy.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pymongo
from pymongo.errors import PyMongoError

from coordinator.devstack import Addresses
from coordinator.devstack.kafka import Kafka
from coordinator.devstack.mongodb import MongoDB
from coordinator.devstack.ports import free_port
from coordinator.devstack.postgresql import PostgreSQL
from coordinator.devstack.processes import POLL_SECONDS
from coordinator.devstack.server import LocalServer
from tests.acceptance.harness.proxy import Proxy
from tests.chaos.schedule import SLOTS, Server

STEP_DOWN_SECONDS = 3


class KafkaBehindDoors(Kafka):
    """A broker with one more listener per slot, each advertised under another port."""

    doors: tuple[tuple[int, int], ...] = ()
    """Per slot: the port that is listened on, and the one that clients are told."""

    def _settings(self, controller_port: int) -> str:
        names = [f"SLOT{number}" for number in range(len(self.doors))]
        # Of a setting that is there twice Kafka takes the last.
        own, controller = f"PLAINTEXT://{self.address}", f"CONTROLLER://127.0.0.1:{controller_port}"
        inside = [f"{n}://127.0.0.1:{port}" for n, (port, _) in zip(names, self.doors, strict=True)]
        told = [f"{n}://127.0.0.1:{port}" for n, (_, port) in zip(names, self.doors, strict=True)]
        protocols = [f"{name}:PLAINTEXT" for name in ("PLAINTEXT", "CONTROLLER", *names)]
        return super()._settings(controller_port) + (
            f"listeners={','.join((own, controller, *inside))}\n"
            f"advertised.listeners={','.join((own, *told))}\n"
            f"listener.security.protocol.map={','.join(protocols)}\n"
        )


class Stage:
    """Three servers and nine proxies."""

    def __init__(self, folder: Path) -> None:
        def at(name: str) -> tuple[Path, Path]:
            return folder / name, folder / "logs" / f"{name}.log"

        self.postgres = PostgreSQL(*at("postgresql"))
        self.mongodb = MongoDB(*at("mongodb"))
        self.kafka = KafkaBehindDoors(*at("kafka"))
        inner = [free_port() for _ in range(SLOTS)]
        self.doors: list[dict[Server, Proxy]] = [
            {
                Server.POSTGRES: Proxy("127.0.0.1", self.postgres.port),
                Server.MONGOD: Proxy("127.0.0.1", self.mongodb.port),
                Server.BROKER: Proxy("127.0.0.1", port),
            }
            for port in inner
        ]
        told = [door[Server.BROKER].port for door in self.doors]
        self.kafka.doors = tuple(zip(inner, told, strict=True))
        self._servers: tuple[LocalServer, ...] = (self.postgres, self.mongodb, self.kafka)

    @property
    def addresses(self) -> Addresses:
        """Where the servers are, past all doors."""
        return Addresses(self.postgres.address, self.mongodb.address, self.kafka.address)

    async def up(self) -> None:
        """Start the servers, side by side, and open all doors."""
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in self._servers))
        for door in self._proxies():
            await door.open()

    async def down(self) -> None:
        """Stop everything."""
        for door in self._proxies():
            await door.close()
        await asyncio.gather(*(asyncio.to_thread(server.stop) for server in self._servers))

    def calm(self) -> None:
        """Let everything through again."""
        for door in self._proxies():
            door.thaw()

    def settings_of(self, slot: int, settings: dict[str, Any]) -> dict[str, Any]:
        """Give the configuration of a daemon that goes through the doors of its slot."""
        door = self.doors[slot]
        stores: dict[str, Any] = {}
        for name, store in settings["stores"].items():
            if store["kind"] == "mongodb":
                uri = f"mongodb://127.0.0.1:{door[Server.MONGOD].port}/?directConnection=true"
                stores[name] = store | {"uri": uri}
            else:
                here, there = f":{self.postgres.port}/", f":{door[Server.POSTGRES].port}/"
                stores[name] = store | {"dsn": store["dsn"].replace(here, there)}
        kafka = settings["kafka"] | {"bootstrap_servers": f"127.0.0.1:{door[Server.BROKER].port}"}
        return settings | {"stores": stores, "kafka": kafka}

    # --- what can be done to a server; all of it returns when the server is back ----------------

    async def restart_postgres(self, number: signal.Signals, away_seconds: float) -> None:
        """End PostgreSQL by SIGINT (fast) or SIGQUIT (immediate), and start it again."""
        await asyncio.to_thread(self._end_postgres, number)
        await asyncio.sleep(away_seconds)
        await asyncio.to_thread(self.postgres.start)

    def _end_postgres(self, number: signal.Signals) -> None:
        pid = self.postgres.pid
        assert pid is not None, "PostgreSQL does not run"
        os.kill(pid, number)
        for _ in range(int(20 / POLL_SECONDS)):
            if not self.postgres.is_running:
                break
            time.sleep(POLL_SECONDS)
        self.postgres.stop()  # collects what is left of it; kills it if it has not gone

    async def kill(self, server: Server, away_seconds: float) -> None:
        """End mongod or the broker by SIGKILL, and start it again."""
        killed = self.mongodb if server is Server.MONGOD else self.kafka
        await asyncio.to_thread(killed.kill)
        await asyncio.sleep(away_seconds)
        await asyncio.to_thread(killed.start)

    async def step_mongod_down(self) -> None:
        """Have the primary step down; it is elected again, being alone, and this waits for it."""
        await asyncio.to_thread(self._step_down)

    def _step_down(self) -> None:
        with pymongo.MongoClient[dict[str, Any]](
            f"mongodb://127.0.0.1:{self.mongodb.port}/", directConnection=True
        ) as client:
            try:
                client.admin.command(
                    {
                        "replSetStepDown": STEP_DOWN_SECONDS,
                        "secondaryCatchUpPeriodSecs": 0,
                        "force": True,
                    }
                )
            except PyMongoError as error:
                if "primary" not in str(error):  # it may have stepped down by itself
                    raise
        for _ in range(int(60 / POLL_SECONDS)):
            if self._is_primary():
                return
            time.sleep(POLL_SECONDS)
        raise AssertionError("mongod was not elected again")

    def _is_primary(self) -> bool:
        try:
            return self.mongodb.is_ready()
        except OSError:
            return False

    def _proxies(self) -> list[Proxy]:
        return [proxy for door in self.doors for proxy in door.values()]
