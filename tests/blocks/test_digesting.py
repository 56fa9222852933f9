# SPDX-License-Identifier: GPL-3.0-or-later
"""Digests made anew from images of every kind, against those that were made while the disk was copied."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.digesting import make_digests
from overkeep.blocks.digests import ABSENT, Digests
from overkeep.blocks.errors import ImageDamaged
from overkeep.blocks.expected import ChainDigests
from overkeep.blocks.hashing import ZERO
from overkeep.blocks.memory import MemoryDisk
from overkeep.errors import Cancelled
from overkeep.model.points import Changes
from overkeep.units import KIB, MIB
from tests.mover.shelf import FORMS, Shelf, resized, scribble


def entries(path: Path) -> list[bytes]:
    with closing(Digests(path)) as digests:
        return [digests.of(cluster) for cluster in range(digests.clusters)]


@pytest.mark.parametrize("form", FORMS)
def test_they_are_those_of_the_copy(tmp_path: Path, form: str) -> None:
    rng, disk = random.Random(1), MemoryDisk(20 * MIB + 3 * 512)
    shelf = Shelf(tmp_path, form=FORMS[form])
    for changes in (Changes.ALL, Changes.TRACKED, Changes.COMPARED):
        disk.mark()
        scribble(disk, rng, 8)
        disk.zero(10 * MIB, 2 * MIB)
        shelf.back_up(disk, changes)
    for number in (1, 2, 3):
        path = tmp_path / f"p{number}.sums"
        before = entries(path)
        path.unlink()
        stats = make_digests(tmp_path, f"p{number}.qcow2")
        after = entries(path)
        assert stats.moved <= stats.covered
        if number == 1:  # of a full image zeroes have a digest or none, which means the same
            before, after = ([ABSENT if entry == ZERO else entry for entry in found] for found in (before, after))
        assert after == before
    shelf.check(disk)


def test_an_image_made_by_qemu(tmp_path: Path, qemu: Callable[..., str]) -> None:
    base, over = tmp_path / "base.qcow2", tmp_path / "over.qcow2"
    options = ("-f", "qcow2", "-o", "cluster_size=4k")
    qemu("qemu-img", "create", "-q", *options, base, str(3 * MIB))
    qemu("qemu-io", "-c", "write -P 1 0 1M", "-c", "write -z 256k 64k", base)
    qemu("qemu-img", "create", "-q", *options, "-b", base.name, "-F", "qcow2", over, str(3 * MIB + 512))
    qemu("qemu-io", "-c", "write -P 2 4k 4k", "-c", "write -z 640k 64k", "-c", "write -z 768k 4k", over)
    raw = tmp_path / "raw"
    for image in (base, over):
        make_digests(tmp_path, image.name)
        qemu("qemu-img", "convert", "-O", "raw", image, raw)
        with closing(ChainDigests(tmp_path, image.name)) as digests:
            made = digests.range(0, -(-raw.stat().st_size // CLUSTER)).tobytes()
            assert made == digests.hashing.of(memoryview(raw.read_bytes()))
    held = [number for number, entry in enumerate(entries(tmp_path / "over.sums")) if entry != ABSENT]
    assert held == [0, 10, 12]
    assert entries(tmp_path / "over.sums")[10] == ZERO


def test_a_damaged_image_keeps_the_digests_that_it_has(tmp_path: Path) -> None:
    shelf, disk = Shelf(tmp_path), MemoryDisk(MIB)
    scribble(disk, random.Random(2), 5)
    shelf.back_up(disk, Changes.ALL)
    sums, path = tmp_path / "p1.sums", tmp_path / "p1.qcow2"
    before = sums.read_bytes()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 200 * KIB)
    with pytest.raises(ImageDamaged):
        make_digests(tmp_path, "p1.qcow2")
    assert sums.read_bytes() == before


def test_it_can_be_cancelled(tmp_path: Path) -> None:
    shelf, disk = Shelf(tmp_path), MemoryDisk(MIB)
    scribble(disk, random.Random(2), 5)
    shelf.back_up(disk, Changes.ALL)
    (tmp_path / "p1.sums").unlink()
    with pytest.raises(Cancelled):
        make_digests(tmp_path, "p1.qcow2", cancelled=lambda: True)
    assert [path.name for path in tmp_path.iterdir()] == ["p1.qcow2"]


def test_an_overlay_that_was_cut_off(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    disk = MemoryDisk(2 * MIB)
    scribble(disk, random.Random(2), 9)
    shelf.back_up(disk, Changes.ALL)
    for size in (MIB + 1024, 3 * MIB):
        disk = resized(disk, size)
        disk.mark()
        shelf.back_up(disk, Changes.TRACKED)
    for number in (1, 2, 3):
        make_digests(tmp_path, f"p{number}.qcow2")
    shelf.check(disk)
