"""Unpacks what a fetch brought, where the driver cannot: a header's name that is not UTF-8.

Kafka takes any bytes for the name of a header, aiokafka only UTF-8, and a record that it stumbles
over hides all that follow. Here such a name is read with its wrong bytes as ``\\xNN``; everything
else is the driver's own code, in Python: codecs, checksums, transactions. It is slow, so that it is
for the one fetch that the driver has failed at.

Refuses to guess: what is broken in any other way stays an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy, _DefaultRecordPy
from aiokafka.record.legacy_records import LegacyRecordBatch
from aiokafka.record.memory_records import _MemoryRecordsPy
from aiokafka.record.util import decode_varint_py as decode_varint  # the other has no bounds

from coordinator.engine.ports import Record

_FIRST_MAGIC_WITH_HEADERS = 2
_BYTES_AT_ONCE = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Unpacked:
    """The records of a fetch, up to ``next_offset``; ``error`` is what stands there, if anything.

    ``whole``: the fetch brought no more than this.
    """

    records: Sequence[Record]
    next_offset: int
    whole: bool
    error: Exception | None


class Packed:
    """A fetch from ``offset`` on; ``aborted`` is the broker's list of transactions.

    Nothing of the content is looked at before it is asked for.
    """

    def __init__(
        self, partition: TopicPartition, offset: int, content: bytes, aborted: Any
    ) -> None:
        self._content = content
        self._records = PartitionRecords(
            partition, _Batches(content), aborted, offset, None, None, True, READ_COMMITTED
        )

    @property
    def next_offset(self) -> int:
        """Where what follows the last record that was given begins."""
        return int(self._records.next_fetch_offset)

    def next_record(self) -> Record | None:
        """Unpack one record, None at the end; raises anything about the content."""
        for r in self._records:
            return Record(
                r.topic, r.partition, r.offset, r.timestamp, r.key, r.value, tuple(r.headers)
            )
        return None

    def batch_ends(self, offset: int) -> int:
        """Tell by its outside alone where the batch at an offset ends.

        A batch that is not compressed is as good as its first record alone.
        """
        batches = _Batches(self._content)
        while batches.has_next():
            batch = batches.next_batch()
            end: int = batch.next_offset
            if end > offset:
                return end if getattr(batch, "compression_type", 1) else offset + 1
        return offset + 1


def unpack_fetch(packed: Packed, max_records: int) -> Unpacked:
    """Unpack some of a fetch: so many records, and not many more bytes than `_BYTES_AT_ONCE`.

    Raises nothing about the content: what could be read before an error is worth having.
    """
    records: list[Record] = []
    try:
        size = 0
        while len(records) < max_records and size < _BYTES_AT_ONCE:
            record = packed.next_record()
            if record is None:
                return Unpacked(records, packed.next_offset, whole=True, error=None)
            records.append(record)
            size += len(record.value or b"")
    except Exception as error:  # of whatever kind: content is at fault, or no better known
        return Unpacked(records, packed.next_offset, whole=False, error=error)
    return Unpacked(records, packed.next_offset, whole=False, error=None)


class _Batches(_MemoryRecordsPy):  # type: ignore[misc]
    """The batches of a fetch, ours where records have headers."""

    def next_batch(self, *_: int) -> Any:
        content = self._next_slice
        if content is None:
            return None
        if len(content) < self.MIN_SLICE:
            raise CorruptRecordException("a batch is shorter than any can be")
        self._cache_next()
        magic = content[self.MAGIC_OFFSET]
        if magic < _FIRST_MAGIC_WITH_HEADERS:
            return LegacyRecordBatch(content, magic)
        return _Batch(content)


class _Batch(_DefaultRecordBatchPy):  # type: ignore[misc]
    """The driver's batch with a patient reader of records (KIP-98's format, version 2)."""

    _pos: int

    def _read_msg(self, *_: Any) -> Any:
        buffer = self._buffer
        length, pos = decode_varint(buffer, self._pos)
        end = pos + length
        pos += 1  # attributes, of which there are none
        since_first_ms, pos = decode_varint(buffer, pos)
        since_base, pos = decode_varint(buffer, pos)
        key, pos = _nullable(buffer, pos)
        value, pos = _nullable(buffer, pos)
        count, pos = decode_varint(buffer, pos)
        if count < 0:
            raise CorruptRecordException(f"a record with {count} headers")
        headers: list[tuple[str, bytes | None]] = []
        for _header in range(count):
            name, pos = _nullable(buffer, pos)
            content, pos = _nullable(buffer, pos)
            if name is None:
                raise CorruptRecordException("a header without a name")
            headers.append((name.decode("utf-8", "backslashreplace"), content))
        if pos != end or end > len(buffer):
            raise CorruptRecordException(f"a record of {length} bytes ends elsewhere")
        self._pos = pos
        appended = self.timestamp_type == self.LOG_APPEND_TIME
        timestamp = self.max_timestamp if appended else self.first_timestamp + since_first_ms
        return _DefaultRecordPy(
            self.base_offset + since_base, timestamp, self.timestamp_type, key, value, headers
        )


def _nullable(buffer: bytearray, pos: int) -> tuple[bytes | None, int]:
    length, pos = decode_varint(buffer, pos)
    if length < 0:
        return None, pos
    if pos + length > len(buffer):
        raise CorruptRecordException("a record that goes on past its batch")
    return bytes(buffer[pos : pos + length]), pos + length
