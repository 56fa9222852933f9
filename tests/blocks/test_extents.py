# SPDX-License-Identifier: GPL-3.0-or-later
"""Extents against a model that looks at every sector."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from overkeep.blocks.buffers import CLUSTER, aligned_buffer, is_zero, zero_runs
from overkeep.blocks.ends import Extent
from overkeep.blocks.extents import ZERO_STEP, PackedExtents, Status, batches, chunks, dirty_clusters, joined, widened
from overkeep.units import MIB

SECTOR = 4096
PER = CLUSTER // SECTOR
statuses = st.lists(
    st.builds(
        Status,
        length=st.integers(1, 3 * PER).map(lambda count: count * SECTOR),
        dirty=st.booleans(),
        zero=st.booleans(),
    ),
    max_size=40,
)


@given(statuses)
def test_clusters_are_dirty_when_anything_is_and_zero_only_when_all_is(given_statuses: list[Status]) -> None:
    sectors = [(s.dirty, s.zero) for s in given_statuses for _ in range(s.length // SECTOR)]
    expected = {}
    for first in range(0, len(sectors), PER):
        cluster = sectors[first : first + PER]
        if any(dirty for dirty, _ in cluster):
            expected[first * SECTOR] = (len(cluster) * SECTOR, all(zero for _, zero in cluster))
    found = {}
    result = list(dirty_clusters(given_statuses))
    for extent in result:
        assert extent.start % CLUSTER == 0
        for at in range(extent.start, extent.end, CLUSTER):
            found[at] = (min(CLUSTER, extent.end - at), extent.zero)
    assert found == expected
    for before, after in itertools.pairwise(result):
        assert before.end < after.start or before.zero != after.zero, "neighbours that agree are one extent"


@given(statuses, st.sampled_from([1, 2, 8]))
def test_widened_extents_cover_larger_clusters_whole(given_statuses: list[Status], group: int) -> None:
    size = sum(status.length for status in given_statuses)
    extents = list(dirty_clusters(given_statuses))
    small = {at: e.zero for e in extents for at in range(e.start, e.end, CLUSTER)}
    large = {}
    for extent in widened(extents, group * CLUSTER, size):
        assert extent.start % (group * CLUSTER) == 0
        assert extent.end % (group * CLUSTER) == 0 or extent.end == size
        large.update(dict.fromkeys(range(extent.start, extent.end, CLUSTER), extent.zero))
    for first in range(0, size, group * CLUSTER):
        cluster = range(first, min(first + group * CLUSTER, size), CLUSTER)
        if not any(at in small for at in cluster):
            assert not any(at in large for at in cluster)
        else:
            zero = all(small.get(at, False) for at in cluster)
            assert [large.get(at) for at in cluster] == [zero] * len(cluster)


@given(st.lists(st.builds(Extent, st.integers(0, 1 << 60), st.integers(1, 1 << 60), st.booleans())))
def test_packed_extents_are_the_extents(extents: list[Extent]) -> None:
    packed = PackedExtents(extents)
    assert list(packed) == extents
    assert packed.total == sum(extent.length for extent in extents)


def test_scattered_extents_take_two_bytes_each() -> None:
    every_other = [Extent(2 * at * CLUSTER, CLUSTER, False) for at in range(10_000)]
    assert PackedExtents(every_other).nbytes == 2 * len(every_other)
    long = [Extent(100 * MIB * at, 64 * MIB, at % 2 == 0) for at in range(1000)]
    assert PackedExtents(long).nbytes <= 5 * len(long)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40), st.booleans()), max_size=20), st.sampled_from([1, 4, 16])
)
def test_chunks_cover_the_same_and_are_never_longer(parts: list[tuple[int, int, bool]], clusters: int) -> None:
    extents, position = [], 0
    for gap, length, zero in parts:
        extents.append(Extent(position + gap * CLUSTER, length * CLUSTER, zero))
        position = extents[-1].end
    pieces = list(chunks(extents, clusters * CLUSTER))
    assert list(joined(pieces)) == list(joined(extents))
    assert all(piece.zero or piece.length <= clusters * CLUSTER for piece in pieces)


PARTS = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 40), st.booleans()), max_size=80)


@given(PARTS, st.integers(1, 8))
def test_batches_are_the_pieces_in_order_and_never_too_large(parts: list[tuple[int, int, bool]], clusters: int) -> None:
    position, extents = 0, []
    for gap, length, zero in parts:
        extents.append(Extent(position + gap * CLUSTER, length * CLUSTER, zero))
        position = extents[-1].end
    chunk = clusters * CLUSTER
    pieces = list(chunks(extents, chunk))
    groups = list(batches(pieces, chunk))
    assert [piece for group in groups for piece in group] == pieces
    for group, following in itertools.zip_longest(groups, groups[1:]):
        data = sum(piece.length for piece in group if not piece.zero)
        assert group
        assert data <= chunk
        assert len(group) <= 64
        if following is not None and not following[0].zero:  # no more would have fitted
            assert len(group) == 64 or data + following[0].length > chunk


def test_a_long_run_of_zeroes_is_cut() -> None:
    tib = 1 << 40
    pieces = list(chunks([Extent(0, tib, True)], CLUSTER))
    assert len(pieces) == tib // ZERO_STEP
    assert pieces[-1].end == tib


@given(st.lists(st.sampled_from([b"\0" * CLUSTER, b"\0" * (CLUSTER - 1) + b"x", b"x" + b"\0" * (CLUSTER - 1)])))
def test_zero_runs_find_single_bytes(clusters: list[bytes]) -> None:
    data = b"".join(clusters)
    buffer = aligned_buffer(max(1, len(data)))[: len(data)]
    buffer[:] = data
    for view in (buffer, memoryview(data)):
        flags = [zero for start, end, zero in zero_runs(view) for _ in range((end - start) // CLUSTER)]
        assert flags == [not any(cluster) for cluster in clusters]
        assert is_zero(view) == (not any(data))


def test_the_short_end_of_a_disk_is_looked_at() -> None:
    data = bytearray(CLUSTER + 512)
    assert list(zero_runs(memoryview(data))) == [(0, CLUSTER + 512, True)]
    data[-1] = 1
    assert list(zero_runs(memoryview(data))) == [(0, CLUSTER, True), (CLUSTER, CLUSTER + 512, False)]
