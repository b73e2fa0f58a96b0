"""Small ports in memory and a broker's plain client, for the tests of the Kafka side.

The two properties of the ports that those tests lean on are tested here.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from coordinator.domain.errors import ErrorCode, StoreUnavailable
from coordinator.domain.publishing import Message
from coordinator.engine.bounds import Backlog, Bound
from coordinator.engine.ports import Partition, Record, Suspicion


class MemoryIntake:
    """A journal's positions with their compare-and-set, and everything that was admitted."""

    def __init__(self) -> None:
        self.at: dict[Partition, int] = {}
        self.admitted: list[Record] = []
        self.batches: list[int] = []
        self.room = True
        self.holding = Bound.UNITS
        self.allow: Callable[[], int] | None = None
        self.away = 0
        self.steal: dict[Partition, int] = {}
        self.suspicions: dict[Partition, Suspicion] = {}
        self.undecided: dict[Partition, Suspicion] = {}
        self.marks: list[tuple[Partition, int, bool]] = []
        self.kept: list[tuple[Record, str, ErrorCode]] = []
        self.released: set[Partition] = set()

    async def positions(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        if self.away:
            self.away -= 1
            raise StoreUnavailable("journal", "away")
        return {place: self.at[place] for place in partitions if place in self.at}

    async def begin_reading(
        self, offsets: Mapping[Partition, int]
    ) -> Mapping[Partition, Suspicion]:
        return {
            place: self.undecided.get(place) or self.suspicions.pop(place, Suspicion())
            for place in offsets
        }

    async def mark(self, partition: Partition, offset: int, *, setting_aside: bool) -> bool:
        self.marks.append((partition, offset, setting_aside))
        return True

    async def set_aside(
        self, record: Record, next_offset: int, message: str, code: ErrorCode = ErrorCode.MALFORMED
    ) -> bool:
        self.at[record.topic, record.partition] = next_offset
        self.kept.append((record, message, code))
        return True

    async def release(self, partitions: Collection[Partition]) -> None:
        self.released.update(partitions)

    async def admit(self, records: Sequence[Record]) -> frozenset[Partition]:
        if self.away:
            self.away -= 1
            raise StoreUnavailable("journal", "away")
        lost = set()
        for place, offset in self.steal.items():
            if any((r.topic, r.partition) == place for r in records):
                self.at[place] = offset
                lost.add(place)
        for place in lost:
            del self.steal[place]
        kept = [record for record in records if (record.topic, record.partition) not in lost]
        for record in kept:
            place = (record.topic, record.partition)
            assert record.offset >= self.at.get(place, 0), "read before the journal's position"
            self.at[place] = record.offset + 1
        self.admitted += kept
        self.batches.append(len(kept))
        return frozenset(lost)

    def bound(self) -> Bound | None:
        return None if self.room else self.holding

    def backlog(self) -> Backlog:
        return Backlog(len(self.admitted))

    def allowances(self, topics: Collection[str]) -> Mapping[str, int]:
        return {} if self.allow is None else {topic: self.allow() for topic in topics}

    def values(self, partition: int) -> list[bytes | None]:
        return [record.value for record in self.admitted if record.partition == partition]


class MemoryOutbox:
    """An outbox with its lease and its queues of topics that refuse."""

    def __init__(self) -> None:
        self.rows: dict[int, list[Message]] = {}
        self.aside: dict[int, Message] = {}
        self.queues: dict[int, str] = {}
        self.ours = True
        self.released = 0
        self.away = 0
        self.claims = 0
        self._last = 0

    def put(self, wake: asyncio.Event, *messages: Message) -> None:
        self._last += 1
        self.rows[self._last] = list(messages)
        wake.set()

    async def hold_lease(self) -> bool:
        return self.ours

    async def release_lease(self) -> None:
        self.released += 1

    async def claim(
        self, rows_max: int, skip: Collection[int] = ()
    ) -> Sequence[tuple[int, Sequence[Message]]]:
        self._fail_if_away()
        self.claims += 1
        return [(row, self.rows[row]) for row in sorted(self.rows) if row not in skip][:rows_max]

    async def delete(self, rows: Sequence[int]) -> None:
        self._fail_if_away()
        for row in rows:
            self.rows.pop(row, None)

    async def set_aside(self, topic: str, messages: Sequence[Message]) -> None:
        kept = [message for row in self.rows.values() for message in row]
        kept += self.aside.values()
        assert all(message in kept for message in messages), "a row goes after what it holds"
        for message in messages:
            self._last += 1
            self.aside[self._last] = message
            self.queues[self._last] = topic

    async def claim_aside(self, topic: str, limit: int) -> Sequence[tuple[int, Message]]:
        queue = [(row, each) for row, each in self.aside.items() if self.queues[row] == topic]
        return queue[:limit]

    async def delete_aside(self, ids: Sequence[int]) -> None:
        for row in ids:
            del self.aside[row], self.queues[row]

    async def topics_aside(self) -> frozenset[str]:
        return frozenset(self.queues.values())

    def _fail_if_away(self) -> None:
        if self.away:
            self.away -= 1
            raise StoreUnavailable("journal", "away")


async def until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Wait for a condition; the test fails with ``what`` when it does not come true."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - what is waited for sets no event
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"it never came true that {what}") from None


@asynccontextmanager
async def running(service: object) -> AsyncIterator[asyncio.Event]:
    """Run an intake or a relay; stop it at the end, and fail with its error if it had one."""
    stop = asyncio.Event()
    task = asyncio.create_task(service.run(stop))  # type: ignore[attr-defined]
    try:
        yield stop
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


@asynccontextmanager
async def admin_of(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


@asynccontextmanager
async def producer_of(bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def delete_topic(bootstrap: str, topic: str) -> None:
    """Delete a topic and wait until the broker has forgotten it."""
    async with admin_of(bootstrap) as admin:
        await admin.delete_topics([topic])
        async with asyncio.timeout(20):
            while topic in await admin.list_topics():  # noqa: ASYNC110 - asked of a server
                await asyncio.sleep(0.05)


async def content(bootstrap: str, topic: str, end: int, first: int = 0) -> list[Message]:
    """Everything that partitions ``first`` to ``end`` - 1 hold now, one after the other."""
    places = [TopicPartition(topic, number) for number in range(first, end)]
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    found: list[Message] = []
    try:
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        for place in places:
            at = 0
            while at < ends[place]:
                for records in (await consumer.getmany(place, timeout_ms=1000)).values():
                    for r in records:
                        found.append(Message(topic, r.key, r.value, tuple(r.headers)))
                        at = r.offset + 1
    finally:
        with suppress(Exception):
            await consumer.stop()
    return found


async def test_an_intake_that_is_read_before_its_position_fails() -> None:
    port = MemoryIntake()
    port.at["t", 0] = 5
    with pytest.raises(AssertionError, match="read before"):
        await port.admit([Record("t", 0, 4, 0, None, b"", ())])


async def test_an_outbox_row_stays_until_deleted_and_is_skipped_by_its_id() -> None:
    outbox, wake = MemoryOutbox(), asyncio.Event()
    for value in (b"a", b"b", b"c"):
        outbox.put(wake, Message("t", None, value, ()))
    assert [row for row, _ in await outbox.claim(2)] == [1, 2]
    assert [row for row, _ in await outbox.claim(2, {1})] == [2, 3]
