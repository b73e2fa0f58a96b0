"""What the Kafka side decides without a broker."""

import asyncio
import gzip
import random
import time
import zlib

import pytest
from aiokafka.errors import CorruptRecordException, KafkaConnectionError, UnsupportedCodecError
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from coordinator.domain.publishing import Message
from coordinator.kafka.ending import end_within
from coordinator.kafka.membership import is_unpacking
from coordinator.kafka.partitioning import partition_of
from coordinator.kafka.placement import BeyondEnd, Start, place
from coordinator.kafka.producer import message_bytes


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
    from aiokafka.producer.message_accumulator import BatchBuilder

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
