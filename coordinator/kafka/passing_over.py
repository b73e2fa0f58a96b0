"""Leaving behind what is not unpacked: a dead letter without value tells where it was.

The records themselves stay in Kafka, for as long as it keeps them, and can be had from there by
topic, partition and offset. A compressed batch cannot be left in part: it goes as a whole.
"""

from __future__ import annotations

from coordinator.domain.errors import ErrorCode
from coordinator.engine.ports import Intake, Partition, Record
from coordinator.kafka.unpacking import Packed

_DEADLY = (
    "Unpacking the records at offsets {first} to {last} ended the process every time; they were "
    "passed over, and this dead letter has no value."
)
_TOO_LARGE = (
    "The compressed batch with the records at offsets {first} to {last} holds more than "
    "kafka.unpacked_batch_max_bytes; it was not unpacked, and this dead letter has no value."
)


async def leave_deadly(
    port: Intake, partition: Partition, offset: int, packed: Packed
) -> tuple[int, bool]:
    """Leave what ends the process; the offset after it, and whether the position was ours."""
    return await _leave(port, partition, offset, packed, _DEADLY, ErrorCode.MALFORMED)


async def leave_too_large(
    port: Intake, partition: Partition, offset: int, packed: Packed
) -> tuple[int, bool]:
    """Leave a batch that holds more than we unpack; see `leave_deadly`."""
    return await _leave(port, partition, offset, packed, _TOO_LARGE, ErrorCode.TOO_LARGE)


async def _leave(
    port: Intake, partition: Partition, offset: int, packed: Packed, why: str, code: ErrorCode
) -> tuple[int, bool]:
    next_offset = packed.batch_ends(offset)
    record = Record(*partition, offset, 0, None, None, ())
    message = why.format(first=offset, last=next_offset - 1)
    return next_offset, await port.set_aside(record, next_offset, message, code)
