# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that QEMU made, of every shape, read as QEMU reads them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from overkeep.blocks.copy import copy
from overkeep.blocks.memory import MemoryDisk
from overkeep.blocks.qcow2.reader import ChainReader
from overkeep.units import MIB
from tests.blocks.conftest import run
from tests.blocks.qemu_images import SHAPES, Shape, content, make, make_chain


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the images lie; other files of a test lie beside it."""
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def as_qemu_reads(path: Path) -> bytes:
    """The disk, as qemu-img sees it."""
    raw = path.parent.parent / "expected.raw"
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw)
    return raw.read_bytes()


def assert_reads_as_qemu(path: Path, rng: random.Random, *, cached: bool = True) -> None:
    expected = as_qemu_reads(path)
    reader = ChainReader(path.parent, path.name, cached=cached)
    try:
        assert reader.size == len(expected)
        disk = MemoryDisk(reader.size)
        copy(reader, disk, reader.extents(dirty=False), chunk=MIB)
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
@pytest.mark.timeout(900)
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
