# SPDX-License-Identifier: GPL-3.0-or-later
"""What every end must do: the twin in memory, NBD disks and images pass the same suite."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.copy import copy
from overkeep.blocks.ends import Extent, Sink, Source, read_each, write_each
from overkeep.blocks.errors import BadRange
from overkeep.blocks.image import ChainReader, ImageSink
from overkeep.blocks.memory import MemoryDisk
from overkeep.blocks.nbd import NbdSink, NbdSource
from overkeep.blocks.rawfile import RawSink, RawSource
from overkeep.units import MIB

SIZE = 5 * MIB + 512
Ends = tuple[Sink, Callable[[], Source]]


@pytest.fixture(params=["memory", "nbd", "nbd-qcow2", "image", "raw"])
def ends(request: pytest.FixtureRequest, tmp_path: Path) -> Ends:
    """A sink of `SIZE` bytes, and how to read what was written to it."""
    if request.param == "memory":
        disk = MemoryDisk(SIZE)
        return disk, lambda: disk
    if request.param == "image":
        return ImageSink(tmp_path, "a.qcow2", size=SIZE), lambda: ChainReader(tmp_path, "a.qcow2")
    if request.param == "raw":
        path = tmp_path / "raw"
        path.touch()
        os.truncate(path, SIZE)
        return RawSink(path), lambda: RawSource(path)
    form = "qcow2" if request.param == "nbd-qcow2" else "raw"
    image = tmp_path / "disk"
    request.getfixturevalue("qemu")("qemu-img", "create", "-q", "-f", form, image, str(SIZE))
    url = request.getfixturevalue("serve")(image, format=form)
    return NbdSink(url), lambda: NbdSource(url)


def read(source: Source) -> bytes:
    content = bytearray(source.size)
    for at in range(0, source.size, MIB):
        source.read_into(at, memoryview(content)[at : at + MIB])
    return bytes(content)


def test_what_is_written_is_read(ends: Ends) -> None:
    sink, reopen = ends
    data = os.urandom(MIB)
    tail = os.urandom(512)
    assert sink.size == SIZE
    sink.write(MIB, memoryview(data))
    sink.write(MIB + CLUSTER, memoryview(bytes(CLUSTER)))
    sink.write(5 * MIB, memoryview(tail))
    sink.write(3 * MIB, memoryview(data))
    sink.zero(3 * MIB, MIB // 2)
    sink.finish()
    sink.close()
    sink.close()
    expected = bytearray(SIZE)
    expected[MIB : 2 * MIB] = data
    expected[MIB + CLUSTER : MIB + 2 * CLUSTER] = bytes(CLUSTER)
    expected[3 * MIB + MIB // 2 : 4 * MIB] = data[MIB // 2 :]
    expected[5 * MIB :] = tail
    source = reopen()
    assert read(source) == expected
    source.close()
    source.close()


def test_extents_cover_the_disk_in_whole_clusters_and_never_call_data_zero(ends: Ends) -> None:
    sink, reopen = ends
    sink.write(2 * MIB, memoryview(os.urandom(CLUSTER)))
    sink.finish()
    sink.close()
    source = reopen()
    position = 0
    content = read(source)
    for extent in source.extents(dirty=False):
        assert extent.start == position
        assert extent.start % CLUSTER == 0
        assert not extent.zero or not any(content[extent.start : extent.end])
        position = extent.end
    assert position == SIZE
    assert any(extent.zero for extent in source.extents(dirty=False))
    source.close()


def test_scattered_pieces_travel_together(ends: Ends) -> None:
    sink, reopen = ends
    places = [(5 * MIB, 512), (4 * MIB, CLUSTER), (0, 2 * CLUSTER), (MIB, CLUSTER), (3 * MIB, 4 * CLUSTER)]
    pieces = [(offset, memoryview(bytearray(os.urandom(length)))) for offset, length in places]
    write_each(sink, pieces)
    sink.finish()
    sink.close()
    expected = bytearray(SIZE)
    for offset, data in pieces:
        expected[offset : offset + len(data)] = data
    source = reopen()
    assert read(source) == expected
    wanted = [(0, MIB), (4 * MIB, MIB), (5 * MIB, 512), (2 * MIB, CLUSTER), (CLUSTER, CLUSTER)]
    found = [(offset, memoryview(bytearray(b"x" * length))) for offset, length in wanted]
    read_each(source, found)
    for offset, buffer in found:
        assert buffer == expected[offset : offset + len(buffer)]
    source.close()


def test_several_threads_write_and_read_on_clones(ends: Ends) -> None:
    sink, reopen = ends
    pieces = {index: os.urandom(CLUSTER) for index in range(SIZE // CLUSTER)}

    def write(numbers: range) -> None:
        own = sink.clone()
        for number in numbers:
            own.write(number * CLUSTER, memoryview(pieces[number]))
        if own is not sink:
            own.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, [range(first, len(pieces), 4) for first in range(4)]))
    sink.finish()
    sink.close()
    source = reopen()
    copied = MemoryDisk(SIZE)
    copy(source, copied, source.extents(dirty=False), workers=4, chunk=MIB)
    source.close()
    assert bytes(copied.content[: len(pieces) * CLUSTER]) == b"".join(pieces.values())


def test_a_range_behind_the_end_is_refused(ends: Ends) -> None:
    sink, _ = ends
    with pytest.raises(BadRange):
        sink.write(5 * MIB, memoryview(bytes(1024)))
    with pytest.raises(BadRange):
        sink.zero(5 * MIB, CLUSTER)
    sink.close()


def test_a_block_device_holds_data_everywhere(tmp_path: Path) -> None:
    content = os.urandom(3 * CLUSTER)
    (tmp_path / "disk").write_bytes(content)
    command = ["losetup", "--find", "--show", str(tmp_path / "disk")]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"there are no loop devices here: {made.stderr}")
    device = made.stdout.strip()
    try:
        with closing(RawSource(Path(device))) as source:
            assert list(source.extents(dirty=False)) == [Extent(0, len(content), False)]
            buffer = memoryview(bytearray(len(content)))
            source.read_into(0, buffer)
            assert buffer == content
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
