# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that QEMU made, of every shape, read as QEMU reads them."""

from __future__ import annotations

import contextlib
import json
import random
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.copy import copy
from overkeep.blocks.ends import Extent
from overkeep.blocks.errors import ImageDamaged
from overkeep.blocks.memory import MemoryDisk
from overkeep.blocks.qcow2.image import ImageFile
from overkeep.blocks.qcow2.layout import COPIED, Header, pack_header
from overkeep.blocks.qcow2.reader import ChainReader
from overkeep.blocks.qcow2.runs import Kind
from overkeep.units import GIB, KIB, MIB, TIB
from tests.blocks.conftest import run
from tests.blocks.damage import Words
from tests.blocks.qemu_images import SHAPES, Shape, content, fill, make, make_chain


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the images lie; other files of a test lie beside it."""
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def as_qemu_reads(path: Path) -> bytes:
    """The disk, as qemu-img sees it."""
    raw = path.parent.parent / "expected.raw"
    run("qemu-img", "convert", "-t", "unsafe", "-f", "qcow2", "-O", "raw", path, raw)
    return raw.read_bytes()


def assert_reads_as_qemu(path: Path, rng: random.Random, *, cached: bool = True) -> None:
    expected = as_qemu_reads(path)
    reader = ChainReader(path.parent, path.name, cached=cached)
    try:
        assert reader.size == len(expected)
        extents = list(reader.extents(dirty=False))
        assert [extent.start for extent in extents] == [0, *(extent.end for extent in extents[:-1])]
        assert all(extent.start % CLUSTER == 0 for extent in extents)
        assert all(one.zero != other.zero for one, other in pairwise(extents))
        assert extents[-1].end == reader.size
        disk = MemoryDisk(reader.size)
        copy(reader, disk, iter(extents), chunk=MIB)
        assert disk.content == expected
        whole = bytearray(reader.size)
        reader.read_into(0, memoryview(whole))
        assert whole == expected
        for _ in range(20):
            start = rng.randrange(reader.size)
            piece = bytearray(rng.randrange(1, min(reader.size - start, 200_000) + 1))
            reader.read_into(start, memoryview(piece))
            assert piece == expected[start : start + len(piece)]
    finally:
        reader.close()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_image_of_every_shape(folder: Path, shape: Shape) -> None:
    rng = random.Random(str(shape))
    for number in range(2):
        make(folder, f"{number}.qcow2", rng, shape=shape)
        assert_reads_as_qemu(folder / f"{number}.qcow2", rng)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_compressed_by_qemu_img(folder: Path, shape: Shape) -> None:
    rng = random.Random(str(shape))
    raw = bytearray(5 * MIB + 512)
    for _ in range(6):
        start, piece = rng.randrange(4 * MIB), content(rng, rng.randrange(MIB))
        raw[start : start + len(piece)] = piece
    (folder / "raw").write_bytes(raw)
    run("qemu-img", "convert", "-c", "-O", "qcow2", "-o", shape.options, folder / "raw", folder / "a.qcow2")
    assert_reads_as_qemu(folder / "a.qcow2", rng, cached=rng.random() < 0.5)


@pytest.mark.parametrize("seed", range(24))
def test_a_chain_of_images_of_any_shapes(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    name = make_chain(folder, rng, length=rng.randrange(2, 6))
    assert_reads_as_qemu(folder / name, rng, cached=rng.random() < 0.7)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_chains(tmp_path: Path) -> None:
    for seed in range(1000, 1150):
        (folder := tmp_path / str(seed) / "disk").mkdir(parents=True)
        test_a_chain_of_images_of_any_shapes(folder, seed)


@pytest.mark.parametrize("options", ["preallocation=metadata", "preallocation=falloc", "lazy_refcounts=on"])
def test_what_else_qemu_img_can_do(folder: Path, options: str) -> None:
    rng = random.Random(options)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, folder / "a.qcow2", "9M")
    run("qemu-io", "-c", "write -q -P 7 1M 70k", "-c", "write -q -P 8 8M 1M", folder / "a.qcow2")
    assert_reads_as_qemu(folder / "a.qcow2", rng)


def assert_holds_what_qemu_maps(path: Path) -> None:
    """What a file holds itself is what qemu-img maps at depth 0."""
    image = ImageFile(path.parent, path.name)
    held = [(run.start, min(run.stop, image.size), run.kind is Kind.ZERO) for runs in image.held() for run in runs]
    unit = image.header.unit
    image.close()
    said = json.loads(run("qemu-img", "map", "--output=json", "-f", "qcow2", path))
    mine = [entry for entry in said if entry["depth"] == 0 and entry["present"]]
    expected = [(entry["start"], entry["start"] + entry["length"], not entry["data"]) for entry in mine]
    assert painted(held, unit) == painted(expected, unit)


def painted(runs: list[tuple[int, int, bool]], unit: int) -> dict[int, bool]:
    """Whether a unit is zeroes, for those that there are."""
    return {at: zero for start, stop, zero in runs for at in range(start // unit, -(-stop // unit))}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_a_file_holds_itself(folder: Path, shape: Shape) -> None:
    rng = random.Random(f"held {shape}")
    make(folder, "base.qcow2", rng, shape=shape)
    with contextlib.closing(ImageFile(folder, "base.qcow2")) as base:
        size = base.size
    below = ["-F", "qcow2", "-b", "base.qcow2"]
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", shape.options, *below, folder / "a.qcow2", str(size))
    fill(folder / "a.qcow2", rng, shape=shape, size=size)
    assert_holds_what_qemu_maps(folder / "base.qcow2")
    assert_holds_what_qemu_maps(folder / "a.qcow2")


def test_damage_is_only_where_it_is(folder: Path) -> None:
    path = folder / "a.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
    run("qemu-io", "-f", "qcow2", "-c", "write -q -P 7 0 1M", path)
    words = Words(path)
    words.put(words.l2()[5], words.get(words.l2()[5]) + 512)
    words.save()
    reader = ChainReader(folder, "a.qcow2")
    for cluster in range(16):
        buffer = bytearray(64 * KIB)
        with pytest.raises(ImageDamaged) if cluster == 5 else contextlib.nullcontext():
            reader.read_into(cluster * 64 * KIB, memoryview(buffer))
            assert buffer == b"\7" * 64 * KIB
    reader.close()


def test_an_image_that_was_not_closed_is_read(folder: Path) -> None:
    path = folder / "a.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", path, "1M")
    run("qemu-io", "-f", "qcow2", "-c", "write -q -P 7 0 100k", path)
    words = Words(path)
    words.put(72, 1)  # dirty: its refcounts may be wrong, its data are not
    words.save()
    reader = ChainReader(folder, "a.qcow2")
    buffer = bytearray(100 * KIB)
    reader.read_into(0, memoryview(buffer))
    reader.close()
    assert buffer == b"\7" * 100 * KIB


def sparse_image(folder: Path, *, size: int, data: int, step: int = 1) -> None:
    """An image of a large disk: one in `step` of its first clusters is there, and all data are a hole of the file."""
    cluster, clusters = 64 * KIB, data // (64 * KIB)
    tables = -(-size // (512 * MIB))
    l1_offset, first_table = cluster, 2 * MIB
    first_data = first_table + tables * cluster
    header = Header(
        size=size,
        cluster_bits=16,
        l1_offset=l1_offset,
        l1_entries=tables,
        refcount_offset=0,
        refcount_clusters=0,
        backing=None,
    )
    with (folder / "large.qcow2").open("wb") as file:
        file.write(pack_header(header))
        file.seek(l1_offset)
        file.write((np.arange(tables, dtype=np.uint64) * cluster + first_table | COPIED).astype(">u8").tobytes())
        entries = np.zeros(clusters * step, np.uint64)
        entries[::step] = np.arange(clusters, dtype=np.uint64) * cluster + first_data | COPIED
        file.seek(first_table)
        file.write(entries.astype(">u8").tobytes())
        file.truncate(first_data + clusters * cluster)


@pytest.mark.parametrize(("step", "extents"), [(1, 2), (64, 256_000)])
def test_extents_of_a_large_disk_take_little_memory(folder: Path, step: int, extents: int) -> None:
    sparse_image(folder, size=TIB, data=500 * GIB // step, step=step)
    tracemalloc.start()
    reader = ChainReader(folder, "large.qcow2")
    count = sum(1 for _ in reader.extents(dirty=False))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    reader.close()
    assert count == extents
    assert peak < 32 * MIB


def test_an_empty_disk_is_known_from_its_first_table(folder: Path) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", folder / "a.qcow2", "8T")
    reader = ChainReader(folder, "a.qcow2")
    assert list(reader.extents(dirty=False)) == [Extent(0, 8 * TIB, True)]
    reader.close()
