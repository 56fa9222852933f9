# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of one disk, with real QCOW2 files and disks in memory; chains are compared by qemu-img."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.compression import Compression
from overkeep.blocks.digests import sums_name
from overkeep.blocks.errors import ImageDamaged, SizesDiffer
from overkeep.blocks.memory import MemoryDisk
from overkeep.blocks.qcow2.form import Form
from overkeep.errors import Cancelled
from overkeep.model.points import Changes
from overkeep.mover.copy_terms import Options, Place
from overkeep.mover.disk_copies import BackingMissing, back_up, differing, restore
from overkeep.mover.reading_back import ReadBackDiffers, read_back
from overkeep.repository import layout
from overkeep.units import KIB, MIB
from tests.filesystems.mounting import mounted
from tests.mover.bench import tool
from tests.mover.shelf import FORMS, Impatient, Shelf, resized, scribble


def a_disk(size: int = 8 * MIB, seed: int = 1) -> MemoryDisk:
    disk = MemoryDisk(size)
    scribble(disk, random.Random(seed), 12)
    return disk


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


@pytest.mark.parametrize("form", FORMS)
def test_a_compared_overlay_is_as_small_as_a_tracked_one(tmp_path: Path, form: str) -> None:
    shelves = [Shelf(tmp_path / str(changes), form=FORMS[form]) for changes in (Changes.TRACKED, Changes.COMPARED)]
    disk = a_disk(16 * MIB)
    for shelf in shelves:
        shelf.folder.mkdir()
        shelf.back_up(disk, Changes.ALL)
    disk.mark()
    disk.write(5 * CLUSTER + 100, memoryview(os.urandom(200)))
    disk.write(9 * MIB, memoryview(os.urandom(3 * CLUSTER)))
    disk.zero(12 * MIB, 2 * MIB)
    disk.content[12 * MIB] = 1  # within what was zeroed, so that not all of it is
    results = [shelf.back_up(disk, changes) for shelf, changes in zip(shelves, list(Changes)[1:], strict=True)]
    for shelf in shelves:
        shelf.check(disk)
    tracked, compared = (shelf.stored() for shelf in shelves)
    assert compared <= tracked + 2 * FORMS[form].cluster  # compressed clusters come in no fixed order
    assert compared <= 3 * MIB + 12 * FORMS[form].cluster
    assert results[1].covered == disk.size
    assert results[0].covered < disk.size


def test_what_is_written_again_as_it_was_is_not_kept(shelf: Shelf) -> None:
    disk = a_disk()
    shelf.back_up(disk, Changes.ALL)
    empty = shelf.back_up(disk, Changes.COMPARED)
    assert shelf.stored() == empty.stored <= 6 * CLUSTER  # header and tables
    shelf.check(disk)


@pytest.mark.parametrize("cluster", [CLUSTER, 4 * CLUSTER])
def test_a_higher_level_stores_less(tmp_path: Path, cluster: int) -> None:
    rng, words = random.Random(2), [random.Random(number).randbytes(6).hex() for number in range(4000)]
    text = " ".join(rng.choices(words, k=8 * MIB // 13)).encode()
    disk = MemoryDisk(8 * MIB)
    disk.write(0, memoryview(text[: 8 * MIB]))
    stored = {}
    for level in (1, 19):
        form = Form(cluster=cluster, compression=Compression.ZSTD, level=level)
        shelf = Shelf(tmp_path / str(level), form=form)
        shelf.folder.mkdir()
        stored[level] = shelf.back_up(disk, Changes.ALL, read_back=1.0).stored
        shelf.check(disk)
    assert stored[19] < 0.95 * stored[1] < 0.95 * disk.size, stored


@pytest.mark.parametrize("form", ["plain", "large zstd"])
@pytest.mark.parametrize("lost", [(), (1,), (2,), (1, 2, 3)], ids=["none", "full", "overlay", "all"])
def test_a_chain_of_several_with_digests_lost(tmp_path: Path, form: str, lost: tuple[int, ...]) -> None:
    rng, disk = random.Random(7), a_disk()
    shelf = Shelf(tmp_path, form=FORMS[form])
    shelf.back_up(disk, Changes.ALL)
    for changes in (Changes.COMPARED, Changes.TRACKED):
        disk.mark()
        scribble(disk, rng, 6)
        shelf.back_up(disk, changes)
    for number in lost:
        (tmp_path / sums_name(f"p{number}.qcow2")).unlink()
    before = bytes(disk.content)
    disk.write(3 * MIB + 7, memoryview(b"changed"))
    shelf.back_up(disk, Changes.COMPARED)
    assert shelf.stored() <= MIB + 8 * FORMS[form].cluster
    tool("qemu-img", "check", "-q", tmp_path / shelf.newest)
    assert shelf.count == 4
    (tmp_path / "raw").write_bytes(disk.content)
    tool("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", tmp_path / "raw", tmp_path / shelf.newest)
    assert bytes(disk.content) != before
    shelf.check(disk)


def test_damaged_digests_are_as_good_as_none(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    disk = a_disk(64 * MIB)  # more than one page of digests
    shelf.back_up(disk, Changes.ALL)
    sums = shelf.folder / sums_name(shelf.newest)
    sums.write_bytes(sums.read_bytes()[:64] + b"x" * 100)
    disk.write(0, memoryview(b"changed"))
    shelf.back_up(disk, Changes.COMPARED)
    assert "digests not used" in caplog.text
    assert shelf.stored() <= 8 * CLUSTER
    shelf.check(disk)


SIZES = [
    (8 * MIB, 8 * MIB + 512),
    (8 * MIB - 512, 9 * MIB),
    (5 * MIB + 1024, 20 * MIB + 3 * KIB),
    (8 * MIB, 8 * MIB - 512),
    (9 * MIB, 5 * MIB + 36 * KIB),
    (20 * MIB, MIB),
]


@pytest.mark.parametrize("form", ["plain", "large", "large zstd"])
@pytest.mark.parametrize("changes", [Changes.TRACKED, Changes.COMPARED])
@pytest.mark.parametrize(("first", "second"), SIZES)
def test_disks_that_grow_and_shrink(tmp_path: Path, changes: Changes, first: int, second: int, form: str) -> None:
    shelf = Shelf(tmp_path, form=FORMS[form])
    disk = MemoryDisk(first)
    disk.write(0, memoryview(os.urandom(first)))  # data to the very end, and behind where it may be cut off
    shelf.back_up(disk, Changes.ALL)
    disk = resized(disk, second)
    disk.mark()
    disk.write(MIB - 300, memoryview(b"changed"))
    shelf.back_up(disk, changes)
    shelf.check(disk)
    disk = resized(disk, first)
    disk.mark()
    disk.write(2 * CLUSTER, memoryview(b"changed"))
    shelf.back_up(disk, changes)
    shelf.check(disk)


def test_a_backing_image_that_cannot_be_read_says_so(shelf: Shelf) -> None:
    disk = a_disk()
    with pytest.raises(BackingMissing, match="p0"):
        back_up(
            disk,
            Place(folder=shelf.folder, name="p1.qcow2", backing="p0.qcow2"),
            changes=Changes.COMPARED,
            options=Options(),
            watch=shelf.watch,
        )
    shelf.back_up(disk, Changes.ALL)
    path = shelf.folder / shelf.newest
    (shelf.folder / sums_name(shelf.newest)).unlink()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)  # tables and some data are gone
    with pytest.raises(BackingMissing, match="p1"):
        shelf.back_up(disk, Changes.COMPARED)
    assert sorted(found.name for found in shelf.folder.iterdir()) == ["p1.qcow2"]


class Counting(MemoryDisk):
    """Counts what is written to it."""

    def __init__(self, content: bytes) -> None:
        super().__init__(len(content))
        self.content[:] = content
        self.written = 0

    def write(self, offset: int, data: memoryview) -> None:
        self.written += len(data)
        super().write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        self.written += length
        super().zero(offset, length)


@pytest.mark.parametrize("larger", [0, 512, 3 * MIB])
@pytest.mark.parametrize("lost", [False, True])
def test_a_differential_restore_writes_what_differs(shelf: Shelf, larger: int, lost: bool) -> None:
    disk = a_disk(8 * MIB + 7 * 512)
    shelf.back_up(disk, Changes.ALL)
    disk.write(MIB, memoryview(os.urandom(MIB)))
    shelf.back_up(disk, Changes.COMPARED)
    if lost:
        (shelf.folder / sums_name("p1.qcow2")).unlink()
    present = Counting(bytes(disk.content) + os.urandom(larger))
    present.content[disk.size - 1] ^= 1  # the last, short cluster
    present.content[2 * MIB + 5] ^= 1
    present.content[4 * MIB : 4 * MIB + 2 * CLUSTER] = bytes(2 * CLUSTER)
    rest = bytes(present.content[disk.size :])
    expected = {at // CLUSTER for at in range(disk.size) if present.content[at] != disk.content[at]}
    only = differing(shelf.place, present, options=Options(), watch=shelf.watch)
    assert present.written == 0
    assert only.compared == disk.size
    result = restore(shelf.place, present, only=only, options=Options(), watch=shelf.watch)
    assert present.content[: disk.size] == disk.content
    assert bytes(present.content[disk.size :]) == rest
    short = disk.size % CLUSTER
    assert present.written == result.covered == (len(expected) - 1) * CLUSTER + short
    done = [progress.done for progress in shelf.watch.heard[-100:]]
    assert shelf.watch.heard[-1].done == shelf.watch.heard[-1].total == only.compared + result.covered
    assert done[-1] == max(done)


def test_a_disk_that_is_too_small_is_not_compared(shelf: Shelf) -> None:
    shelf.back_up(a_disk(), Changes.ALL)
    with pytest.raises(SizesDiffer):
        differing(shelf.place, MemoryDisk(MIB), options=Options(), watch=shelf.watch)


def test_a_bandwidth_limits_backup_and_comparison(shelf: Shelf) -> None:
    disk = MemoryDisk(8 * MIB)
    disk.write(0, memoryview(os.urandom(disk.size)))
    begin = time.monotonic()
    result = shelf.back_up(disk, Changes.ALL, bandwidth=8 * MIB)
    assert time.monotonic() - begin >= 0.75  # the first of four pieces need not wait
    begin = time.monotonic()
    differing(shelf.place, disk, options=Options(bandwidth=8 * MIB), watch=shelf.watch)
    assert time.monotonic() - begin >= 0.75
    assert result.moved == disk.size


def test_seconds_are_what_one_waits_for(shelf: Shelf) -> None:
    disk = MemoryDisk(32 * MIB)
    disk.write(0, memoryview(os.urandom(disk.size)))
    begin = time.monotonic()
    result = shelf.back_up(disk, Changes.ALL, read_back=1.0)
    assert time.monotonic() - begin - result.seconds < result.stages["read_back"], "reading back is left out"
    disk.content[3 * MIB] ^= 1
    begin = time.monotonic()
    limited = Options(bandwidth=32 * MIB)
    only = differing(shelf.place, disk, options=limited, watch=shelf.watch)
    result = restore(shelf.place, disk, only=only, options=limited, watch=shelf.watch)
    assert 0.9 <= result.seconds <= time.monotonic() - begin, "comparing takes most of it"
    assert (result.compared, result.moved) == (disk.size, CLUSTER)


@pytest.mark.parametrize("form", ["plain", "large zstd"])
def test_points_are_compared_rightly_while_a_merge_into_them_is_stopped(tmp_path: Path, form: str) -> None:
    """What was zeroed since the point that goes is written again as it was there: a change like any other."""
    for patience in itertools.count(1):
        folder = tmp_path / str(patience)
        folder.mkdir()
        shelf = Shelf(folder, form=FORMS[form])
        disk = MemoryDisk(8 * MIB)
        disk.write(0, memoryview(os.urandom(5 * MIB)))
        shelf.back_up(disk, Changes.ALL)
        first = bytes(disk.content)
        disk.mark()
        disk.zero(2 * MIB, MIB)
        disk.write(6 * MIB, memoryview(os.urandom(CLUSTER)))
        shelf.back_up(disk, Changes.TRACKED)
        with suppress(Cancelled):
            shelf.merge("p1.qcow2", watch=Impatient(patience))
        stopped = (folder / layout.MERGE).exists()
        present = MemoryDisk(disk.size)
        present.content[:] = first
        only = differing(shelf.place, present, options=Options(), watch=shelf.watch)
        restore(shelf.place, present, only=only, options=Options(), watch=shelf.watch)
        assert present.content == disk.content, patience
        disk.content[2 * MIB : 3 * MIB] = first[2 * MIB : 3 * MIB]
        shelf.back_up(disk, Changes.COMPARED)
        shelf.check(disk)
        if not stopped and patience > 1:
            break
    assert patience > 3


def test_stages_are_told(shelf: Shelf) -> None:
    result = shelf.back_up(a_disk(), Changes.ALL, read_back=1.0, form=FORMS["zstd"])
    assert set(result.stages) == {"source", "digest", "compress", "target", "read_back"}


@pytest.fixture
def rotten(tmp_path: Path) -> Iterator[Callable[[str, int], Path]]:
    """Mount a place that returns one byte wrong; returns its folder."""
    with ExitStack() as stack:
        yield lambda suffix, offset: stack.enter_context(mounted("rotten", tmp_path, suffix, offset))[0]


ROT = {
    "header": (".qcow2", 20, "p1"),
    "data": (".qcow2", 2 * CLUSTER + 9, "1 clusters differ"),
    "header of digests": (".sums", 33, "digests"),
    "digests": (".sums", 4096 + 5, "1 clusters differ"),
    "refcounts": (".qcow2", -CLUSTER + 1, ""),  # a reader has no use for them
}


@pytest.mark.parametrize("what", ROT)
def test_a_place_that_returns_other_data_is_found(rotten: Callable[[str, int], Path], what: str) -> None:
    suffix, offset, words = ROT[what]
    shelf = Shelf(rotten(suffix, offset))
    disk = MemoryDisk(2 * MIB)
    disk.write(0, memoryview(os.urandom(disk.size)))
    if not words:
        shelf.back_up(disk, Changes.ALL, read_back=1.0)
        return
    with pytest.raises(ReadBackDiffers, match=words):
        shelf.back_up(disk, Changes.ALL, read_back=1.0)
    assert list(shelf.folder.iterdir()) == []
    shelf.back_up(disk, Changes.ALL)  # nobody looks
    assert len(list(shelf.folder.iterdir())) == 2


@pytest.mark.parametrize("form", FORMS)
def test_every_form_passes_the_reading_back(tmp_path: Path, form: str) -> None:
    shelf = Shelf(tmp_path, form=FORMS[form])
    disk = a_disk()
    shelf.back_up(disk, Changes.ALL, read_back=1.0)
    disk.mark()
    scribble(disk, random.Random(3), 5)
    shelf.back_up(disk, Changes.TRACKED, read_back=0.5)
    scribble(disk, random.Random(4), 5)
    shelf.back_up(disk, Changes.COMPARED, read_back=1.0)
    shelf.check(disk)


def test_a_copy_that_is_stopped_while_it_is_read_back_leaves_nothing(shelf: Shelf) -> None:
    shelf.back_up(a_disk(), Changes.ALL)
    shelf.watch.stop(Cancelled(what="The copy"))
    with pytest.raises(Cancelled):
        read_back(shelf.place, Options(read_back=1.0), shelf.watch)
    assert list(shelf.folder.iterdir()) == []


def test_a_source_that_fails_leaves_nothing(shelf: Shelf) -> None:
    class Broken(MemoryDisk):
        def read_into(self, offset: int, buffer: memoryview) -> None:
            raise ImageDamaged(file="x", reason="y")

    disk = Broken(MIB)
    disk.content[5] = 1
    with pytest.raises(ImageDamaged):
        shelf.back_up(disk, Changes.ALL)
    assert list(shelf.folder.iterdir()) == []
