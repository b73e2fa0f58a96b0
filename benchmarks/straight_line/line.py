"""The stages of the straight line, one behind the other, each at work on a batch of its own.

::

    consume, admit, load ─► apply in MongoDB ─► pivot in PostgreSQL ─► publish, clean up

A stage takes whatever waits for it, up to a bound, so that batches grow where it is slow.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks.arena import PARTITIONS
from benchmarks.straight_line import journal
from benchmarks.straight_line.documents import Documents
from benchmarks.straight_line.journal import Journal
from benchmarks.straight_line.messages import Announcing, Message, pack
from benchmarks.straight_line.units import Unit, read

BATCH_UNITS_MAX: Final = 300
"""As many as the coordinator takes by default."""

_BATCH_BYTES: Final = 512 * 1024


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything is: addresses, the MongoDB database, topics."""

    postgres: str
    mongodb: str
    database: str
    kafka: str
    units: str
    outcomes: str
    accounts: str
    wallets: str


class _Waiting:
    """The units that wait for a stage."""

    def __init__(self) -> None:
        self._units: deque[Unit] = deque()
        self._changed = asyncio.Event()

    def put(self, units: Sequence[Unit]) -> None:
        self._units.extend(units)
        self._changed.set()

    async def take(self) -> list[Unit]:
        while not self._units:
            self._changed.clear()
            await self._changed.wait()
        units = self._units
        return [units.popleft() for _ in range(min(BATCH_UNITS_MAX, len(units)))]


class Line:
    """All stages."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        producer: AIOKafkaProducer,
        journal: Journal,
        documents: Documents,
        announcing: Announcing,
        threads: ThreadPoolExecutor,
    ) -> None:
        self._consumer = consumer
        self._producer = producer
        self._journal = journal
        self._documents = documents
        self._announcing = announcing
        self._threads = threads
        self._admitted = _Waiting()
        self._applied = _Waiting()
        self._published: deque[tuple[int, list[Message]]] = deque()
        self._pivoted = asyncio.Event()
        self._last_seq = 0

    async def run(self) -> None:
        """Go on until it is cancelled, or one stage fails."""
        async with asyncio.TaskGroup() as group:
            for stage in (self._admit, self._apply, self._pivot, self._publish):
                group.create_task(stage(), name=stage.__name__)

    async def _admit(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            fetched = await self._consumer.getmany(timeout_ms=1000, max_records=BATCH_UNITS_MAX)
            records = [record for part in fetched.values() for record in part]
            if not records:
                continue
            units = read(self._last_seq + 1, records)
            self._last_seq += len(units)
            # Reading is not touching, and nobody else is on these keys: all three side by side.
            await asyncio.gather(
                self._journal.admit(units),
                self._journal.load(units),
                loop.run_in_executor(self._threads, self._documents.load, units),
            )
            self._admitted.put(units)

    async def _apply(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            units = await self._admitted.take()
            await loop.run_in_executor(self._threads, self._documents.apply, units)
            self._applied.put(units)

    async def _pivot(self) -> None:
        while True:
            units = await self._applied.take()
            messages = self._announcing.announce(units)
            outbox_row = await self._journal.pivot(units, pack(messages))
            self._published.append((outbox_row, messages))
            self._pivoted.set()

    async def _publish(self) -> None:
        cleaning: asyncio.Task[None] | None = None
        while True:
            self._pivoted.clear()
            if not self._published:
                await self._pivoted.wait()
                continue
            outbox_row, messages = self._published.popleft()
            await self._send(messages)
            if cleaning is not None:
                await cleaning
            cleaning = asyncio.create_task(self._journal.clean([outbox_row]))

    async def _send(self, messages: Sequence[Message]) -> None:
        batches: dict[tuple[str, int], Any] = {}
        for topic, key, value, headers in messages:
            place = (topic, zlib.crc32(key) % PARTITIONS)
            batch = batches.get(place)
            if batch is None:
                batch = batches[place] = self._producer.create_batch()
            if batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
                raise RuntimeError("a batch is larger than it may be")
        sent = [
            await self._producer.send_batch(batch, topic, partition=number)
            for (topic, number), batch in batches.items()
        ]
        await asyncio.gather(*sent)


@asynccontextmanager
async def opened(places: Places) -> AsyncIterator[Line]:
    """Connect everywhere."""
    consumer = AIOKafkaConsumer(bootstrap_servers=places.kafka, group_id=None)
    producer = AIOKafkaProducer(
        bootstrap_servers=places.kafka, enable_idempotence=True, max_batch_size=_BATCH_BYTES
    )
    documents = Documents(places.mongodb, places.database)
    documents.prepare()
    await consumer.start()
    await producer.start()
    partitions = [TopicPartition(places.units, number) for number in range(PARTITIONS)]
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)
    announcing = Announcing(places.outcomes, places.accounts, places.wallets)
    threads = ThreadPoolExecutor(2, thread_name_prefix="mongodb")
    try:
        async with journal.opened(places.postgres) as opened_journal:
            yield Line(consumer, producer, opened_journal, documents, announcing, threads)
    finally:
        await consumer.stop()
        await producer.stop()
        documents.close()
