"""Intake: reads the units' topics and hands the records to the engine, batch by batch.

Overview. Partitions are shared out by Kafka's consumer group, but a partition being ours is never
authority: the journal moves its position by compare-and-set, and a daemon that lost a partition
without knowing journals nothing of it (I9). Where reading begins is the journal's word alone::

    assigned ─► paused ─► placed by the journal ─► read ─► admit ─► read …
                  ▲                                          │
                  └── position lost, journal away ◄──────────┘

What can fail, and what holds then:

* The consumer raises anything: it is ended and made anew, and every partition is placed again.
* The journal is away or its answer is lost: everything is placed again when it is back.
* Retention deleted records that were never read: error `intake.records_lost`, reading goes on.
* The log ends before the journal's position (the topic was made again, or a replica lost its
  tail): the partition is *parked*, error `intake.partition_parked`; nothing is reset silently.
* A batch cannot be unpacked: its partition is found by reading one at a time. What the driver
  stumbles over and we do not (see `unpacking`) is read; else the partition is parked before it,
  and the others go on.

Refuses to look into records, and to trust Kafka's committed offsets: these are written for lag
tools only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition

from coordinator.domain.errors import InvariantViolated
from coordinator.engine.ports import Intake, Partition
from coordinator.kafka.codecs import UNPACKED_BYTES_MAX
from coordinator.kafka.failures import ConsumerBroken
from coordinator.kafka.membership import Membership
from coordinator.kafka.watch import Watch
from coordinator.log_events import LogEvent
from coordinator.logs import get_log

_FIRST_RETRY_SECONDS = 0.2
_RETRY_SECONDS_MAX = 5.0
_STOP_SECONDS = 3.0
_END_SECONDS = 0.8

_log = get_log()


@dataclass(frozen=True, slots=True)
class IntakeState:
    """What readiness and metrics want to know.

    ``lag`` counts the records that are not read yet, per assigned partition; one that the journal
    has not placed is missing. ``rebalances`` counts assignments since the start, empty ones too.
    """

    connected: bool
    joined: bool
    paused: bool
    assigned: frozenset[Partition]
    parked: frozenset[Partition]
    lag: Mapping[Partition, int]
    rebalances: int

    @property
    def ready(self) -> bool:
        """Whether units are taken in; a daemon that got no partition is ready too."""
        return self.connected and self.joined and not self.parked


class UnitIntake:
    """Reads ``topics`` as a member of ``group_id`` and admits through ``port``.

    ``instance_id`` makes a static member: it must be unique, and a restart within the session
    time-out gets the same partitions back. Without one, a killed daemon's partitions are shared
    out again after ``session_timeout_seconds``.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        group_id: str,
        topics: Sequence[str],
        port: Intake,
        *,
        max_records: int = 500,
        instance_id: str | None = None,
        session_timeout_seconds: float = 6.0,
        unpacked_bytes_max: int = UNPACKED_BYTES_MAX,
        client_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._topics = tuple(topics)
        self._port = port
        self._max_records = max_records
        self._consumer: Mapping[str, Any] = {
            "bootstrap_servers": bootstrap_servers,
            "group_id": group_id,
            "instance_id": instance_id,
            "session_timeout_seconds": session_timeout_seconds,
            "unpacked_bytes_max": unpacked_bytes_max,
            "client_options": client_options or {},
        }
        self._member: Membership | None = None
        self._watch: Watch | None = None
        self._failures = 0
        self._rebalances = 0
        self._isolate = False
        self._unreadable: dict[TopicPartition, int] = {}

    def state(self) -> IntakeState:
        """Tell how intake stands now."""
        member, watch = self._member, self._watch
        if member is None or watch is None:
            return IntakeState(False, False, False, frozenset(), frozenset(), {}, self._rebalances)
        assigned = frozenset((p.topic, p.partition) for p in member.consumer.assignment())
        parked = frozenset((p.topic, p.partition) for p in member.parked)
        return IntakeState(
            connected=watch.reachable,
            joined=member.joined,
            paused=member.paused,
            assigned=assigned,
            parked=parked & assigned,
            lag={place: lag for place, lag in watch.lag.items() if place in assigned},
            rebalances=self._rebalances + member.rebalances,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Read until ``stop``; ends within 5 s of it, also with the brokers away.

        An admission under way is waited for, for 3 s at most, and only then left to its fate as
        in a crash. Raises `Fenced`, and whatever the engine raises that is no `StoreError`.
        """
        reading = asyncio.create_task(self._live(stop), name="intake-read")
        stopping = asyncio.create_task(stop.wait(), name="intake-stop")
        try:
            await asyncio.wait([reading, stopping], return_when=asyncio.FIRST_COMPLETED)
            deadline = time.monotonic() + _STOP_SECONDS
            # Whoever waits for brokers is not waited for: what was not admitted is read again.
            while self._member is not None and self._member.admitting and not reading.done():
                if time.monotonic() >= deadline:
                    break
                await asyncio.wait([reading], timeout=0.02)
            if reading.done():
                if reading.cancelled():
                    raise InvariantViolated("intake-read was cancelled by nobody")
                reading.result()
        finally:
            stopping.cancel()
            reading.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await reading

    async def _live(self, stop: asyncio.Event) -> None:
        """Be one member after the other."""
        while not stop.is_set():
            member = self._member = Membership(
                self._port,
                max_records=self._max_records,
                isolate=self._isolate,
                unreadable=self._unreadable,
                consumer=self._consumer,
            )
            watch = Watch(member)
            watching: asyncio.Task[None] | None = None
            try:
                await _start(member, self._topics)
                self._watch = watch
                watching = asyncio.create_task(watch.run(), name="intake-watch")
                await member.read(stop)
                return
            except ConsumerBroken as broken:
                self._failures = 1 if member.progressed else self._failures + 1
                searching = broken.unpacking or member.isolation.is_on
                self._isolate = searching and not member.isolation.has_found
                _log.warning(
                    LogEvent.INTAKE_REBUILT,
                    "The consumer failed and is made anew from the journal's positions.",
                    attempt=self._failures,
                    error=broken.cause,
                )
            finally:
                await member.release()
                self._rebalances += member.rebalances
                self._member = self._watch = None
                if watching is not None:
                    watching.cancel()
                    with suppress(asyncio.CancelledError, Exception):
                        await watching
                await member.consumer.end(_END_SECONDS)
            delay_seconds = _FIRST_RETRY_SECONDS * 2 ** min(self._failures - 1, 8)
            await asyncio.sleep(min(delay_seconds, _RETRY_SECONDS_MAX))


async def _start(member: Membership, topics: Sequence[str]) -> None:
    try:
        await member.consumer.start(topics)
    except Exception as error:  # whatever it is, the consumer is half made
        raise ConsumerBroken(error) from error
