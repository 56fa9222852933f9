# SPDX-License-Identifier: GPL-3.0-or-later
"""The copy loop: what it moves, tells, and does when an end fails."""

from __future__ import annotations

import os
import threading

import pytest

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.copy import copy
from overkeep.blocks.ends import Extent
from overkeep.blocks.errors import DiskLost, SizesDiffer, TargetFull
from overkeep.blocks.memory import MemoryDisk
from overkeep.errors import Cancelled
from overkeep.units import MIB


class FailingSource(MemoryDisk):
    """Loses the connection at the n-th read."""

    reads_left = 3

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.reads_left -= 1
        if self.reads_left < 0:
            raise DiskLost(verb="read", url="memory", reason="told to")
        super().read_into(offset, buffer)


class FullSink(MemoryDisk):
    """Has no room from the n-th write on."""

    writes_left = 1

    def write(self, offset: int, data: memoryview) -> None:
        self.writes_left -= 1
        if self.writes_left < 0:
            raise TargetFull(path="memory", reason="told to")
        super().write(offset, data)


def filled(disk: MemoryDisk) -> MemoryDisk:
    disk.content[:] = os.urandom(disk.size)
    return disk


def test_data_are_moved_and_zeroes_are_not() -> None:
    source, sink = filled(MemoryDisk(8 * MIB)), filled(MemoryDisk(8 * MIB))
    source.content[2 * MIB : 4 * MIB] = bytes(2 * MIB)
    told: list[tuple[int, int]] = []
    stats = copy(
        source,
        sink,
        source.extents(dirty=False),
        chunk=MIB,
        progress=lambda covered, moved: told.append((covered, moved)),
    )
    assert sink.content == source.content
    assert (stats.covered, stats.moved, stats.zeroed) == (8 * MIB, 6 * MIB, 2 * MIB)
    assert told == sorted(told)
    assert told[-1] == (8 * MIB, 6 * MIB)
    assert sink.finished


def test_only_the_given_extents_are_touched() -> None:
    source, sink = filled(MemoryDisk(4 * MIB)), filled(MemoryDisk(4 * MIB))
    before = bytes(sink.content)
    copy(source, sink, [Extent(MIB, CLUSTER, False), Extent(3 * MIB, CLUSTER, True)], workers=2)
    expected = bytearray(before)
    expected[MIB : MIB + CLUSTER] = source.content[MIB : MIB + CLUSTER]
    expected[3 * MIB : 3 * MIB + CLUSTER] = bytes(CLUSTER)
    assert sink.content == expected


def test_changes_since_a_mark_make_a_replica() -> None:
    source = filled(MemoryDisk(4 * MIB))
    sink = MemoryDisk(4 * MIB)
    copy(source, sink, source.extents(dirty=False))
    source.mark()
    source.write(MIB + 5, memoryview(b"changed"))
    source.zero(2 * MIB, CLUSTER)
    stats = copy(source, sink, source.extents(dirty=True))
    assert sink.content == source.content
    assert (stats.covered, stats.moved) == (2 * CLUSTER, CLUSTER)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_failing_source_ends_the_copy_unfinished(workers: int) -> None:
    sink = MemoryDisk(8 * MIB)
    source = filled(FailingSource(8 * MIB))
    with pytest.raises(DiskLost):
        copy(source, sink, source.extents(dirty=False), workers=workers, chunk=MIB)
    assert not sink.finished


def test_the_error_of_the_sink_wins() -> None:
    source = filled(FailingSource(8 * MIB))
    with pytest.raises(TargetFull):
        copy(source, FullSink(8 * MIB), source.extents(dirty=False), workers=4, chunk=MIB)


def test_extents_that_fail_fail_the_copy() -> None:
    def extents() -> object:
        yield Extent(0, MIB, False)
        raise DiskLost(verb="read", url="memory", reason="told to")

    with pytest.raises(DiskLost):
        copy(MemoryDisk(4 * MIB), MemoryDisk(4 * MIB), extents())  # type: ignore[arg-type]


def test_cancelling_ends_before_the_next_chunk() -> None:
    source, sink = filled(MemoryDisk(16 * MIB)), MemoryDisk(16 * MIB)
    stop = threading.Event()
    moved = []

    def progress(covered: int, so_far: int) -> None:
        moved.append(so_far)
        stop.set()

    with pytest.raises(Cancelled):
        copy(source, sink, source.extents(dirty=False), workers=2, chunk=MIB, progress=progress, cancelled=stop.is_set)
    assert moved[-1] <= 2 * MIB
    assert not sink.finished


def test_an_error_in_the_callback_is_not_swallowed() -> None:
    def progress(covered: int, moved: int) -> None:
        raise RuntimeError("from the caller")

    with pytest.raises(RuntimeError, match="from the caller"):
        copy(filled(MemoryDisk(MIB)), MemoryDisk(MIB), [Extent(0, MIB, False)], progress=progress)


def test_a_smaller_sink_is_refused() -> None:
    with pytest.raises(SizesDiffer):
        copy(MemoryDisk(2 * MIB), MemoryDisk(MIB), [])


def test_no_thread_is_left() -> None:
    before = threading.active_count()
    source = filled(FailingSource(8 * MIB))
    with pytest.raises(DiskLost):
        copy(source, MemoryDisk(8 * MIB), source.extents(dirty=False), workers=4, chunk=MIB)
    assert threading.active_count() == before
