# SPDX-License-Identifier: GPL-3.0-or-later
"""Targets of other kinds: a file system that refuses O_DIRECT and holes, and one that fills up during the work."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.digests import sums_name
from overkeep.blocks.errors import TargetFull
from overkeep.blocks.holes import punch
from overkeep.blocks.memory import MemoryDisk
from overkeep.blocks.verify import verify_image
from overkeep.model.points import Changes
from overkeep.repository import layout
from overkeep.units import KIB, MIB
from tests.mover.shelf import FORMS, Shelf, scribble

Mounted = Callable[..., Path]

_HOLD = 'mount -t "$1" -o "$2" none "$3" && echo mounted && exec cat'


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounted]:
    """Mount a file system of a kind where nobody else sees it; returns its root, as its holder sees it.

    It is gone with its holder, also when the tests are killed.
    """
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    with ExitStack() as stack:

        def mount(kind: str, options: str = "rw") -> Path:
            place = tmp_path / kind
            place.mkdir()
            command = ["unshare", "--mount", "sh", "-c", _HOLD, "sh", kind, options, str(place)]
            holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.callback(holder.communicate, timeout=90)  # closes its input, which ends it
            assert holder.stdout is not None
            assert holder.stdout.readline() == "mounted\n", f"{kind} cannot be mounted"
            root = Path("/proc", str(holder.pid), "root", *place.parts[1:])
            assert root.stat().st_dev != tmp_path.stat().st_dev
            return root

        yield mount


@pytest.fixture
def plain_target(mounted: Mounted) -> Path:
    """A folder of a file system that refuses both O_DIRECT and holes."""
    root = mounted("ramfs")
    probe = root / "probe"
    probe.write_bytes(bytes(2 * CLUSTER))
    with pytest.raises(OSError, match="Invalid argument") as refused:
        os.close(os.open(probe, os.O_RDWR | os.O_DIRECT))
    assert refused.value.errno == errno.EINVAL
    with probe.open("r+b") as file:
        assert not punch(file.fileno(), 0, CLUSTER)
    probe.unlink()
    return root


def points(shelf: Shelf, ways: list[Changes], *, size: int = 12 * MIB) -> dict[str, bytes]:
    """Make a full point and one of each of `ways`; return what each must hold."""
    rng, disk = random.Random(5), MemoryDisk(size)
    disk.write(0, memoryview(rng.randbytes(5 * MIB)))
    held: dict[str, bytes] = {}
    for how in (Changes.ALL, *ways):
        shelf.back_up(disk, how)
        held[shelf.newest] = bytes(disk.content)
        disk.mark()
        scribble(disk, rng, 6)
        disk.write(rng.randrange(64) * CLUSTER, memoryview(rng.randbytes(MIB)))
    return held


def check(shelf: Shelf, held: dict[str, bytes]) -> None:
    for name, content in held.items():
        shelf.check_point(name, content)
        assert verify_image(shelf.folder, name).sound, name


# no O_DIRECT, no holes


@pytest.mark.parametrize("form", FORMS)
def test_a_target_without_direct_writes_and_holes(plain_target: Path, tmp_path: Path, form: str) -> None:
    shelf = Shelf(plain_target, form=FORMS[form], scratch=tmp_path)
    held = points(shelf, [Changes.TRACKED, Changes.COMPARED, Changes.TRACKED])
    check(shelf, held)
    for removed in (["p2.qcow2"], ["p1.qcow2", "p3.qcow2"]):
        result = shelf.merge(*removed)
        assert sorted(result.removed) == removed
        held = {name: content for name, content in held.items() if name not in removed}
        check(shelf, held)
    assert sorted(path.name for path in plain_target.iterdir()) == ["p4.qcow2", "p4.sums"]


def test_what_cannot_be_given_back_is_used_again(plain_target: Path, mounted: Mounted, tmp_path: Path) -> None:
    """The same merges on a file system that makes holes: there the clusters that are free go back to it."""
    sizes: dict[str, list[int]] = {}
    for root in (plain_target, mounted("tmpfs", "size=256m")):
        shelf = Shelf(root, scratch=tmp_path)
        rng, disk = random.Random(9), MemoryDisk(40 * MIB)
        disk.write(0, memoryview(rng.randbytes(20 * MIB)))
        shelf.back_up(disk, Changes.ALL)
        kept = sizes.setdefault(root.name, [])
        for number in range(6):
            disk.mark()
            disk.zero(number * 2 * MIB, 2 * MIB)  # its clusters are free after the merge
            disk.write((20 + number) * MIB, memoryview(rng.randbytes(MIB)))
            shelf.back_up(disk, Changes.TRACKED)
            shelf.merge(shelf.names[0])
            shelf.check(disk)
            kept.append((root / shelf.newest).stat().st_blocks * 512)
    assert sizes["ramfs"][0] >= 20 * MIB, "nothing went back"
    assert max(sizes["ramfs"]) <= 20 * MIB + 2 * MIB, "what is free is used again"
    assert sizes["tmpfs"][-1] < 16 * MIB


# no room


def fill(root: Path, *, left: int) -> Path:
    """Take all room of a file system but `left` bytes."""
    filler = root / "filler"
    free = os.statvfs(root)
    filler.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - left)))
    return filler


@pytest.mark.parametrize("form", ["plain", "zstd", "largest"])
@pytest.mark.parametrize("changes", Changes)
@pytest.mark.parametrize("left", [0, 64 * KIB, 3 * MIB])
def test_a_target_that_fills_up_during_a_copy(
    mounted: Mounted, tmp_path: Path, changes: Changes, form: str, left: int
) -> None:
    root = mounted("tmpfs", "size=48m")
    folder = root / "disk"
    folder.mkdir()
    shelf = Shelf(folder, form=FORMS[form], scratch=tmp_path)
    rng, disk = random.Random(3), MemoryDisk(16 * MIB)
    disk.write(0, memoryview(rng.randbytes(6 * MIB)))
    shelf.back_up(disk, Changes.ALL)
    first = bytes(disk.content)
    disk.mark()
    disk.write(3 * MIB, memoryview(rng.randbytes(8 * MIB)))
    filler = fill(root, left=left)
    with pytest.raises(TargetFull) as caught:
        shelf.back_up(disk, changes, read_back=1.0)
    assert (caught.value.code, caught.value.retry) == ("target-full", False)
    assert str(folder) in str(caught.value)
    assert sorted(path.name for path in folder.iterdir()) == ["p1.qcow2", "p1.sums"]
    shelf.check_point("p1.qcow2", first)
    filler.unlink()
    shelf.back_up(disk, changes, read_back=1.0)
    check(shelf, {"p1.qcow2": first, "p2.qcow2": bytes(disk.content)})


MERGES = {
    "bottom": ["p1.qcow2"],
    "middle": ["p2.qcow2", "p3.qcow2"],
    "all below": ["p1.qcow2", "p2.qcow2", "p3.qcow2"],
}
STEPS = {"plain": 192 * KIB, "zstd": 192 * KIB, "largest": MIB}


def merge_without_room(shelf: Shelf, names: list[str], held: dict[str, bytes]) -> bool:
    """Merge; whether there was room. If not, all is as it was, and a merge that has begun can be gone on with."""
    try:
        shelf.merge(*names)
    except TargetFull as error:
        full = error
    else:
        return True
    assert (full.code, full.retry) == ("target-full", False)
    check(shelf, held)
    return False


@pytest.mark.parametrize("form", STEPS)
@pytest.mark.parametrize("removed", MERGES)
def test_a_target_that_fills_up_during_a_merge(mounted: Mounted, tmp_path: Path, removed: str, form: str) -> None:
    """With ever more room, until it is enough: the room ends while the merge begins, copies, and ends."""
    root, names = mounted("tmpfs", "size=96m"), MERGES[removed]
    begun: list[bool] = []
    for attempt in itertools.count():
        folder = root / str(attempt)
        folder.mkdir()
        shelf = Shelf(folder, form=FORMS[form], scratch=tmp_path)
        held = points(shelf, [Changes.TRACKED, Changes.COMPARED, Changes.TRACKED])
        held = {name: content for name, content in held.items() if name not in names}
        filler = fill(root, left=attempt * STEPS[form])
        enough = merge_without_room(shelf, names, held)
        filler.unlink()
        begun.append((folder / layout.MERGE).exists())
        if not enough:
            shelf.merge(*names)
        check(shelf, held)
        assert sorted(path.name for path in folder.iterdir()) == sorted(
            name for image in held for name in (image, sums_name(image))
        )
        shutil.rmtree(folder)
        if enough:
            break
    assert not begun[0], "there was no room for its intent"
    assert any(begun), "it ended in the middle"
