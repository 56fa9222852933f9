# SPDX-License-Identifier: GPL-3.0-or-later
"""What a merge has made is compared with its digests before anything goes: a fault costs nothing but the merge."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.digesting import make_digests
from overkeep.blocks.digests import sums_name
from overkeep.blocks.errors import ImageDamaged, MergeGarbled, TargetFailed
from overkeep.blocks.merge import making
from overkeep.blocks.merge.transfer import TransferSource
from overkeep.blocks.qcow2 import held
from overkeep.blocks.qcow2.carrier import Carrier
from overkeep.blocks.qcow2.reader import ChainReader
from overkeep.blocks.verify import verify_image
from overkeep.repository.merging import MergeJournal
from overkeep.units import MIB
from tests.blocks.merge.world import World, run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a disk."""
    path = tmp_path / "disk"
    path.mkdir()
    return path


def two_points(folder: Path, *, heavy: int = 0) -> tuple[World, list[str]]:
    """Two points; that number `heavy` holds most, and is what the other one is moved into."""
    world = World(folder, 8 * MIB + 512)
    names = []
    for number in range(2):
        world.write(3 * number, 60 if number == heavy else 6)
        names.append(world.point())
    return world, names


def rot(path: Path) -> None:
    """Damage the first cluster of data of an image that a mover wrote."""
    with path.open("r+b") as file:
        file.seek(CLUSTER)
        file.write(os.urandom(512))


def disk(folder: Path, name: str) -> bytes:
    """All that an image shows."""
    with closing(ChainReader(folder, name)) as reader:
        data = bytearray(reader.size)
        reader.read_into(0, memoryview(data))
    return bytes(data)


def files(folder: Path) -> list[str]:
    """What is there."""
    return sorted(path.name for path in folder.iterdir())


def give_up(world: World, *names: str) -> str:
    """Merge in vain: every image is there, is sound and shows what it showed. Return why it was given up."""
    folder, before = world.folder, files(world.folder)
    world.forget(*names)
    shown = {name: disk(folder, name) for name in world.points}
    with pytest.raises(MergeGarbled) as caught:
        world.merge(*names)
    assert files(folder) == before
    for name, data in shown.items():
        assert disk(folder, name) == data
        run("qemu-img", "check", "-q", folder / name)
    return str(caught.value)


def garbled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a merge move other data than those that are there."""
    read = TransferSource.read_into

    def read_into(self: TransferSource, offset: int, buffer: memoryview) -> None:
        read(self, offset, buffer)
        buffer[len(buffer) // 2] ^= 1

    monkeypatch.setattr(TransferSource, "read_into", read_into)


@pytest.mark.parametrize("heavy", [0, 1])
def test_a_source_that_does_not_read_as_its_digests_say_is_kept(folder: Path, heavy: int) -> None:
    world, names = two_points(folder, heavy=heavy)
    rot(folder / names[1 - heavy])
    said = give_up(world, names[0])
    assert f"comes from {names[1 - heavy]}" in said
    assert "1 cluster does not read as the digests say" in said
    damaged = [name for name in names if not verify_image(folder, name).sound]
    assert damaged == [[names[1]], names][heavy], "of the carrier, what nobody sees is not called damaged"
    make_digests(folder, names[1 - heavy])
    shown = disk(folder, names[1])
    assert world.merge(names[0]).removed == (names[0],)
    assert disk(folder, names[1]) == shown


@pytest.mark.parametrize("heavy", [0, 1])
def test_a_merge_that_moves_other_data_removes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, heavy: int
) -> None:
    world, names = two_points(folder, heavy=heavy)
    with monkeypatch.context() as patched:
        garbled(patched)
        give_up(world, names[0])
    world.verify()
    world.verify_digests(names[1])
    assert all(verify_image(folder, name).sound for name in names), "also the one that goes"
    assert world.merge(names[0]).moved > 0, "what was moved wrongly is moved again"
    world.verify()
    world.verify_digests(names[1])
    world.verify_tidy()


def test_images_that_come_without_digests_are_compared_with_what_they_show(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of compressed clusters of 2 MiB were moved as if each were a whole one, and nobody saw it."""
    world = World(folder, 6 * MIB)
    world.write(0, 40)
    names = [world.foreign_point("extended_l2=on,cluster_size=2M,compression_type=zstd", compress=True)]
    world.write(5, 60)
    names.append(world.point())
    with monkeypatch.context() as patched:
        patched.setattr(held, "_without_packed", lambda own: own)
        give_up(world, names[0])
    world.verify()
    world.merge(names[0])
    world.verify()


def test_tables_that_name_other_data_are_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, names = two_points(folder)
    set_table = Carrier.set_table

    def swapped(self: Carrier, index: int, found: Any, *, write: bool) -> None:
        found[[20, 21]] = found[[21, 20]]  # of data that stay where they are
        set_table(self, index, found, write=write)

    with monkeypatch.context() as patched:
        patched.setattr(Carrier, "set_table", swapped)
        assert "its tables do not name what they should at cluster 20" in give_up(world, names[0])
    world.merge(names[0])
    world.verify()


def foreign_with_digests(folder: Path) -> tuple[World, list[str]]:
    """Two points of clusters of 4 KiB: they are written anew as one image."""
    world = World(folder, 6 * MIB)
    names = []
    for first in (0, 10):
        world.write(first, 20)
        names.append(world.foreign_point("cluster_size=4k"))
        make_digests(folder, names[-1])
    return world, names


def test_an_image_that_is_written_anew_is_looked_at_before_it_has_its_name(folder: Path) -> None:
    world, names = foreign_with_digests(folder)
    run("qemu-io", "-c", "write -P 0x99 0 4k", folder / names[1])
    assert f"the first is number 0 and comes from {names[1]}" in give_up(world, names[0])
    make_digests(folder, names[1])
    shown = disk(folder, names[1])
    world.merge(names[0])
    assert disk(folder, names[1]) == shown


def test_an_image_that_is_written_wrongly_never_has_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, names = foreign_with_digests(folder)
    write_each = making.ImageWriter.write_each

    def wrong(self: Any, pieces: Any) -> None:
        for _, data in pieces:
            data[len(data) // 2] ^= 1
        write_each(self, pieces)

    with monkeypatch.context() as patched:
        patched.setattr(making.ImageWriter, "write_each", wrong)
        give_up(world, names[0])
    world.merge(names[0])
    world.verify()


def test_a_cluster_that_cannot_be_inflated_ends_the_merge_and_nothing_else(folder: Path) -> None:
    world = World(folder, 6 * MIB)
    world.write(0, 20)
    names = [world.foreign_point(compress=True)]
    make_digests(folder, names[0])
    world.write(10, 60)
    names.append(world.point())
    with (folder / names[0]).open("r+b") as file:
        file.seek((folder / names[0]).stat().st_size // 2)
        file.write(os.urandom(4096))
    before = files(folder)
    with pytest.raises((MergeGarbled, ImageDamaged)):
        world.merge(names[0])
    assert files(folder) == before


def test_a_merge_that_was_stopped_before_it_was_given_up_is_given_up_then(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, names = two_points(folder)

    def stop(self: MergeJournal) -> None:
        raise TargetFailed(path="merge.json", reason="told to")

    with monkeypatch.context() as patched:
        garbled(patched)
        patched.setattr(MergeJournal, "clear", stop)
        with pytest.raises(TargetFailed):
            world.merge(names[0])
    assert "merge.json" in files(folder)
    with pytest.raises(MergeGarbled):
        world.merge(names[0])
    assert "merge.json" not in files(folder)
    world.verify()
    world.merge(names[0])
    world.verify()
    world.verify_tidy()


def test_digests_that_are_lost_meanwhile_are_composed_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, names = two_points(folder)

    def stop(*_: object, **__: object) -> None:
        raise TargetFailed(path="disk", reason="told to")

    with monkeypatch.context() as patched:
        garbled(patched)
        patched.setattr(making, "require_as_digested", stop)
        with pytest.raises(TargetFailed):
            world.merge(names[0])
    (folder / sums_name(names[1])).unlink()
    with pytest.raises(MergeGarbled):
        world.merge(names[0])
    world.verify()
    world.verify_digests(names[1])
