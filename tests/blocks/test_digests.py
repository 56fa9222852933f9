# SPDX-License-Identifier: GPL-3.0-or-later
"""Digests: what they are made of, and that a chain of them says what the disk says."""

from __future__ import annotations

import os
import random
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from blake3 import blake3

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.copy import copy
from overkeep.blocks.digests import ABSENT, ZERO, Digests, DigestWriter, composed, digest_of, digests_of
from overkeep.blocks.errors import DigestsDamaged, UnsafeImage
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
        with ExitStack() as stack:
            chain = [stack.enter_context(closing(Digests(tmp_path / sums_name(name)))) for name in names]
            view = memoryview(bytes(disk.content))
            for cluster in range(-(-disk.size // CLUSTER)):
                found = composed(chain, cluster)
                assert found == digest_of(view[cluster * CLUSTER : (cluster + 1) * CLUSTER])


def test_a_cluster_behind_the_end_of_a_smaller_image_is_zero(tmp_path: Path) -> None:
    for name, size in (("small", MIB), ("large", 2 * MIB)):
        writer = DigestWriter(tmp_path / name, size=size)
        writer.put(0, b"x" * 16) if name == "small" else None
        writer.finish()
    with closing(Digests(tmp_path / "small")) as small, closing(Digests(tmp_path / "large")) as large:
        assert composed([large, small], 0) == b"x" * 16
        assert composed([large, small], 17) == ZERO


def test_a_large_disk_takes_what_its_data_takes(tmp_path: Path) -> None:
    writer = DigestWriter(tmp_path / "a.sums", size=TIB)
    writer.put(TIB // 2 // CLUSTER, b"0123456789abcdef" * 300)
    writer.put_zeroes(0, 1000)
    writer.forget(0, 2)
    writer.forget(GIB // CLUSTER, 1000)
    writer.finish()
    assert (tmp_path / "a.sums").stat().st_size <= 4096 * 7 + TIB // (16 * MIB) * 4
    with closing(Digests(tmp_path / "a.sums")) as digests:
        expected = {
            0: ABSENT,
            2: ZERO,
            999: ZERO,
            1000: ABSENT,
            TIB // 2 // CLUSTER + 299: b"0123456789abcdef",
            TIB: ABSENT,
        }
        assert {cluster: digests.of(cluster) for cluster in expected} == expected


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
