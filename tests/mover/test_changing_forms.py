# SPDX-License-Identifier: GPL-3.0-or-later
"""Chains whose images differ in clusters and compression, as when a policy is changed: qemu-img compares all points."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.compression import Compression
from overkeep.blocks.memory import MemoryDisk
from overkeep.blocks.qcow2.form import Form
from overkeep.blocks.verify import verify_image
from overkeep.model.points import Changes
from overkeep.mover.copy_terms import Options
from overkeep.mover.disk_copies import differing, restore
from overkeep.units import KIB, MIB
from tests.mover.bench import tool
from tests.mover.shelf import FORMS, Shelf, resized, scribble

SIZE = 8 * MIB + 5 * CLUSTER + 512  # ends within a cluster of any size

CHAINS = {
    "larger and larger": [Form(), Form(cluster=128 * KIB), Form(cluster=512 * KIB), Form(cluster=2 * MIB)],
    "smaller and smaller": [Form(cluster=2 * MIB), Form(cluster=512 * KIB), Form(cluster=128 * KIB), Form()],
    "to and fro": [Form(), Form(cluster=2 * MIB), Form(), Form(cluster=MIB), Form(cluster=256 * KIB)],
    "zstd comes": [Form(), FORMS["zstd"], FORMS["large zstd"], Form(cluster=MIB)],
    "zstd goes": [FORMS["large zstd"], FORMS["zstd"], Form(), Form(cluster=2 * MIB)],
    "zstd all the way": [FORMS["zstd"]] * 4,
    "large zstd all the way": [Form(cluster=2 * MIB, compression=Compression.ZSTD)] * 4,
}
WAYS = {
    "tracked": [Changes.TRACKED],
    "compared": [Changes.COMPARED],
    "in turn": [Changes.COMPARED, Changes.TRACKED],
}


def made(shelf: Shelf, forms: list[Form], ways: list[Changes], *, sizes: list[int]) -> dict[str, bytes]:
    """Make a point of each form, the first in full; return what each must hold."""
    rng = random.Random(len(forms) * len(ways))
    disk = MemoryDisk(sizes[0])
    scribble(disk, rng, 20)
    held: dict[str, bytes] = {}
    changes = itertools.chain([Changes.ALL], itertools.cycle(ways))
    for form, how, size in zip(forms, changes, itertools.cycle(sizes), strict=False):
        disk = resized(disk, size)
        disk.mark()
        scribble(disk, rng, 6 if held else 0)
        shelf.back_up(disk, how, form=form, read_back=1.0)
        held[shelf.newest] = bytes(disk.content)
    return held


def check(shelf: Shelf, held: dict[str, bytes]) -> None:
    for name, content in held.items():
        shelf.check_point(name, content)
        assert verify_image(shelf.folder, name).sound, name


@pytest.mark.parametrize("ways", WAYS)
@pytest.mark.parametrize("chain", CHAINS)
def test_every_point_reads_as_it_was(tmp_path: Path, chain: str, ways: str) -> None:
    shelf, forms = Shelf(tmp_path), CHAINS[chain]
    held = made(shelf, forms, WAYS[ways], sizes=[SIZE])
    infos = json.loads(tool("qemu-img", "info", "--backing-chain", "--output=json", tmp_path / shelf.newest))
    assert [info["cluster-size"] for info in infos] == [form.cluster for form in reversed(forms)]
    kinds = ["zstd" if form.compression else "zlib" for form in reversed(forms)]
    assert [info["format-specific"]["data"]["compression-type"] for info in infos] == kinds
    check(shelf, held)


@pytest.mark.parametrize("removed", ["1", "2", "3", "1 2", "2 3", "1 2 3", "3 then 1", "1 then 2 then 3"])
@pytest.mark.parametrize("chain", CHAINS)
def test_every_point_that_stays_reads_as_before_a_merge(tmp_path: Path, chain: str, removed: str) -> None:
    shelf = Shelf(tmp_path)
    held = made(shelf, CHAINS[chain], WAYS["in turn"], sizes=[SIZE])
    for run in removed.split(" then "):
        names = [f"p{number}.qcow2" for number in run.split()]
        result = shelf.merge(*names)
        assert sorted(result.removed) == names
        held = {name: content for name, content in held.items() if name not in names}
        check(shelf, held)


@pytest.mark.parametrize("ways", WAYS)
@pytest.mark.parametrize("sizes", [[SIZE, SIZE + 3 * MIB], [SIZE, 3 * MIB + 512], [5 * MIB, SIZE, 2 * MIB - 512]])
@pytest.mark.parametrize("chain", ["larger and larger", "to and fro", "zstd goes"])
def test_disks_that_grow_and_shrink_meanwhile(tmp_path: Path, chain: str, sizes: list[int], ways: str) -> None:
    shelf = Shelf(tmp_path)
    held = made(shelf, CHAINS[chain], WAYS[ways], sizes=sizes)
    check(shelf, held)
    shelf.merge("p2.qcow2")
    del held["p2.qcow2"]
    check(shelf, held)


def test_a_differential_restore_of_such_a_chain_writes_what_differs(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    held = made(shelf, CHAINS["to and fro"], WAYS["in turn"], sizes=[SIZE])
    disk = MemoryDisk(SIZE)
    disk.content[:] = held[shelf.newest]
    disk.content[3 * MIB + 7] ^= 1
    only = differing(shelf.place, disk, options=Options(), watch=shelf.watch)
    result = restore(shelf.place, disk, only=only, options=Options(), watch=shelf.watch)
    assert bytes(disk.content) == held[shelf.newest]
    assert result.covered == CLUSTER
