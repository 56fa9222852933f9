# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of the target, read through the page cache and past it."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
from contextlib import closing
from pathlib import Path

import pytest

from overkeep.blocks.buffers import CLUSTER, aligned_buffer
from overkeep.blocks.errors import TargetMissing, UnsafeImage
from overkeep.blocks.files import open_output
from overkeep.blocks.reading import TargetFile
from overkeep.units import KIB, MIB

_libc = ctypes.CDLL(None, use_errno=True)


def resident(path: Path) -> int:
    """How many pages of a file the page cache holds."""
    size = path.stat().st_size
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as m,
    ):
        anchor = ctypes.c_char.from_buffer(m)
        flags = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        result = _libc.mincore(ctypes.c_void_p(ctypes.addressof(anchor)), ctypes.c_size_t(size), flags)
        del anchor
    assert result == 0, os.strerror(ctypes.get_errno())
    return sum(flag & 1 for flag in flags)


def forget(path: Path) -> None:
    """Drop a file from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(random.Random(1).randbytes(2 * MIB + 777))
    return path


@pytest.mark.parametrize("cached", [True, False])
def test_any_range_is_read(file: Path, cached: bool) -> None:
    content, rng = file.read_bytes(), random.Random(2)
    target = TargetFile(file, cached=cached)
    assert target.size == len(content)
    for _ in range(300):
        start = rng.choice([0, 4 * KIB, 512, rng.randrange(len(content) + 10)])
        length = rng.choice([0, 1, 512, 4 * KIB, 64 * KIB, rng.randrange(len(content))])
        buffer = rng.choice([memoryview(bytearray(length)), aligned_buffer(length or 1)[:length]])
        done = target.fill(start, buffer)
        assert bytes(buffer[:done]) == content[start : start + length]
        assert done == len(content[start : start + length])
    target.close()
    target.close()


def test_past_the_cache_nothing_stays_in_it(file: Path) -> None:
    forget(file)
    if resident(file):
        pytest.skip("this file system is its own cache")
    target = TargetFile(file, cached=False)
    target.fill(0, aligned_buffer(MIB))
    target.fill(777, memoryview(bytearray(MIB)))
    assert resident(file) == 0
    target.close()


def test_a_file_system_without_direct_reads() -> None:
    path = Path("/proc/version")  # procfs has regular files, and no O_DIRECT
    with path.open("rb") as plain, pytest.raises(OSError, match="Invalid"):
        os.close(os.open(f"/proc/self/fd/{plain.fileno()}", os.O_RDONLY | os.O_DIRECT))
    target = TargetFile(path, cached=False)
    buffer = memoryview(bytearray(4 * KIB))
    assert bytes(buffer[: target.fill(0, buffer)]) == path.read_bytes()
    target.close()


def test_runs_of_data_between_holes(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as sparse:
        sparse.truncate(9 * MIB)
        for at in (MIB, 5 * MIB):
            os.pwrite(sparse.fileno(), b"x" * MIB, at)
    target = TargetFile(path)
    runs = target.data_runs(0, target.size)
    assert all(any(begin <= at < end for begin, end in runs) for at in range(MIB, 2 * MIB, 4 * KIB))
    assert all(any(begin <= at < end for begin, end in runs) for at in range(5 * MIB, 6 * MIB, 4 * KIB))
    assert target.data_runs(8 * MIB, target.size) in ([], [(8 * MIB, target.size)])  # not all file systems have holes
    target.close()


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(UnsafeImage):
            TargetFile(tmp_path / name)
    with pytest.raises(TargetMissing):
        TargetFile(tmp_path / "gone")


def test_what_does_not_fit_a_disk_is_read_through_the_page_cache(tmp_path: Path) -> None:
    content = os.urandom(2 * CLUSTER)
    (tmp_path / "image").write_bytes(content)
    buffer = memoryview(bytearray(100))
    with closing(open_output(tmp_path / "image")) as file:
        file.read(1, buffer)
    assert buffer == content[1:101]
