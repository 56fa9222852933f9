# SPDX-License-Identifier: GPL-3.0-or-later
"""Digests: what they are made of, and that a chain of them says what the disk says."""

from __future__ import annotations

import os
import random
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from overkeep.blocks import digests
from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.copy import copy
from overkeep.blocks.digests import ABSENT, ZERO, Digests, DigestWriter, digest_of, digests_of
from overkeep.blocks.errors import DigestsDamaged, UnsafeImage
from overkeep.blocks.expected import ChainDigests
from overkeep.blocks.image import ImageSink, sums_name
from overkeep.blocks.memory import MemoryDisk
from overkeep.units import GIB, MIB, TIB


def test_zero_is_what_the_format_says() -> None:
    document = Path(__file__).parents[2] / "docs" / "format" / "1.md"
    assert f"`ZERO` = `{ZERO.hex()}`" in document.read_text()


def test_the_end_of_a_disk_is_filled_up_with_zeroes() -> None:
    assert digest_of(b"end") == blake3(b"end" + bytes(CLUSTER - 3)).digest(16)
    assert digests_of(memoryview(bytearray(CLUSTER + 512))) == ZERO * 2
    data = bytearray(os.urandom(CLUSTER)) + b"end"
    assert digests_of(memoryview(data)) == blake3(bytes(data[:CLUSTER])).digest(16) + digest_of(b"end")


def test_a_chain_of_digests_says_what_the_disk_says(tmp_path: Path) -> None:
    rng = random.Random(3)
    disk = MemoryDisk(40 * MIB)
    names: list[str] = []
    for point in range(4):
        if point == 3:
            disk.content.extend(bytes(20 * MIB + 512))
        disk.mark()
        for _ in range(30):
            disk.write(rng.randrange(disk.size // 4096 - 1) * 4096, memoryview(rng.randbytes(4096)))
        disk.zero(rng.randrange(20) * MIB, 2 * MIB)
        backing = names[0] if names else None
        sink = ImageSink(tmp_path, f"p{point}.qcow2", size=disk.size, backing=backing)
        copy(disk, sink, disk.extents(dirty=point > 0), chunk=MIB)
        names.insert(0, f"p{point}.qcow2")
        if point == 2:
            (tmp_path / sums_name(names[1])).unlink()  # then that image is read
        with closing(ChainDigests(tmp_path, names[0])) as chain:
            expected = digests_of(memoryview(disk.content))
            assert chain.range(0, -(-disk.size // CLUSTER)).tobytes() == expected
            assert chain.range(3, 300).tobytes() == expected[3 * 16 : 303 * 16]


def test_a_cluster_behind_the_end_of_a_smaller_image_is_zero(tmp_path: Path) -> None:
    for name, size, backing in (("small.qcow2", MIB, None), ("large.qcow2", 2 * MIB, "small.qcow2")):
        with closing(ImageSink(tmp_path, name, size=size, backing=backing)) as sink:
            if not backing:
                sink.write(0, memoryview(b"x" * CLUSTER))
            sink.finish()
    with closing(ChainDigests(tmp_path, "large.qcow2")) as chain:
        assert chain.range(0, 1).tobytes() == digest_of(b"x" * CLUSTER)
        assert chain.range(17, 2).tobytes() == ZERO * 2


def test_pages_that_come_back_after_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_MOST_RESIDENT", 4)
    writer = DigestWriter(tmp_path / "a.sums", size=GIB)
    rng, expected = random.Random(4), {}
    for _ in range(300):
        cluster, digest = rng.randrange(GIB // CLUSTER), rng.randbytes(16)
        expected[cluster] = digest
        writer.put(cluster, digest)
    writer.finish()
    with closing(Digests(tmp_path / "a.sums")) as found:
        assert {cluster: found.of(cluster) for cluster in expected} == expected
        assert np.count_nonzero(found.range(0, GIB // CLUSTER).any(axis=1)) == len(expected)


def test_a_large_disk_takes_what_its_data_takes(tmp_path: Path) -> None:
    writer = DigestWriter(tmp_path / "a.sums", size=TIB)
    writer.put(TIB // 2 // CLUSTER, b"0123456789abcdef" * 300)
    writer.put_zeroes(0, 1000)
    writer.forget(0, 2)
    writer.forget(GIB // CLUSTER, 1000)
    writer.finish()
    assert (tmp_path / "a.sums").stat().st_size <= 4096 * 7 + TIB // (16 * MIB) * 4
    with closing(Digests(tmp_path / "a.sums")) as found:
        expected = {
            0: ABSENT,
            2: ZERO,
            999: ZERO,
            1000: ABSENT,
            TIB // 2 // CLUSTER + 299: b"0123456789abcdef",
            TIB: ABSENT,
        }
        assert {cluster: found.of(cluster) for cluster in expected} == expected


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.sums"
    writer = DigestWriter(path, size=64 * MIB)
    writer.put(0, ZERO * 100)
    assert not path.exists()
    writer.finish()
    whole = path.read_bytes()
    for at in (0, 8, 12, 16, 20, 24, 32, 40, 48, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(DigestsDamaged):
            Digests(path)
    for length in (0, 63, 4096, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DigestsDamaged):
            Digests(path)
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(UnsafeImage):
        Digests(path)
