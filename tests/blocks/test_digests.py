# SPDX-License-Identifier: GPL-3.0-or-later
"""Digests: what they are made of, and that a chain of them says what the disk says."""

from __future__ import annotations

import random
import struct
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from overkeep.blocks import digests
from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.copy import copy
from overkeep.blocks.digests import ABSENT, Digests, DigestWriter
from overkeep.blocks.errors import DigestsDamaged, UnsafeImage
from overkeep.blocks.expected import ChainDigests, hashing_of
from overkeep.blocks.hashing import ZERO, Blake3, Gmac, Hashing, fresh
from overkeep.blocks.image import ImageSink, sums_name
from overkeep.blocks.memory import MemoryDisk
from overkeep.blocks.qcow2.writer import ImageWriter
from overkeep.units import GIB, MIB, TIB


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
            expected = chain.hashing.of(memoryview(disk.content))
            assert chain.range(0, -(-disk.size // CLUSTER)).tobytes() == expected
            assert chain.range(3, 300).tobytes() == expected[3 * 16 : 303 * 16]


def test_a_cluster_behind_the_end_of_a_smaller_image_is_zero(tmp_path: Path) -> None:
    for name, size, backing in (("small.qcow2", MIB, None), ("large.qcow2", 2 * MIB, "small.qcow2")):
        with closing(ImageSink(tmp_path, name, size=size, backing=backing)) as sink:
            if not backing:
                sink.write(0, memoryview(b"x" * CLUSTER))
            sink.finish()
    with closing(ChainDigests(tmp_path, "large.qcow2")) as chain:
        assert chain.range(0, 1).tobytes() == chain.hashing.of(memoryview(b"x" * CLUSTER))
        assert chain.range(17, 2).tobytes() == ZERO * 2


KINDS = (Blake3(), Gmac(bytes(range(16))))


def test_an_overlay_has_digests_of_the_kind_of_its_chain(tmp_path: Path) -> None:
    """Chains of earlier releases are of BLAKE3: what is added to one is, too, or it would be read to be compared."""
    made = Blake3()
    with closing(DigestWriter(tmp_path / "old.sums", size=MIB, hashing=made)) as writer:
        writer.put(0, made.of(memoryview(b"x" * MIB)))
        writer.finish()
    with closing(ImageWriter(tmp_path, "old.qcow2", size=MIB)) as image:
        image.write(0, memoryview(b"x" * MIB))
        image.finish()
    back_up(tmp_path, "new.qcow2", backing="old.qcow2")
    assert hashing_of(tmp_path, "new.qcow2") == made
    back_up(tmp_path, "apart.qcow2", backing=None)
    assert hashing_of(tmp_path, "apart.qcow2") != made


def test_each_chain_has_a_key_of_its_own(tmp_path: Path) -> None:
    for name, backing in (("a.qcow2", None), ("b.qcow2", None), ("a2.qcow2", "a.qcow2")):
        back_up(tmp_path, name, backing=backing)
    a, b, over = (hashing_of(tmp_path, name) for name in ("a.qcow2", "b.qcow2", "a2.qcow2"))
    assert a == over != b


def test_digests_that_another_key_made_are_not_compared(tmp_path: Path) -> None:
    """Somebody mixed files up, or lost some and made them anew: then the data below are read."""
    back_up(tmp_path, "full.qcow2", backing=None, byte=b"f")
    (tmp_path / "full.sums").rename(tmp_path / "elsewhere")
    back_up(tmp_path, "over.qcow2", backing="full.qcow2", byte=b"o")
    (tmp_path / "elsewhere").rename(tmp_path / "full.sums")
    assert hashing_of(tmp_path, "full.qcow2") != hashing_of(tmp_path, "over.qcow2")
    with closing(ChainDigests(tmp_path, "over.qcow2")) as chain:
        content = memoryview(b"o" * CLUSTER + b"f" * (MIB - CLUSTER))
        assert chain.range(0, MIB // CLUSTER).tobytes() == chain.hashing.of(content)


def back_up(folder: Path, name: str, *, backing: str | None, byte: bytes = b"x") -> None:
    """A full image of 1 MiB, or an overlay of one cluster."""
    with closing(ImageSink(folder, name, size=MIB, backing=backing)) as sink:
        sink.write(0, memoryview(byte * (CLUSTER if backing else MIB)))
        sink.finish()


def test_pages_that_come_back_after_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_MOST_RESIDENT", 4)
    writer = DigestWriter(tmp_path / "a.sums", size=GIB, hashing=fresh())
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
    writer = DigestWriter(tmp_path / "a.sums", size=TIB, hashing=fresh())
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


@pytest.mark.parametrize("hashing", KINDS, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("size", [0, 1, 16 * MIB, 16 * MIB + 512])
def test_digests_of_disks_of_odd_sizes(tmp_path: Path, hashing: Hashing, size: int) -> None:
    path = tmp_path / "a.sums"
    DigestWriter(path, size=size, hashing=hashing).finish()
    with closing(Digests(path)) as found:
        assert (found.size, found.clusters, found.hashing) == (size, -(-size // CLUSTER), hashing)
        assert found.of(0) == ABSENT
        assert found.next_held(0) == found.clusters
    header = struct.unpack_from("<QQ", path.read_bytes(), 32)
    assert path.stat().st_size == header[0] + 4 * header[1], "as the format says, also without an index"


def test_digests_of_no_bytes_as_earlier_releases_wrote_them(tmp_path: Path) -> None:
    path = tmp_path / "a.sums"
    DigestWriter(path, size=0, hashing=KINDS[1]).finish()
    path.write_bytes(path.read_bytes()[: 64 + KINDS[1].key_size])
    with closing(Digests(path)) as found:
        assert (found.size, found.hashing) == (0, KINDS[1])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DigestsDamaged):
        Digests(path)


@pytest.mark.parametrize("hashing", KINDS, ids=lambda each: type(each).__name__)
def test_damaged_files_are_refused(tmp_path: Path, hashing: Hashing) -> None:
    path = tmp_path / "a.sums"
    writer = DigestWriter(path, size=64 * MIB, hashing=hashing)
    writer.put(0, ZERO * 100)
    assert not path.exists()
    writer.finish()
    whole = path.read_bytes()
    for at in (0, 8, 12, 16, 20, 24, 32, 40, 48, *range(64, 64 + len(hashing.key)), len(whole) - 1):
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
