"""What the Kafka side decides without a broker."""

import asyncio
import gzip
import random
import time
import zlib
from typing import Any
from unittest.mock import patch

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException, KafkaConnectionError, UnsupportedCodecError
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from coordinator.domain.publishing import Message
from coordinator.engine.ports import Record
from coordinator.kafka.ending import end_within
from coordinator.kafka.failures import is_unpacking
from coordinator.kafka.partitioning import partition_of
from coordinator.kafka.placement import BeyondEnd, Start, place
from coordinator.kafka.producer import message_bytes
from coordinator.kafka.unpacking import Packed, Unpacked, _Batch, unpack_fetch


@given(st.binary(max_size=200), st.integers(1, 64))
def test_a_key_goes_where_kafkas_default_partitioner_puts_it(key: bytes, partitions: int) -> None:
    numbers = list(range(partitions))
    assert partition_of(key, partitions) == DefaultPartitioner()(key, numbers, numbers)


@pytest.mark.parametrize("length", range(140))
def test_every_length_of_key_is_hashed_alike(length: int) -> None:
    key = random.Random(length).randbytes(length)
    assert partition_of(key, 7919) == DefaultPartitioner()(key, list(range(7919)), [])


@pytest.mark.parametrize(
    ("position", "beginning", "end", "decision"),
    [
        (None, 0, 10, Start(0)),
        (None, 4, 10, Start(4)),
        (7, 0, 10, Start(7)),
        (10, 0, 10, Start(10)),
        (3, 8, 10, Start(8, lost=5)),
        (11, 0, 10, BeyondEnd(11, 10)),
        (100, 0, 0, BeyondEnd(100, 0)),
    ],
)
def test_where_reading_begins(
    position: int | None, beginning: int, end: int, decision: Start | BeyondEnd
) -> None:
    assert place(position, beginning, end) == decision


@given(
    st.none() | st.binary(max_size=300),
    st.none() | st.binary(max_size=300),
    st.lists(st.tuples(st.text(max_size=20), st.none() | st.binary(max_size=30)), max_size=12),
)
def test_the_size_of_a_message_is_never_underestimated(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    batch = BatchBuilder(1_000_000, 0)
    batch.append(timestamp=1_700_000_000_000, key=key, value=value, headers=headers)
    assert batch.size() <= message_bytes(Message("t", key, value, tuple(headers)))


@pytest.mark.parametrize(
    ("error", "unpacking"),
    [
        (UnsupportedCodecError("lz4"), True),
        (CorruptRecordException("crc"), True),
        (gzip.BadGzipFile("magic"), True),
        (zlib.error("invalid distance"), True),
        (EOFError("ended early"), True),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "start byte"), True),
        (MemoryError(), True),
        (KafkaConnectionError("away"), False),
        (ConnectionResetError(), False),
        (TimeoutError(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_speaks_of_a_batch_and_what_of_a_broker(error: Exception, unpacking: bool) -> None:
    assert is_unpacking(error) is unpacking


_HEADERS = st.lists(st.tuples(st.text(max_size=9), st.none() | st.binary(max_size=9)), max_size=3)
_RECORDS = st.lists(
    st.tuples(st.none() | st.binary(max_size=40), st.none() | st.binary(max_size=40), _HEADERS),
    min_size=1,
    max_size=5,
)


def _fetched(records: list[Any], codec: int) -> bytes:
    batch = BatchBuilder(1_000_000, codec)
    for number, (key, value, headers) in enumerate(records):
        batch.append(timestamp=1000 + number, key=key, value=value, headers=headers)
    return bytes(batch._build())


@given(_RECORDS, st.integers(0, 4), st.integers(0, 4))
def test_what_the_driver_can_unpack_we_unpack_alike(
    records: list[Any], codec: int, offset: int
) -> None:
    content, place = _fetched(records, codec), TopicPartition("t", 3)
    driver = PartitionRecords(
        place, MemoryRecords(content), [], offset, None, None, True, READ_COMMITTED
    )
    expected = [
        Record(r.topic, r.partition, r.offset, r.timestamp, r.key, r.value, r.headers)
        for r in driver
    ]
    unpacked = unpack_fetch(Packed(place, offset, content, []), 500)
    assert unpacked == Unpacked(expected, driver.next_fetch_offset, whole=True, error=None)


@given(_RECORDS, st.integers(0, 4), st.data())
def test_broken_content_is_told_and_never_raised(
    records: list[Any], codec: int, data: st.DataObject
) -> None:
    content = bytearray(_fetched(records, codec))
    at = data.draw(st.integers(12, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    with patch.object(_Batch, "validate_crc", lambda batch: True):
        unpacked = unpack_fetch(Packed(TopicPartition("t", 3), 0, bytes(content), []), 500)
    assert unpacked.whole is (unpacked.error is None)
    assert len(unpacked.records) <= len(records)


def test_a_checksum_that_does_not_match_is_told() -> None:
    content = bytearray(_fetched([(b"k", b"v", [])], 0))
    content[-3] ^= 1
    unpacked = unpack_fetch(Packed(TopicPartition("t", 3), 7, bytes(content), []), 500)
    assert isinstance(unpacked.error, CorruptRecordException)
    assert (unpacked.records, unpacked.next_offset) == ([], 7)


async def _cancelled() -> None:
    raise asyncio.CancelledError


async def _failing() -> None:
    raise RuntimeError("the driver")


async def _deaf() -> None:
    """Does not end when it is cancelled, as aiokafka's `stop` may not."""
    end = time.monotonic() + 2
    while time.monotonic() < end:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.5)


async def test_nothing_that_a_driver_does_while_it_ends_reaches_us() -> None:
    assert await end_within(asyncio.sleep(0), 1)
    assert not await end_within(_cancelled(), 1)
    assert not await end_within(_failing(), 1)
    started = time.monotonic()
    assert not await end_within(_deaf(), 0.05)
    assert time.monotonic() - started < 1
