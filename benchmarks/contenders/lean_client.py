"""A client that does no more than it must: the least that submitting and reading back can cost.

Sends ready-made batches and takes an outcome for what its bytes say. The straight line is measured
with it, because a limit must not be held up by its client; the coordinator with it is a variant,
which tells what the client of the package costs.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import cycle
from time import perf_counter
from typing import Final

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks.arena import PARTITIONS, Arena
from benchmarks.beside import beside
from benchmarks.contenders.contender import Ended
from benchmarks.transfers import Transfer

_OUTCOME_SECONDS_MAX: Final = 120.0
_BATCH_BYTES: Final = 512 * 1024
_STATUS: Final = re.compile(rb'"status":"(\w+)"')


@asynccontextmanager
async def lean_client(arena: Arena) -> AsyncIterator[LeanClient]:
    """Connect, and read the outcomes from where their topic ends now."""
    producer = AIOKafkaProducer(
        bootstrap_servers=arena.kafka, enable_idempotence=True, max_batch_size=_BATCH_BYTES
    )
    consumer = AIOKafkaConsumer(bootstrap_servers=arena.kafka, group_id=None)
    await producer.start()
    await consumer.start()
    places = [TopicPartition(arena.topics.outcomes, number) for number in range(PARTITIONS)]
    consumer.assign(places)
    for place, end in (await consumer.end_offsets(places)).items():
        consumer.seek(place, end)
    client = LeanClient(producer, arena.topics.units)
    try:
        async with beside(client.read(consumer)):
            yield client
    finally:
        await consumer.stop()
        await producer.stop()


class LeanClient:
    """A `Client`."""

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic
        self._open: dict[bytes, tuple[float, Ended]] = {}
        self._turns = cycle(range(PARTITIONS))

    async def perform(self, transfer: Transfer) -> str:
        """Submit one and wait for its outcome."""
        outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        await self.submit([transfer], lambda _, status: outcome.set_result(status))
        return await asyncio.wait_for(outcome, _OUTCOME_SECONDS_MAX)

    async def submit(self, transfers: Sequence[Transfer], ended: Ended) -> None:
        """Submit many, as one batch each for the partitions in their turn."""
        began = perf_counter()
        batch = self._producer.create_batch()
        for transfer in transfers:
            value = orjson.dumps(transfer.as_unit())
            if batch.append(timestamp=None, key=None, value=value) is None:
                await self._send(batch)
                batch = self._producer.create_batch()
                batch.append(timestamp=None, key=None, value=value)
            self._open[transfer.id.encode()] = began, ended
        await self._send(batch)

    async def _send(self, batch: object) -> None:
        await self._producer.send_batch(batch, self._topic, partition=next(self._turns))

    async def read(self, consumer: AIOKafkaConsumer) -> None:
        """Tell of outcomes until it is cancelled."""
        while True:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                for record in records:
                    waiting = self._open.pop(record.key, None)
                    status = _STATUS.search(record.value)
                    if waiting is not None and status is not None:
                        began, ended = waiting
                        ended(began, status[1].decode())
