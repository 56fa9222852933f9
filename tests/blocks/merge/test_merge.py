# SPDX-License-Identifier: GPL-3.0-or-later
"""Merging real images: what stays reads as it did, little is moved, nothing is left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.compression import Compression
from overkeep.blocks.copy import WORKERS
from overkeep.blocks.digests import sums_name
from overkeep.blocks.qcow2.form import Form
from overkeep.blocks.verify import verify_image
from overkeep.units import GIB, KIB, MIB
from tests.blocks.merge.world import World, content, run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a disk."""
    path = tmp_path / "disk"
    path.mkdir()
    return path


def three_points(folder: Path) -> tuple[World, list[str]]:
    """A full image of 60 clusters and three small overlays."""
    world = World(folder, 8 * MIB + 512)
    world.write(0, 60)
    names = [world.point()]
    for number in range(3):
        world.write(10 * number, 5)
        world.zero(50 + number)
        world.write(100 + number)
        world.write(128)
        names.append(world.point())
    return world, names


@pytest.mark.parametrize("removed", ["0", "1", "2", "3", "01", "12", "012", "02", "13", "0123", "23", ""])
def test_any_points_of_a_chain_go(folder: Path, removed: str) -> None:
    world, names = three_points(folder)
    gone = [names[int(number)] for number in removed]
    stats = world.merge(*gone)
    assert sorted(stats.removed) == gone
    world.verify()
    world.verify_tidy()
    for name in world.points:
        world.verify_digests(name)


def test_the_smaller_side_is_moved(folder: Path) -> None:
    world, names = three_points(folder)
    stats = world.merge(names[0])
    assert stats.moved == 7 * CLUSTER
    assert stats.freed > 0
    world = World(folder.parent, 8 * MIB)
    world.write(0, 3)
    first = world.point()
    world.write(1, 60)
    world.point()
    assert world.merge(first).moved == CLUSTER
    world.verify()


def test_where_the_time_went_is_told(folder: Path) -> None:
    world, names = three_points(folder)
    stats = world.merge(names[1])
    assert set(stats.stages) == {"source", "digest", "tables", "target", "read_back"}
    assert all(0 < seconds < WORKERS * stats.seconds for seconds in stats.stages.values())


def test_where_the_time_went_is_told_of_one_that_writes_a_new_file(folder: Path) -> None:
    world = World(folder, 8 * MIB)
    world.write(0, 40)
    first = world.foreign_point("compat=0.10", compress=True)
    world.write(5, 10)
    world.foreign_point("compat=0.10", compress=True)
    stats = world.merge(first)
    assert set(stats.stages) == {"source", "digest", "compress", "tables", "target", "read_back"}
    world.verify()


def test_hidden_data_make_room(folder: Path) -> None:
    world = World(folder, 8 * MIB)
    world.write(0, 100)
    first = world.point()
    before = (folder / first).stat().st_size
    world.write(0, 30)
    second = world.point()
    world.merge(first)
    world.verify()
    assert (folder / second).stat().st_size <= before + 4 * CLUSTER


def test_zeroed_clusters_are_given_back(folder: Path) -> None:
    world = World(folder, 64 * MIB)
    world.write(0, 800)
    first = world.point()
    world.zero(0, 700)
    second = world.point()
    stats = world.merge(first)
    world.verify()
    assert stats.freed > 700 * CLUSTER
    assert (folder / second).stat().st_blocks * 512 < 120 * CLUSTER


def test_a_large_disk_of_several_tables(folder: Path) -> None:
    world = World(folder, 5 * GIB + 512)
    for first in (0, 8190, 16384, 70000, 81920):
        world.write(first, 4)
    names = [world.point()]
    for step in range(3):
        world.write(8191 + step, 3)
        world.zero(70001)
        world.write(40000 + 8192 * step, 2)
        names.append(world.point())
    world.merge(names[0], names[2])
    world.verify(qemu=False)
    for name in world.points:
        run("qemu-img", "check", "-q", folder / name)
    world.verify_tidy()


@pytest.mark.parametrize("sizes", [(4, 8, 8), (8, 8, 4), (4, 8, 16), (8, 4, 16), (16, 4, 8)])
@pytest.mark.parametrize("odd", [0, CLUSTER - 512])
@pytest.mark.parametrize("removed", ["0", "1", "01"])
def test_disks_that_are_resized(folder: Path, sizes: tuple[int, ...], odd: int, removed: str) -> None:
    world = World(folder, sizes[0] * MIB + odd)
    names = []
    for step, size in enumerate(sizes):
        world.resize(size * MIB + odd)
        world.write(20 * step, 10)
        world.write((size * MIB + odd) // CLUSTER - 1, 2)
        names.append(world.point())
    world.merge(*(names[int(number)] for number in removed))
    world.verify()
    world.verify_tidy()


def cut_and_grown(folder: Path, size: int, form: Form, *, kept: bool, heaviest: int) -> tuple[World, list[str]]:
    """A full disk, cut to `size` within a cluster of its image, grown again, and a change.

    `kept` tells whether the overlay of the cut disk holds the cluster in which that ends; `heaviest` is the image that
    holds most of what is shown in the end.
    """
    world = World(folder, 8 * MIB)
    world.write(0, 128)
    names = [world.point(form=form)]
    for number, after in enumerate((size, 8 * MIB), start=1):
        world.resize(after)
        world.write(8, 48 if heaviest == number else 1)
        if kept and number == 1:
            world.write(size // CLUSTER)
        names.append(world.point(form=form))
    world.write(120)
    names.append(world.point(form=form))
    return world, names


CUTS = {
    "plain": (4 * MIB + 512, Form()),
    "large": (4 * MIB + CLUSTER, Form(cluster=512 * KIB)),
    "large zstd": (4 * MIB + 3 * CLUSTER + 512, Form(cluster=512 * KIB, compression=Compression.ZSTD)),
}


@pytest.mark.parametrize("passes", ["0", "1", "01", "12", "0 1", "2 1 0"])
@pytest.mark.parametrize("heaviest", range(3))
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(("size", "form"), CUTS.values(), ids=CUTS.keys())
def test_what_was_cut_off_is_not_seen_again(
    folder: Path, size: int, form: Form, kept: bool, heaviest: int, passes: str
) -> None:
    world, names = cut_and_grown(folder, size, form, kept=kept, heaviest=heaviest)
    for removed in passes.split():
        world.merge(*(names[int(number)] for number in removed))
        world.verify()
        if kept or not size % CLUSTER:  # else the digest of the cluster that was cut is not there from the beginning
            for name in world.points:
                world.verify_digests(name)
    world.verify_tidy()


def test_a_cut_disk_is_merged_into_either_side(folder: Path) -> None:
    """The cases above are of both directions."""
    for heaviest in range(3):
        (folder / str(heaviest)).mkdir()
        world, names = cut_and_grown(folder / str(heaviest), *CUTS["plain"], kept=False, heaviest=heaviest)
        inodes = [(world.folder / name).stat().st_ino for name in names]
        world.merge(*names[:3])
        assert (world.folder / names[3]).stat().st_ino == inodes[heaviest]


def test_what_is_removed_twice_is_gone(folder: Path) -> None:
    world, names = three_points(folder)
    world.merge(names[1])
    assert world.merge(names[1]).removed == ()
    world.verify()


def test_a_merged_image_is_merged_again_and_again(folder: Path) -> None:
    world = World(folder, 16 * MIB)
    world.write(0, 200)
    world.point()
    sizes = []
    for round_ in range(12):
        world.write(7 * round_, 20)
        world.zero(3 * round_, 2)
        world.point()
        world.merge(world.chain[0])
        sizes.append((folder / world.chain[0]).stat().st_size)
    world.verify()
    world.verify_digests(world.chain[0])
    assert max(sizes) <= 240 * CLUSTER, "free clusters are used again"


@pytest.mark.parametrize(
    ("options", "compress"),
    [
        ("cluster_size=64k", False),
        ("cluster_size=64k", True),
        ("cluster_size=4k", False),
        ("cluster_size=2M", False),
        ("cluster_size=4k", True),
        ("compat=0.10", True),
        ("lazy_refcounts=on", True),
        ("refcount_bits=1", False),
        ("extended_l2=on,cluster_size=128k", False),
        ("extended_l2=on,cluster_size=128k", True),
        ("extended_l2=on,cluster_size=2M", True),
        ("extended_l2=on,cluster_size=2M,compression_type=zstd", True),
        ("compression_type=zstd", True),
    ],
)
@pytest.mark.parametrize("removed", ["0", "1", "01", "12", "012"])
def test_images_that_others_made(folder: Path, options: str, compress: bool, removed: str) -> None:
    world = World(folder, 6 * MIB + 512)
    world.write(0, 40)
    names = [world.foreign_point(options, compress=compress)]
    world.write(5, 10)
    world.zero(30, 3)
    names.append(world.point())
    world.write(20, 10)
    world.zero(8, 3)
    old = options.startswith("compat")
    names.append(world.old_overlay() if old else world.foreign_point(options, compress=compress))
    world.write(90, 7)
    names.append(world.point())
    world.merge(*(names[int(number)] for number in removed))
    world.verify()
    world.verify_tidy()


def test_compressed_clusters_stay_compressed(folder: Path) -> None:
    world = World(folder, 16 * MIB)
    world.write(0, 150)
    first = world.foreign_point(compress=True)
    world.write(100, 10)
    second = world.point()
    stored = sum((folder / name).stat().st_size for name in (first, second))
    stats = world.merge(first)
    world.verify()
    assert stats.moved == 10 * CLUSTER
    assert (folder / second).stat().st_size <= stored
    world.write(0, 130)
    third = world.foreign_point(compress=True)
    before = (folder / third).stat().st_size
    stats = world.merge(second)
    assert stats.moved < 40 * CLUSTER
    assert (folder / third).stat().st_size < before + 40 * CLUSTER
    world.verify()


FORMS = {
    "plain": Form(),
    "zlib": Form(compression=Compression.ZLIB),
    "zstd": Form(compression=Compression.ZSTD),
    "256k": Form(cluster=256 * KIB),
    "256k zstd": Form(cluster=256 * KIB, compression=Compression.ZSTD),
    "2M": Form(cluster=2 * MIB),
}


PAIRS = [
    pytest.param(below, above, marks=() if "plain" in (below, above) or below == above else pytest.mark.slow)
    for below in FORMS
    for above in FORMS
]


@pytest.mark.parametrize(("below", "above"), PAIRS)
def test_images_of_every_form(folder: Path, below: str, above: str) -> None:
    world = World(folder, 9 * MIB + 512)
    world.write(0, 60)
    names = [world.point(form=FORMS[below])]
    for step in range(3):
        world.write(17 * step, 9)
        world.write(140 + step, 2)
        world.zero(33 * step, 33)
        names.append(world.point(form=FORMS[above if step % 2 else below]))
    world.merge(names[0], names[2])
    world.verify()
    world.verify_tidy()
    for name in world.points:
        world.verify_digests(name)
        assert verify_image(folder, name).sound
    world.merge(names[1])
    world.verify()


def test_a_large_disk_of_large_clusters(folder: Path) -> None:
    form = Form(cluster=MIB)
    world = World(folder, 200 * GIB)
    for first in (0, 8190, 2097152 - 1, 3000000):
        world.write(first, 4)
    names = [world.point(form=form)]
    for step in range(2):
        world.write(8191 + step, 3)
        world.zero(2097152)
        world.write(40000 + 8192 * step, 2)
        names.append(world.point(form=form))
    world.merge(names[0])
    world.verify(qemu=False)
    for name in world.points:
        run("qemu-img", "check", "-q", folder / name)


def test_a_raw_file_below(folder: Path) -> None:
    world = World(folder, 8 * MIB)
    world.write(0, 50)
    (folder / "base.raw").write_bytes(content(world.size, world.clusters))
    names = []
    for step in range(2):
        world.write(5 + step, 10)
        names.append(world.foreign_point())
        backing = ["-F", "raw", "-b", "base.raw"] if not step else ["-F", "qcow2", "-b", names[0]]
        run("qemu-img", "rebase", *backing, folder / names[-1])
    world.merge(names[0])
    world.verify()


def test_a_missing_or_damaged_file_of_digests_is_made_anew(folder: Path) -> None:
    world, names = three_points(folder)
    (folder / sums_name(names[0])).unlink()
    damaged = folder / sums_name(names[2])
    damaged.write_bytes(damaged.read_bytes()[:-1])
    world.merge(names[0], names[1], names[2])
    world.verify_digests(names[3])


def test_names_stay_bare_and_the_chain_moves(folder: Path) -> None:
    world, names = three_points(folder)
    world.merge(names[1])
    found = json.loads(run("qemu-img", "info", "--output=json", folder / names[2]))
    assert found["backing-filename"] == names[0]
    assert found["backing-filename-format"] == "qcow2"
    moved = folder.rename(folder.parent / "elsewhere")
    world.folder = moved
    world.verify()
