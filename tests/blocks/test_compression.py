# SPDX-License-Identifier: GPL-3.0-or-later
"""Compressed clusters: what goes in comes out, what is broken is said to be, and nothing grows past its size."""

from __future__ import annotations

import random
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.compression import Compression, Compressor, NotInflatable, inflate
from overkeep.units import KIB, MIB

KINDS = list(Compression)
TEXT = b"The quick brown fox jumps over the lazy dog. " * (CLUSTER // 45 + 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [None, 1, 9])
@pytest.mark.parametrize("size", [512, 4 * KIB, CLUSTER, 2 * MIB])
def test_what_goes_in_comes_out(kind: Compression, level: int | None, size: int) -> None:
    cluster = (TEXT * (size // CLUSTER + 1))[:size]
    packed = Compressor(kind, level).deflate(memoryview(cluster))
    assert packed is not None
    assert len(packed) < size
    assert inflate(kind, packed, size) == cluster
    assert inflate(kind, packed + b"\xa5" * 511, size) == cluster  # a reader gets whole sectors


@given(st.sampled_from(KINDS), st.binary(min_size=1, max_size=300), st.integers(1, 200))
def test_any_content(kind: Compression, piece: bytes, times: int) -> None:
    cluster = piece * times
    packed = Compressor(kind).deflate(cluster)
    if packed is not None:
        assert inflate(kind, packed, len(cluster)) == cluster


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_not_worth_it(kind: Compression) -> None:
    noise = random.Random(1).randbytes(CLUSTER)
    assert Compressor(kind).deflate(noise) is None


def test_deflated_clusters_fit_the_window_of_qemu() -> None:
    # The same 6 KiB of noise again and again: out of reach for a window of 4 KiB, in reach for a greater one.
    cluster = (random.Random(1).randbytes(6 * KIB) + TEXT[: 6 * KIB]) * 5
    packed = Compressor(Compression.ZLIB, 9).deflate(cluster)
    assert packed is not None
    unpacker, content = zlib.decompressobj(-12), b""
    while packed:  # in small steps: then the unpacker has nothing but its window to look back into
        content += unpacker.decompress(packed, 1000)
        packed = unpacker.unconsumed_tail
    assert content + unpacker.flush() == cluster


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_size_is_an_error(kind: Compression) -> None:
    packed = Compressor(kind).deflate(TEXT[:CLUSTER])
    assert packed is not None
    with pytest.raises(NotInflatable):
        inflate(kind, packed, CLUSTER + 1)
    with pytest.raises(NotInflatable):
        inflate(kind, packed[: len(packed) // 2], CLUSTER)
    with pytest.raises(NotInflatable):
        inflate(kind, b"", CLUSTER)


def test_a_frame_of_zstd_that_is_too_long_is_an_error() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(64 * MIB))
    with pytest.raises(NotInflatable):
        inflate(Compression.ZSTD, bomb, CLUSTER)


def test_a_frame_of_zstd_that_asks_for_much_memory_is_an_error() -> None:
    packer = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=27)
    ).compressobj()
    with pytest.raises(NotInflatable, match="memory"):
        inflate(Compression.ZSTD, packer.compress(TEXT[:CLUSTER]) + packer.flush(), CLUSTER)


@given(st.sampled_from(KINDS), st.binary(max_size=2000))
def test_noise_never_breaks_it(kind: Compression, noise: bytes) -> None:
    try:
        content = inflate(kind, noise, 512)
    except NotInflatable:
        return
    assert len(content) == 512


def test_threads_do_not_disturb_one_another() -> None:
    clusters = [(bytes([number]) * 100 + TEXT)[:CLUSTER] for number in range(64)]

    def there_and_back(cluster: bytes) -> bool:
        packed = Compressor(Compression.ZSTD).deflate(cluster)
        return packed is not None and inflate(Compression.ZSTD, packed, CLUSTER) == cluster

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(there_and_back, clusters * 4))
