"""Decompression in bounds: what the driver unpacks we unpack alike, and no bomb goes off."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cramjam
import pytest
from aiokafka import codec
from aiokafka.record import default_records
from hypothesis import given
from hypothesis import strategies as st

from coordinator.kafka import codecs
from coordinator.kafka.codecs import BatchTooLarge, bound_decompression

MIB = 1024 * 1024
NAMES = ["gzip", "snappy", "lz4", "zstd"]
BOMB_MIB = 384


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    bound_decompression(codecs.UNPACKED_BYTES_MAX)


@given(st.binary(min_size=1, max_size=2000), st.integers(1, 200), st.sampled_from(NAMES))
def test_what_comes_out_is_what_went_in(part: bytes, times: int, name: str) -> None:
    content = part * times
    packed = getattr(codec, f"{name}_encode")(content)
    unpacked = getattr(codecs, f"{name}_decode")(memoryview(packed))
    assert unpacked == content == getattr(codec, f"{name}_decode")(packed)


@pytest.mark.parametrize("name", NAMES)
def test_the_bound_is_exact(name: str) -> None:
    packed = getattr(codec, f"{name}_encode")(b"ab" * MIB)
    bound_decompression(2 * MIB)
    assert len(getattr(codecs, f"{name}_decode")(packed)) == 2 * MIB
    bound_decompression(2 * MIB - 1)
    with pytest.raises(BatchTooLarge):
        getattr(codecs, f"{name}_decode")(packed)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spoil", [lambda b: b[: len(b) // 2], lambda b: b"?" * 40])
def test_what_is_broken_is_not_called_large(name: str, spoil: Callable[[bytes], bytes]) -> None:
    packed = spoil(getattr(codec, f"{name}_encode")(bytes(range(256)) * 50))
    with pytest.raises(Exception) as caught:  # noqa: PT011 — whatever the library raises
        getattr(codecs, f"{name}_decode")(packed)
    assert not isinstance(caught.value, BatchTooLarge)


def test_the_drivers_readers_use_ours() -> None:
    bound_decompression(MIB)
    for module in codecs._readers():
        for name in ("gzip_decode", "snappy_decode", "lz4_decode"):
            assert getattr(module, name) is getattr(codecs, name)
    assert vars(default_records)["zstd_decode"] is codecs.zstd_decode


def _bomb(name: str) -> bytes:
    chunk = bytes(MIB)
    if name == "gzip":
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        return b"".join(packer.compress(chunk) for _ in range(BOMB_MIB)) + packer.flush()
    if name == "snappy":
        block = bytes(cramjam.snappy.compress_raw(bytes(32 * 1024)))
        header = bytes(codec.snappy_encode(b""))
        return header + (struct.pack("!i", len(block)) + block) * (32 * BOMB_MIB)
    compressor = getattr(cramjam, name).Compressor()
    for _ in range(BOMB_MIB):
        compressor.compress(chunk)
    packed: bytes = bytes(compressor.finish())
    return packed


IN_LITTLE_MEMORY = f"""
import resource, sys
from coordinator.kafka import codecs
codecs.bound_decompression({8 * MIB})
packed = open(sys.argv[2], "rb").read()
with open("/proc/self/statm") as statm:
    held = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + {128 * MIB},) * 2)
try:
    getattr(codecs, sys.argv[1] + "_decode")(packed)
except codecs.BatchTooLarge:
    sys.exit(7)
"""


@pytest.mark.parametrize("name", NAMES)
def test_a_bomb_of_every_codec_is_defused_in_little_memory(name: str, tmp_path: Path) -> None:
    """I12: 384 MiB come out of it, and the process may have 128 MiB more than it had."""
    (tmp_path / "bomb").write_bytes(_bomb(name))
    done = subprocess.run(
        [sys.executable, "-c", IN_LITTLE_MEMORY, name, str(tmp_path / "bomb")],
        check=False,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 7, done.stderr.decode()[-500:]
