"""Decompression with a bound, in the place of the driver's, which has none.

A batch of 32 KiB may unpack to a gigabyte, all of it at once and in the event loop (seen on
aiokafka 0.14). `bound_decompression` gives the driver's readers of batches our decoders, which
stop at the bound with `BatchTooLarge`; what they allocate stays under twice the bound. The bound
is the process's, since a driver's reader knows no consumer.

Refuses nothing else: the bytes that come out are those of the driver's own decoders.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final

import aiokafka.record.default_records as in_python
import aiokafka.record.legacy_records as legacy_in_python
from aiokafka.codec import _detect_xerial_stream, cramjam
from aiokafka.errors import UnsupportedCodecError

from coordinator.fault_points import FaultPoint, reach

UNPACKED_BYTES_MAX: Final = 32 * 1024 * 1024

_FIRST_GUESS_BYTES = 64 * 1024
_GROWTH = 4
_GZIP_BITS = 16 + 15
_XERIAL_HEADER_BYTES = 16
_BUFFER_FULL = "failed to write whole buffer"

_FETCH_BATCHES_MAX = 2
"""How many batches of the largest size one fetch may unpack: the driver counts records only."""

_bound_bytes = UNPACKED_BYTES_MAX
_fetch_left_bytes: int | None = None


class BatchTooLarge(Exception):
    """A batch holds more than we unpack."""

    def __init__(self) -> None:
        super().__init__(f"a compressed batch holds more than {_bound_bytes} bytes")


class FetchTooLarge(Exception):
    """The batches of one fetch hold more together than is read at once; each may be fine."""


@contextmanager
def bounded_fetch() -> Iterator[None]:
    """Raise `FetchTooLarge` in the midst of whatever unpacks too much together in here."""
    global _fetch_left_bytes  # noqa: PLW0603
    _fetch_left_bytes = _FETCH_BATCHES_MAX * _bound_bytes
    try:
        yield
    finally:
        _fetch_left_bytes = None


def _counted(unpacked: bytes) -> bytes:
    global _fetch_left_bytes  # noqa: PLW0603
    if _fetch_left_bytes is not None:
        _fetch_left_bytes -= len(unpacked)
        if _fetch_left_bytes < 0:
            raise FetchTooLarge("a fetch unpacks to more than is read at once")
    return unpacked


def bound_decompression(unpacked_bytes_max: int) -> None:
    """Let no reader of batches in this process unpack more than that at once."""
    global _bound_bytes  # noqa: PLW0603 — see the module: the driver's readers take no argument
    _bound_bytes = unpacked_bytes_max
    for module in _readers():
        for name, decoder in _DECODERS.items():
            if hasattr(module, name):
                setattr(module, name, decoder)


def _readers() -> tuple[ModuleType, ...]:
    try:
        from aiokafka.record._crecords import default_records, legacy_records
    except ImportError:  # built without its C extensions
        return (in_python, legacy_in_python)
    return (in_python, legacy_in_python, default_records, legacy_records)


def gzip_decode(packed: Any) -> bytes:
    """Unpack gzip, members one after the other, as `gzip.GzipFile` does."""
    reach(FaultPoint.UNPACK)
    rest, unpacked = bytes(packed), bytearray()
    while rest:
        member = zlib.decompressobj(_GZIP_BITS)
        unpacked += member.decompress(rest, _bound_bytes - len(unpacked) + 1)
        if len(unpacked) > _bound_bytes:
            raise BatchTooLarge
        if not member.eof:
            raise EOFError("the gzip stream ends before its end marker")
        rest = member.unused_data.lstrip(b"\0")
    return _counted(bytes(unpacked))


def snappy_decode(packed: Any) -> bytes:
    """Unpack snappy, raw or in the blocks of the Java library. Each tells its size beforehand."""
    reach(FaultPoint.UNPACK)
    packed = bytes(packed)
    blocks = _xerial_blocks(packed) if _detect_xerial_stream(packed) else [packed]
    if sum(_codec("snappy").decompress_raw_len(block) for block in blocks) > _bound_bytes:
        raise BatchTooLarge
    return _counted(b"".join(bytes(_codec("snappy").decompress_raw(each)) for each in blocks))


def _xerial_blocks(packed: bytes) -> list[bytes]:
    blocks, at = [], _XERIAL_HEADER_BYTES
    while at < len(packed):
        (length,) = struct.unpack_from("!I", packed, at)
        at += 4
        blocks.append(packed[at : at + length])
        at += length
    return blocks


def lz4_decode(packed: Any) -> bytes:
    """Unpack LZ4 frames."""
    reach(FaultPoint.UNPACK)
    return _decode_into(_codec("lz4"), packed)


def zstd_decode(packed: Any) -> bytes:
    """Unpack Zstandard frames."""
    reach(FaultPoint.UNPACK)
    return _decode_into(_codec("zstd"), packed)


def _decode_into(codec: Any, packed: Any) -> bytes:
    """Unpack into a buffer that grows up to the bound."""
    size = max(_FIRST_GUESS_BYTES, _GROWTH * len(packed))
    while True:
        size = min(size, _bound_bytes)
        buffer = bytearray(size)
        try:
            length: int = codec.decompress_into(packed, buffer)
        except cramjam.DecompressionError as error:
            if _BUFFER_FULL not in str(error):
                raise
            if size == _bound_bytes:
                raise BatchTooLarge from error
            size *= _GROWTH
            continue
        del buffer[length:]
        return _counted(bytes(buffer))


def _codec(name: str) -> Any:
    if cramjam is None:
        raise UnsupportedCodecError(f"the library for {name} is not installed")
    return getattr(cramjam, name)


_DECODERS: Final = {
    "gzip_decode": gzip_decode,
    "snappy_decode": snappy_decode,
    "lz4_decode": lz4_decode,
    "zstd_decode": zstd_decode,
}
