# SPDX-License-Identifier: GPL-3.0-or-later
"""The chain reader: what QEMU made is read rightly, what an attacker made is refused."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.copy import copy
from overkeep.blocks.errors import ImageDamaged, ImageTooLarge, ImageUnsupported, TargetMissing, UnsafeImage
from overkeep.blocks.memory import MemoryDisk
from overkeep.blocks.qcow2.layout import Header, pack_header
from overkeep.blocks.qcow2.parsing import parse_header
from overkeep.blocks.qcow2.reader import ChainReader
from overkeep.blocks.qcow2.writer import ImageWriter
from overkeep.model.points import LONGEST_CHAIN
from overkeep.units import KIB, MIB, TIB

Qemu = Callable[..., str]


def content(folder: Path, name: str) -> bytes:
    """The whole disk, by the copy loop."""
    reader = ChainReader(folder, name)
    try:
        disk = MemoryDisk(reader.size)
        copy(reader, disk, reader.extents(dirty=False), workers=3, chunk=MIB)
    finally:
        reader.close()
    return bytes(disk.content)


def test_a_chain_reads_as_each_point_did_also_after_a_move(tmp_path: Path, qemu: Qemu) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    rng = random.Random(7)
    disk = MemoryDisk(20 * MIB)
    backing = None
    for point in range(4):
        if point == 2:
            disk.content.extend(bytes(8 * MIB + 512))
        disk.mark()
        for _ in range(20):
            disk.write(
                rng.randrange(disk.size // 4096 - 9) * 4096, memoryview(rng.randbytes(rng.choice([4096, 36864])))
            )
        disk.zero(rng.randrange(10) * MIB, MIB)
        name = f"p{point}.qcow2"
        writer = ImageWriter(folder, name, size=disk.size, backing=backing)
        copy(disk, writer, disk.extents(dirty=backing is not None), chunk=MIB)
        backing = name
        (tmp_path / f"p{point}.raw").write_bytes(disk.content)
    moved = tmp_path / "elsewhere" / "copy"
    shutil.copytree(folder, moved)
    shutil.rmtree(folder)
    for point in range(4):
        image, expected = moved / f"p{point}.qcow2", tmp_path / f"p{point}.raw"
        qemu("qemu-img", "check", "-q", image)
        qemu("qemu-img", "compare", "-f", "qcow2", "-F", "raw", image, expected)
        assert content(moved, image.name) == expected.read_bytes()
    reader = ChainReader(moved, "p3.qcow2")
    assert reader.names == ("p3.qcow2", "p2.qcow2", "p1.qcow2", "p0.qcow2")
    reader.close()


@pytest.mark.parametrize(
    "options", ["cluster_size=64k", "cluster_size=4k", "cluster_size=2M", "compat=0.10", "lazy_refcounts=on"]
)
@pytest.mark.parametrize("compress", [False, True])
def test_images_of_qemu_are_read(tmp_path: Path, qemu: Qemu, options: str, compress: bool) -> None:
    raw = bytearray(7 * MIB + 512)
    raw[MIB : 3 * MIB] = os.urandom(MIB) + b"compressible" * (MIB // 12) + bytes(4)
    raw[-512:] = os.urandom(512)
    (tmp_path / "raw").write_bytes(raw)
    flags = ["-c"] if compress else []
    qemu("qemu-img", "convert", *flags, "-O", "qcow2", "-o", options, tmp_path / "raw", tmp_path / "a.qcow2")
    assert content(tmp_path, "a.qcow2") == raw
    reader = ChainReader(tmp_path, "a.qcow2")
    piece = bytearray(5000)
    reader.read_into(2 * MIB + 77, memoryview(piece))
    reader.close()
    assert piece == raw[2 * MIB + 77 : 2 * MIB + 5077]


def test_our_overlay_over_an_image_of_other_clusters(tmp_path: Path, qemu: Qemu) -> None:
    raw = bytearray(os.urandom(2 * MIB))
    (tmp_path / "raw").write_bytes(raw)
    qemu("qemu-img", "convert", "-O", "qcow2", "-o", "cluster_size=4k", tmp_path / "raw", tmp_path / "a.qcow2")
    writer = ImageWriter(tmp_path, "b.qcow2", size=3 * MIB, backing="a.qcow2")
    writer.zero(CLUSTER, CLUSTER)
    writer.finish()
    raw[CLUSTER : 2 * CLUSTER] = bytes(CLUSTER)
    assert content(tmp_path, "b.qcow2") == raw + bytes(MIB)


def test_an_external_data_file_is_not_read(tmp_path: Path, qemu: Qemu) -> None:
    options = f"data_file={tmp_path / 'a.data'}"
    qemu("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, tmp_path / "a.qcow2", "1M")
    with pytest.raises(ImageUnsupported, match="external data file"):
        ChainReader(tmp_path, "a.qcow2")


@pytest.mark.parametrize(("bit", "feature"), [(5, "feature 5"), (63, "feature 63")])
def test_unknown_features_are_named(tmp_path: Path, bit: int, feature: str) -> None:
    path = image(tmp_path, "a.qcow2")
    raw = bytearray(path.read_bytes())
    struct.pack_into(">Q", raw, 72, 1 << bit)
    path.write_bytes(raw)
    with pytest.raises(ImageUnsupported, match=feature):
        ChainReader(tmp_path, "a.qcow2")


def open_files() -> int:
    """How many files this process has open; what other tests have left to the garbage collector is not among them."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def image(folder: Path, name: str, *, backing: str | None = None, **changes: int) -> Path:
    """An image with one cluster of data, its header changed as an attacker may."""
    writer = ImageWriter(folder, name, size=MIB)
    writer.write(0, memoryview(os.urandom(CLUSTER)))
    writer.finish()
    path = folder / name
    raw = bytearray(path.read_bytes())
    fields = {
        "l1_entries": (36, ">I"),
        "l1_offset": (40, ">Q"),
        "size": (24, ">Q"),
        "bits": (20, ">I"),
        "crypt": (32, ">I"),
    }
    for field, value in changes.items():
        at, form = fields[field]
        struct.pack_into(form, raw, at, value)
    if backing is not None:
        at = 1024
        raw[at : at + len(backing)] = backing.encode()
        struct.pack_into(">QI", raw, 8, at, len(backing))
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    "backing",
    [
        "/etc/shadow",
        "../b.qcow2",
        "nbd://host/x",
        "nbd:unix:/x",
        'json:{"driver":"file"}',
        "a/b",
        ".",
        "..",
        "-f",
        "a\tb",
        "fat:x",
    ],
)
def test_backing_names_that_lead_elsewhere_are_refused(tmp_path: Path, backing: str) -> None:
    image(tmp_path, "a.qcow2", backing=backing)
    with pytest.raises(UnsafeImage):
        ChainReader(tmp_path, "a.qcow2")


def test_a_backing_file_is_never_probed(tmp_path: Path, qemu: Qemu) -> None:
    image(tmp_path, "b.qcow2")
    qemu("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "b.qcow2", tmp_path / "a.qcow2", "1M")
    assert content(tmp_path, "a.qcow2")[:4] == b"QFI\xfb"  # said to be raw, so that its bytes are the disk's
    image(tmp_path, "c.qcow2", backing="b.raw")
    (tmp_path / "b.raw").write_bytes(bytes(MIB))
    with pytest.raises(ImageDamaged, match=r"b\.raw"):
        ChainReader(tmp_path, "c.qcow2")


def test_a_backing_file_of_another_format_is_named(tmp_path: Path, qemu: Qemu) -> None:
    qemu("qemu-img", "create", "-q", "-f", "vmdk", tmp_path / "b.vmdk", "1M")
    qemu("qemu-img", "create", "-q", "-f", "qcow2", "-F", "vmdk", "-b", "b.vmdk", tmp_path / "a.qcow2", "1M")
    with pytest.raises(ImageUnsupported, match="vmdk"):
        ChainReader(tmp_path, "a.qcow2")


def test_links_pipes_and_loops_are_refused(tmp_path: Path) -> None:
    image(tmp_path, "real.qcow2")
    (tmp_path / "link.qcow2").symlink_to("real.qcow2")
    os.mkfifo(tmp_path / "pipe.qcow2")
    image(tmp_path, "x.qcow2", backing="y.qcow2")
    image(tmp_path, "y.qcow2", backing="x.qcow2")
    image(tmp_path, "self.qcow2", backing="self.qcow2")
    for name in ("link", "pipe", "x", "self"):
        with pytest.raises(UnsafeImage):
            ChainReader(tmp_path, f"{name}.qcow2")


def test_a_chain_without_end_and_one_with_a_gap(tmp_path: Path) -> None:
    image(tmp_path, "0.qcow2", backing="gone.qcow2")
    with pytest.raises(TargetMissing):
        ChainReader(tmp_path, "0.qcow2")
    before = open_files()
    for number in range(LONGEST_CHAIN + 1):
        writer = ImageWriter(tmp_path, f"{number}.qcow2", size=MIB, backing=f"{number + 1}.qcow2")
        writer.finish()
    with pytest.raises(ImageDamaged, match="longer"):
        ChainReader(tmp_path, "0.qcow2")
    assert open_files() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"l1_entries": 0},
        {"l1_entries": 2**32 - 1},
        {"l1_offset": 0},
        {"l1_offset": 1 << 40},
        {"l1_offset": 513},
        {"l1_offset": 2**63},
        {"size": 2**64 - 1},
        {"size": 2000 * TIB},
        {"size": TIB},
        {"bits": 8},
        {"bits": 22},
        {"bits": 2**32 - 1},
    ],
)
def test_headers_that_lie_are_refused(tmp_path: Path, changes: dict[str, int]) -> None:
    image(tmp_path, "a.qcow2", **changes)
    with pytest.raises((ImageDamaged, ImageTooLarge)):
        ChainReader(tmp_path, "a.qcow2")


def test_encryption_is_refused(tmp_path: Path) -> None:
    image(tmp_path, "a.qcow2", crypt=2)
    with pytest.raises(ImageUnsupported):
        ChainReader(tmp_path, "a.qcow2")


def test_a_truncated_image_is_damaged_and_not_read_as_zeroes(tmp_path: Path) -> None:
    writer = ImageWriter(tmp_path, "a.qcow2", size=MIB)
    writer.write(0, memoryview(os.urandom(MIB)))
    writer.finish()
    whole = (tmp_path / "a.qcow2").read_bytes()
    for length in (0, 3, 100, 104, CLUSTER, 5 * CLUSTER, len(whole) - 1):
        (tmp_path / "a.qcow2").write_bytes(whole[:length])
        with pytest.raises(ImageDamaged):
            content(tmp_path, "a.qcow2")


def test_entries_that_point_outside_are_damage(tmp_path: Path) -> None:
    path = image(tmp_path, "a.qcow2")
    raw = bytearray(path.read_bytes())
    table = 2 * CLUSTER  # header, data, L2 table
    for entry in (1 << 50, len(raw), 7 << 9, (1 << 62) | (1 << 40), (1 << 62) | CLUSTER):
        struct.pack_into(">Q", raw, table, entry)
        path.write_bytes(raw)
        with pytest.raises(ImageDamaged):
            content(tmp_path, "a.qcow2")


def test_the_last_clone_closes_the_files(tmp_path: Path) -> None:
    image(tmp_path, "a.qcow2")
    before = open_files()
    reader = ChainReader(tmp_path, "a.qcow2")
    twin = reader.clone()
    reader.close()
    reader.close()
    buffer = bytearray(KIB)
    twin.read_into(0, memoryview(buffer))
    assert any(buffer)
    twin.close()
    assert open_files() == before


@given(st.binary(max_size=200), st.integers(0, 120))
def test_a_header_of_noise_never_breaks_the_parser(noise: bytes, at: int) -> None:
    header = Header(
        size=MIB,
        cluster_bits=16,
        l1_offset=CLUSTER,
        l1_entries=1,
        refcount_offset=2 * CLUSTER,
        refcount_clusters=1,
        backing="b.qcow2",
    )
    raw = bytearray(pack_header(header))
    raw[at : at + len(noise)] = noise
    with contextlib.suppress(ImageDamaged, ImageUnsupported, UnsafeImage):
        parse_header(bytes(raw[:CLUSTER]), 4 * CLUSTER, file="a.qcow2")


def test_a_header_reads_as_it_was_packed() -> None:
    header = Header(
        size=TIB,
        cluster_bits=16,
        l1_offset=CLUSTER,
        l1_entries=2048,
        refcount_offset=3 * CLUSTER,
        refcount_clusters=1,
        backing="20261122T220000Z-abc.qcow2",
    )
    assert parse_header(pack_header(header), 10 * CLUSTER, file="a.qcow2") == header
