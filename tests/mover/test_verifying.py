# SPDX-License-Identifier: GPL-3.0-or-later
"""Several images are checked together, on a server with a bad disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from overkeep.blocks.errors import TargetFailed
from overkeep.blocks.memory import MemoryDisk
from overkeep.blocks.verify import ALL, Findings
from overkeep.model.points import Changes
from overkeep.mover.verifying import ImageChecks
from overkeep.units import MIB
from tests.filesystems.mounting import failing_target
from tests.mover.shelf import Shelf, Watching


def chain(folder: Path) -> Shelf:
    """Three images of one disk."""
    shelf, disk = Shelf(folder), MemoryDisk(4 * MIB)
    for changes in (Changes.ALL, Changes.TRACKED, Changes.TRACKED):
        disk.write(MIB, memoryview(os.urandom(MIB)))
        shelf.back_up(disk, changes)
        disk.mark()
    return shelf


def check(shelf: Shelf) -> list[Findings]:
    return ImageChecks(ALL, Watching())([(shelf.folder, name) for name in shelf.names])


@pytest.mark.parametrize(("suffix", "offset"), [("p2.sums", 0), ("p2.sums", 4096), ("p2.qcow2", MIB // 2)])
def test_images_beside_one_with_a_bad_place_are_checked(tmp_path: Path, suffix: str, offset: int) -> None:
    with failing_target(tmp_path) as target:
        shelf = chain(target.root)
        with target.bad(suffix, offset):
            found = check(shelf)
        assert [one.sound for one in found] == [True, False, True]
        assert "cannot be read on the backup target" in str(found[1].errors)
        assert all(one.sound for one in check(shelf))


def test_images_beside_one_that_somebody_else_may_read_only_are_checked(tmp_path: Path) -> None:
    with failing_target(tmp_path) as target:
        shelf = chain(target.root)
        with target.bad("p3.qcow2", 0, errno.EACCES):
            found = check(shelf)
        assert [one.sound for one in found] == [True, True, False]
        assert "answers otherwise: Permission denied; look at" in str(found[2].errors)


def test_a_target_that_does_not_answer_says_nothing_of_its_images(tmp_path: Path) -> None:
    with failing_target(tmp_path) as target:
        shelf = chain(target.root)
        with target.failing("reads", 1, errno.EIO, lasting=True), pytest.raises(TargetFailed):
            check(shelf)
