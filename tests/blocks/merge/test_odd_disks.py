# SPDX-License-Identifier: GPL-3.0-or-later
"""Merges of disks of 0 bytes, and of images whose names others gave."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.digests import sums_name
from overkeep.blocks.errors import UnsafeImage
from overkeep.blocks.image import ImageSink
from overkeep.blocks.merge.acts import merge_away
from overkeep.blocks.merge.folder import backings
from overkeep.blocks.merge.intent import Intent, Phase
from overkeep.blocks.merge.making import Watch
from overkeep.blocks.merge.plan import Run
from overkeep.blocks.verify import verify_image
from overkeep.repository.errors import DocumentDamaged
from overkeep.repository.merging import MergeJournal
from overkeep.units import MIB
from tests.blocks.merge.world import World, run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a disk."""
    path = tmp_path / "disk"
    path.mkdir()
    return path


@pytest.mark.parametrize("removed", ["0", "1", "01", "2", "012"])
@pytest.mark.parametrize("foreign", [False, True])
def test_disks_of_no_bytes(folder: Path, foreign: bool, removed: str) -> None:
    world = World(folder, 0)
    names = [world.foreign_point() if foreign else world.point() for _ in range(3)]
    gone = [names[int(number)] for number in removed]
    assert sorted(world.merge(*gone).removed) == gone
    world.verify()
    world.verify_tidy()
    for name in world.points:
        if not foreign:
            assert verify_image(folder, name).sound


@pytest.mark.parametrize("sizes", [(0, 4, 4), (4, 0, 4), (4, 4, 0), (0, 0, 4), (0, 4, 0), (4, 0, 0)])
@pytest.mark.parametrize("removed", ["0", "1", "01", "0 1", "1 0"])
def test_disks_that_had_or_have_no_bytes(folder: Path, sizes: tuple[int, ...], removed: str) -> None:
    world = World(folder, sizes[0] * MIB)
    names = []
    for step, size in enumerate(sizes):
        world.resize(size * MIB)
        world.write(10 * step, 10)
        names.append(world.point())
    for each in removed.split():
        world.merge(*(names[int(number)] for number in each))
        world.verify()
        for name in world.points:
            world.verify_digests(name)
    world.verify_tidy()


def test_a_merge_of_no_bytes_that_an_earlier_release_could_not_end_ends(folder: Path) -> None:
    world = World(folder, 0)
    names = [world.point(), world.point()]
    size = (folder / names[1]).stat().st_size
    MergeJournal(folder).begin(
        Intent(
            run=Run(images=tuple(names), base=None),
            carrier=names[1],
            carrier_size=size,
            to_move=0,
            phase=Phase.COPYING,
        )
    )
    world.merge(names[0])
    world.verify()
    world.verify_tidy()


ODD = ("my disk_1+a.qcow2", "zwölf (2) & 'more'.qcow2", "%s;$(x)~@#.qcow2", "_under.qcow2", "日本.qcow2")


def odd_chain(folder: Path) -> None:
    """A chain of images, each of 10 clusters, with names that others gave."""
    backing = None
    for step, name in enumerate(ODD):
        with closing(ImageSink(folder, name, size=MIB, backing=backing)) as sink:
            sink.write(step * CLUSTER, memoryview(bytes([step + 1]) * 10 * CLUSTER)[: min(10, 16 - step) * CLUSTER])
            sink.finish()
        backing = name


def test_names_that_others_gave(folder: Path) -> None:
    odd_chain(folder)
    raw = folder.parent / "expected.raw"
    run("qemu-img", "convert", "-O", "raw", folder / ODD[-1], raw)
    for removed in ([ODD[2]], [ODD[0], ODD[1]], [ODD[3]]):
        merge_away(folder, removed, journal=MergeJournal(folder), watch=Watch())
        run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", folder / ODD[-1], raw)
    assert {path.name for path in folder.iterdir()} == {ODD[-1], sums_name(ODD[-1])}
    assert verify_image(folder, ODD[-1]).sound


def test_an_image_that_cannot_be_looked_at_may_need_others(folder: Path) -> None:
    """It was not seen in the listing, and what it was built upon went."""
    world = World(folder, MIB)
    world.write(0, 3)
    names = [world.point()]
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", names[0], "-F", "qcow2", folder / "a b.qcow2")
    assert backings(folder)["a b.qcow2"] == names[0]
    (folder / "a b.qcow2").rename(folder / "a:b.qcow2")
    with pytest.raises(UnsafeImage):
        world.merge(names[0])
    assert (folder / names[0]).exists()


def test_an_intent_names_nothing_elsewhere(folder: Path) -> None:
    """Who can write to the target does not get other files removed by it."""
    other = folder.parent / "other"
    other.mkdir()
    (other / "p.qcow2").write_bytes(b"precious")
    world = World(folder, MIB)
    world.write(0)
    name = world.point()
    intent = Intent(run=Run(images=("x.qcow2", name), base=None), carrier=None, carrier_size=0, to_move=0)
    for bad in ("../other/p.qcow2", "", "..", "-p.qcow2", "p\n.qcow2", "a:b.qcow2", "a\u202eb.qcow2"):
        MergeJournal(folder).begin(intent)
        text = (folder / "merge.json").read_text().replace('"x.qcow2"', f'"{bad.encode("unicode_escape").decode()}"')
        (folder / "merge.json").write_text(text)
        with pytest.raises(DocumentDamaged):
            world.merge()
        (folder / "merge.json").unlink()
    assert (other / "p.qcow2").exists()
