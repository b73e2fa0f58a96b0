"""Everything that arrives on the topics, collected by one consumer; and a producer for units."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

T = TypeVar("T")
_DIGITS_MAX = 4000
Header = tuple[str, bytes | None]
Value = dict[str, Any] | bytes | str | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a submission stands; `str` of it is what F5 puts into a `ce_id`."""

    topic: str
    partition: int
    offset: int
    timestamp: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}-{self.offset}"


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it came."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]

    @property
    def json(self) -> Any:
        assert self.value is not None
        return json.loads(self.value, parse_int=_integer)

    def header(self, name: str) -> str | None:
        """Give a header as text; it must not be there twice."""
        found = [content for key, content in self.headers if key == name]
        assert len(found) < 2, f"header {name} is there {len(found)} times: {self}"
        return None if not found or found[0] is None else found[0].decode()

    @property
    def ce_id(self) -> str:
        return self.header("ce_id") or ""


def _integer(text: str) -> int | str:
    """Read a JSON integer; one that Python will not convert stays a text."""
    return int(text) if len(text) < _DIGITS_MAX else text


def encoded(value: Value) -> bytes | None:
    """Give the bytes of a submission."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return json.dumps(value).encode() if isinstance(value, dict) else value


class Topics:
    """The topics of one world: submits, and remembers all that is published."""

    def __init__(self, bootstrap: str, prefix: str, context: Callable[[], str] = str) -> None:
        self.bootstrap = bootstrap
        self.prefix = prefix
        self.units = f"{prefix}units"
        self.outcomes_topic = f"{prefix}outcomes"
        self.dead_letters_topic = f"{prefix}units-dlt"
        self.replies_topic = f"{prefix}replies"
        self.records: list[Record] = []
        self._context = context
        self._arrived = asyncio.Condition()
        self._read: dict[TopicPartition, int] = {}
        self._producer: AIOKafkaProducer | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None

    def changes_topic(self, entity: str) -> str:
        return f"{self.prefix}changes.{entity}"

    # --- life -----------------------------------------------------------------------------------

    async def create(self, topics: dict[str, dict[str, str]], partitions: int = 1) -> None:
        """Create topics with their configs."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            await admin.create_topics(
                [NewTopic(name, partitions, 1, topic_configs=c) for name, c in topics.items()]
            )
        finally:
            await admin.close()

    async def names(self) -> set[str]:
        """Give the names of all topics on the broker."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            return set(await admin.list_topics())
        finally:
            await admin.close()

    async def open(self, topics: Iterable[str]) -> None:
        """Begin to read the topics, from their beginning; they must be there."""
        wanted = list(topics)
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap, max_request_size=4_000_000, linger_ms=0
        )
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
        )
        await self._producer.start()
        await self._consumer.start()
        places = await self._places(wanted)
        assert {place.topic for place in places} == set(wanted), "a topic is missing"
        self._read = dict.fromkeys(places, 0)
        self._consumer.assign(places)
        self._task = asyncio.create_task(self._collect(), name="collect")

    async def count(self, topic: str) -> int:
        """Give the number of records that were ever put on a topic."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False)
        await consumer.start()
        try:
            return sum((await consumer.end_offsets(await self._places([topic]))).values())
        finally:
            await consumer.stop()

    async def _places(self, topics: list[str]) -> list[TopicPartition]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            described = await admin.describe_topics(topics)
        finally:
            await admin.close()
        return [
            TopicPartition(topic["topic"], partition["partition"])
            for topic in described
            for partition in topic["partitions"]
        ]

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        for each in (self._consumer, self._producer):
            if each is not None:
                await each.stop()

    async def _collect(self) -> None:
        assert self._consumer is not None
        async for got in self._consumer:
            record = Record(
                got.topic,
                got.partition,
                got.offset,
                got.timestamp,
                got.key,
                got.value,
                tuple(got.headers),
            )
            async with self._arrived:
                self.records.append(record)
                self._read[TopicPartition(got.topic, got.partition)] = got.offset + 1
                self._arrived.notify_all()

    # --- submitting -----------------------------------------------------------------------------

    async def submit(
        self,
        value: Value,
        *,
        key: bytes | str | None = None,
        headers: Sequence[Header] = (),
        partition: int | None = None,
        topic: str | None = None,
        timestamp_ms: int | None = None,
    ) -> Place:
        """Put one record on the units' topic and give its place."""
        where = {"topic": topic or self.units, "partition": partition}
        sent = await self._send(value, key, headers, **where, timestamp_ms=timestamp_ms)
        at = await sent
        return Place(at.topic, at.partition, at.offset, at.timestamp)

    async def submit_all(self, values: Iterable[Value], *, key: str | None = None) -> list[Place]:
        """Put many records, in this order, and give their places."""
        sent = [await self._send(value, key, (), topic=self.units) for value in values]
        metadata = [await each for each in sent]
        return [Place(at.topic, at.partition, at.offset, at.timestamp) for at in metadata]

    async def _send(
        self,
        value: Value,
        key: bytes | str | None,
        headers: Sequence[Header],
        **where: Any,
    ) -> asyncio.Future[Any]:
        assert self._producer is not None, "the topics are not open"
        future: asyncio.Future[Any] = await self._producer.send(
            value=encoded(value),
            key=key.encode() if isinstance(key, str) else key,
            headers=list(headers),
            **where,
        )
        return future

    # --- reading --------------------------------------------------------------------------------

    async def wait(self, look: Callable[[], T | None], what: str, seconds: float = 20.0) -> T:
        """Wait until `look` gives something true; it is asked again when a record arrives."""
        try:
            async with asyncio.timeout(seconds), self._arrived:
                while not (seen := look()):
                    await self._arrived.wait()
                return seen
        except TimeoutError:
            raise AssertionError(f"not within {seconds} s: {what}\n{self._context()}") from None

    def of(self, topic: str) -> list[Record]:
        """Give what arrived on a topic so far."""
        return [record for record in self.records if record.topic == topic]

    def outcomes_so_far(self, unit_id: str, topic: str | None = None) -> list[Record]:
        """Give the distinct outcomes (by `ce_id`) of a unit that arrived so far."""
        wanted = topic or self.outcomes_topic
        found = {r.ce_id: r for r in self.of(wanted) if r.key == unit_id.encode()}
        return list(found.values())

    async def outcome(
        self, unit_id: str, kind: str = "final", *, seconds: float = 20.0, topic: str | None = None
    ) -> Record:
        """Wait for an outcome: final, parked, duplicate, refused (the newest), or any (F5)."""

        def look() -> Record | None:
            found = self.outcomes_so_far(unit_id, topic)
            return next((r for r in reversed(found) if _is_kind(r.ce_id, unit_id, kind)), None)

        what = f"the {kind} outcome of {unit_id} on {topic or self.outcomes_topic}"
        try:
            return await self.wait(look, what, seconds)
        except AssertionError as error:
            seen = [
                str((r.ce_id, r.value))[:900] for r in self.outcomes_so_far(unit_id, topic)[-3:]
            ]
            raise AssertionError(f"{error}\n--- seen of it so far: {seen}") from None

    async def answer_to(self, place: Place, kind: str, unit_id: str) -> Record:
        """Wait for the answer to one very record: kind is duplicate or refused (F5)."""
        ce_id = f"{unit_id}/{kind}/{place}"
        return await self.wait(
            lambda: next((r for r in self.of(self.outcomes_topic) if r.ce_id == ce_id), None),
            f"the outcome {ce_id}",
        )

    def changes_so_far(self, unit_id: str) -> list[Record]:
        """Give the unit's change events, repeats dropped, in `total_order`."""
        events = {
            r.ce_id: r
            for r in self.records
            if r.topic.startswith(f"{self.prefix}changes.")
            and r.value is not None
            and r.ce_id.rpartition("/")[0] == unit_id
        }
        return sorted(events.values(), key=lambda r: int(r.ce_id.rpartition("/")[2]))

    async def changes(self, unit_id: str, count: int, seconds: float = 20.0) -> list[Record]:
        """Wait for so many change events of a unit; more than that is a failure."""

        def look() -> list[Record] | None:
            found = self.changes_so_far(unit_id)
            return found if len(found) >= count else None

        found = await self.wait(look, f"{count} change events of {unit_id}", seconds)
        assert len(found) == count, f"more than {count} events: {[r.ce_id for r in found]}"
        return found

    def dead_letters_so_far(self, place: Place) -> list[Record]:
        """Give the dead letters of one record."""
        wanted = (place.topic, str(place.partition), str(place.offset))
        return [
            r
            for r in self.of(self.dead_letters_topic)
            if tuple(_last(r, f"coordinator.errors.{n}") for n in ("topic", "partition", "offset"))
            == wanted
        ]

    async def dead_letter(self, place: Place, seconds: float = 20.0) -> Record:
        """Wait for the dead letter of one record."""
        found = await self.wait(
            lambda: self.dead_letters_so_far(place), f"the dead letter of {place}", seconds
        )
        return found[0]

    async def caught_up(self, seconds: float = 20.0) -> None:
        """Return when all that is on the topics now has been read."""
        assert self._consumer is not None
        ends = await self._consumer.end_offsets(list(self._read))
        await self.wait(
            lambda: all(self._read[place] >= end for place, end in ends.items()),
            "all that was published is read",
            seconds,
        )


def _last(record: Record, name: str) -> str | None:
    found = [content for key, content in record.headers if key == name]
    return found[-1].decode() if found and found[-1] is not None else None


def _is_kind(ce_id: str, unit_id: str, kind: str) -> bool:
    if kind == "any":
        return True
    if kind == "final":
        return ce_id == f"{unit_id}/outcome"
    if kind == "parked":
        return ce_id == f"{unit_id}/parked"
    return ce_id.startswith(f"{unit_id}/{kind}/")
