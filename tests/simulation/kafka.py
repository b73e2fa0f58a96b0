"""Kafka as far as a worker sees it: partitions, a group that shares them out anew, topics to fill.

The consumer follows `coordinator.kafka.membership`: placed by the journal's positions, placed
again after every failure and every change of the group. The relay follows
`coordinator.kafka.relay`, one row at a time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection
from dataclasses import dataclass, field

from coordinator.domain.errors import StoreError
from coordinator.domain.publishing import Message
from coordinator.engine.admission import Admission
from coordinator.engine.clock import Clock
from coordinator.engine.ports import Outbox, Partition, Record
from tests.simulation.faults import Fate, Faults
from tests.simulation.virtual_loop import Process

UNITS, OUTCOMES, CHANGES, DEAD_LETTERS = "units", "outcomes", "changes.{entity}", "dead"
FETCH_RECORDS_MAX = 25


@dataclass(slots=True)
class Broker:
    """The topics. ``published`` is everything that relays sent, in order."""

    logs: dict[Partition, list[Record]]
    published: list[Message] = field(default_factory=list)
    consumers: dict[str, Consumer] = field(default_factory=dict)

    def append(self, partition: int, value: bytes) -> int:
        """Add a record; its offset."""
        log = self.logs[UNITS, partition]
        record = Record(UNITS, partition, len(log), 0, None, value, ())
        log.append(record)
        for consumer in self.consumers.values():
            consumer.bell.set()
        return record.offset

    def share_out(
        self, source: random.Random, members: Collection[Process], faults: Faults
    ) -> None:
        """Share the partitions out; a member that is frozen learns of it when it is thawed."""
        names = [each.name for each in members if each.name in self.consumers]
        shares: dict[str, list[Partition]] = {name: [] for name in names}
        for partition in self.logs if names else ():
            shares[source.choice(names)].append(partition)
        for process in members:
            if process.name in shares:
                consumer, share = self.consumers[process.name], shares[process.name]
                faults.loop.call_soon(
                    consumer.assigned, share, context=faults.loop.context_of(process)
                )


class Consumer:
    """A worker's member of the group."""

    def __init__(self, broker: Broker, admission: Admission, clock: Clock, faults: Faults) -> None:
        self._broker = broker
        self._admission = admission
        self._clock = clock
        self._faults = faults
        self._generation = 0
        self._unplaced: list[Partition] = []
        self._offsets: dict[Partition, int] = {}
        self._place_at = 0.0
        self._failures = 0
        self.bell = asyncio.Event()

    def assigned(self, partitions: Collection[Partition]) -> None:
        self._generation += 1
        self._unplaced = list(partitions)
        self._offsets.clear()
        self._place_at = 0.0
        self.bell.set()

    async def run(self) -> None:
        while True:
            self.bell.clear()
            if self._unplaced and self._clock.monotonic() >= self._place_at:
                await self._place()
            records = self._fetch() if self._admission.bound() is None else []
            if records:
                await self._admit(records)
            else:
                await self._clock.wait(self.bell, 0.25)

    async def _place(self) -> None:
        generation, wanted = self._generation, list(self._unplaced)
        try:
            positions = await self._admission.positions(wanted)
        except StoreError:
            self._retry_later()
            return
        if generation == self._generation:
            self._unplaced = []
            for partition in wanted:
                self._offsets[partition] = positions.get(partition, 0)

    def _fetch(self) -> list[Record]:
        source = self._faults.source
        partitions = list(self._offsets)
        source.shuffle(partitions)
        records: list[Record] = []
        for partition in partitions:
            log, start = self._broker.logs[partition], self._offsets[partition]
            if start < len(log):
                records += log[start : start + source.randrange(1, FETCH_RECORDS_MAX)]
        return records

    async def _admit(self, records: list[Record]) -> None:
        generation = self._generation
        for record in records:
            self._offsets[record.topic, record.partition] = record.offset + 1
        try:
            lost = await self._admission.admit(records)
        except StoreError:
            self._unplace(list(self._offsets))
            self._retry_later()
            return
        self._failures = 0
        if generation == self._generation:
            self._unplace(sorted(lost))

    def _unplace(self, partitions: Collection[Partition]) -> None:
        for partition in partitions:
            if self._offsets.pop(partition, None) is not None:
                self._unplaced.append(partition)

    def _retry_later(self) -> None:
        self._failures = min(self._failures + 1, 4)
        self._place_at = self._clock.monotonic() + 0.05 * 2**self._failures


class Relay:
    """A worker's relay: claims, sends, deletes; whoever holds the lease."""

    def __init__(
        self,
        broker: Broker,
        outbox: Outbox,
        bell: asyncio.Event,
        clock: Clock,
        faults: Faults,
        process: Process,
        lease_ttl_seconds: float,
    ) -> None:
        self._broker = broker
        self._outbox = outbox
        self._bell = bell
        self._clock = clock
        self._faults = faults
        self._process = process
        self._ttl = lease_ttl_seconds

    async def run(self) -> None:
        while True:
            self._bell.clear()
            try:
                is_busy = await self._once()
            except StoreError:
                is_busy = False
            if not is_busy:
                await self._clock.wait(self._bell, 0.4)

    async def _once(self) -> bool:
        asked_at = self._clock.monotonic()
        if not await self._outbox.hold_lease():
            return False
        rows = await self._outbox.claim(4)
        sent = []
        for row, messages in rows:
            fate = self._faults.draw("publish")
            if fate in {Fate.KILLED_BEFORE, Fate.FROZEN_BEFORE, Fate.KILLED_AFTER}:
                self._faults.strike(self._process, fate)
                await asyncio.sleep(0)
            if self._clock.monotonic() >= asked_at + self._ttl * 0.8:
                return True
            self._broker.published.extend(messages)
            if fate in {Fate.ANSWER_LOST, Fate.LATE}:
                return True  # sent, and never acknowledged: it is claimed and sent again
            sent.append(row)
        if sent:
            await self._outbox.delete(sent)
        return bool(sent)
