"""Reads the outcomes topic from its end, without a consumer group.

Owns its positions: every client sees every outcome, and picks those it waits for. A consumer that
fails is made anew from these positions, since aiokafka's may have moved past records that it never
returned; a `getmany` is never cancelled, for the same reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

Deliver = Callable[[bytes | None, bytes | None, Sequence[tuple[str, bytes | None]]], None]
"""Takes a record's key, value and headers."""

_POLL_MS: Final = 200
"""Bounds how long `close` waits; a record is returned as soon as it is there."""
_RECORDS_MAX: Final = 2000
_BACKOFF_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_NEW_PARTITIONS_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 5.0


class OutcomesReader:
    """Delivers every record of a topic that is published after `start`."""

    def __init__(
        self,
        topic: str,
        partitions: Callable[[], Awaitable[set[int]]],
        deliver: Deliver,
        kafka_options: Mapping[str, Any],
    ) -> None:
        """``partitions`` tells the topic's partitions as they are known now."""
        self._topic = topic
        self._partitions = partitions
        self._deliver = deliver
        self._kafka_options = kafka_options
        self._positions: dict[TopicPartition, int] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._looked_at = 0.0

    async def start(self) -> None:
        """Note the topic's end and read from there; what is published from now on is seen."""
        self._consumer = await self._connected()
        partitions = [TopicPartition(self._topic, n) for n in await self._partitions()]
        self._positions = dict(await self._consumer.end_offsets(partitions))
        self._looked_at = monotonic()
        self._assign(self._consumer)
        self._task = asyncio.create_task(self._run(), name="coordinator-client-outcomes")

    async def close(self) -> None:
        """Stop reading, in bounded time."""
        self._closing.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_STOP_SECONDS)
            self._task.cancel()
        await self._drop()

    async def _run(self) -> None:
        failures = 0
        while not self._closing.is_set():
            try:
                if self._consumer is None:
                    self._consumer = await self._connected()
                    self._assign(self._consumer)
                await self._look_for_new_partitions(self._consumer)
                await self._read(self._consumer)
                failures = 0
            except Exception:  # whatever it is, a new consumer goes on from our positions
                await self._drop()
                pause = _BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS) - 1)]
                failures += 1
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), pause)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        batches = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_RECORDS_MAX)
        for partition, records in batches.items():
            for record in records:
                self._deliver(record.key, record.value, record.headers)
            self._positions[partition] = records[-1].offset + 1

    async def _look_for_new_partitions(self, consumer: AIOKafkaConsumer) -> None:
        if monotonic() - self._looked_at < _NEW_PARTITIONS_SECONDS:
            return
        self._looked_at = monotonic()
        known = {partition.partition for partition in self._positions}
        new = await self._partitions() - known
        if new:  # read from their beginning: all of it is younger than our last look
            self._positions.update({TopicPartition(self._topic, n): 0 for n in new})
            self._assign(consumer)

    async def _connected(self) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            **self._kafka_options,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
        try:
            await consumer.start()
        except BaseException:
            await consumer.stop()
            raise
        return consumer

    def _assign(self, consumer: AIOKafkaConsumer) -> None:
        consumer.assign(list(self._positions))
        for partition, offset in self._positions.items():
            consumer.seek(partition, offset)

    async def _drop(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with suppress(KafkaError, OSError, TimeoutError):
                await asyncio.wait_for(consumer.stop(), _STOP_SECONDS)
