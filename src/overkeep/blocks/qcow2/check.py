# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks the structure of one image file: every table, and every cluster's refcount against what names it.

It finds what `qemu-img check` finds, and changes nothing. Arrays keep 5 bytes for each cluster of the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from overkeep.blocks.errors import ImageUnsupported
from overkeep.blocks.qcow2.counting import References, StoredRefcounts
from overkeep.blocks.qcow2.entries import Table, native, numbers
from overkeep.blocks.qcow2.findings import Fault, Findings, Report
from overkeep.blocks.qcow2.image import ImageFile
from overkeep.blocks.qcow2.layout import COMPRESSED, COPIED, OFFSET_MASK, SUBCLUSTERS, ZERO
from overkeep.blocks.qcow2.lists import BadList, Listed, bitmaps, snapshots
from overkeep.blocks.qcow2.packed import PackedEntries
from overkeep.blocks.qcow2.runs import Unsigned
from overkeep.units import MIB, align_up

_MOST_CLUSTERS = 1 << 28  # of the file: 16 TiB with clusters of 64 KiB, and 1.3 GiB of memory
_BATCH_BYTES = MIB  # of tables looked at in one go

_COPIED, _COMPRESSED, _OFFSET, _ZERO, _ONE = (np.uint64(bits) for bits in (COPIED, COMPRESSED, OFFSET_MASK, ZERO, 1))
_L1_RESERVED = np.uint64(0x7F00_0000_0000_01FF)
_L2_RESERVED = np.uint64(0x3F00_0000_0000_01FE)
_BITMAP_RESERVED = np.uint64(0xFF00_0000_0000_01FE)
_ALLOCATED, _SHIFT = np.uint64((1 << SUBCLUSTERS) - 1), np.uint64(SUBCLUSTERS)
_ALL_ZERO = np.uint64(((1 << SUBCLUSTERS) - 1) << SUBCLUSTERS)


def check_image(folder: Path, name: str, *, cached: bool = True, watch: Callable[[], None] = lambda: None) -> Report:
    """Check the image file `name` in `folder`; its backing image is not looked at. `cached` as for `ImageFile`.

    `watch` is called again and again meanwhile, and may raise.
    Raises what `ImageFile` raises for a file that is no image at all, and `ImageUnsupported` for one of more than
    2^28 clusters.
    """
    image = ImageFile(folder, name, cached=cached)
    try:
        return _Check(image, watch).run()
    finally:
        image.close()


@dataclass(frozen=True)
class _Tables:
    """L2 tables that are named equally often: by the active L1 table, or by those of snapshots alone."""

    offsets: Unsigned
    times: int
    active: bool


class _Check:
    def __init__(self, image: ImageFile, watch: Callable[[], None]) -> None:
        self._watch = watch
        clusters = -(-image.file_size // image.header.cluster)
        if clusters > _MOST_CLUSTERS:
            raise ImageUnsupported(file=image.name, feature=f"{clusters} clusters")
        self._image, self._header = image, image.header
        self._findings = Findings()
        self._stored = StoredRefcounts(image, self._findings, clusters)
        self._references = References(image, self._findings, clusters)
        self._single = self._stored.single(clusters + 1)
        self._packed = PackedEntries(self._header.cluster)
        self._counts: Counter[str] = Counter()

    def run(self) -> Report:
        self._references.add(0, self._header.cluster)
        for tables in self._l2_tables():
            self._walk(tables)
        self._count_bitmaps()
        self._count_refcounts()
        self._references.compare(self._stored)
        found = self._findings.counts
        return Report(
            file=self._image.name,
            errors=found.total() - found[Fault.LEAK],
            leaks=found[Fault.LEAK],
            findings=tuple(self._findings.first),
            data=self._counts["data"],
            zero=self._counts["zero"],
            compressed=self._counts["compressed"],
        )

    def _l2_tables(self) -> Iterator[_Tables]:
        """Count the L1 tables, and yield the L2 tables that they name, each once."""
        active = self._l1(Listed(self._header.l1_offset, self._header.l1_entries))
        self._check_copied(active[active & _OFFSET != 0])
        named = active & _OFFSET
        others = [self._l1(listed) & _OFFSET for listed in self._snapshots()]
        offsets, times = np.unique(np.concatenate((named, *others)), return_counts=True)
        is_active = np.isin(offsets, named)
        for kind in np.unique(times * 2 + is_active).tolist():
            yield _Tables(offsets[(times * 2 + is_active) == kind], kind // 2, bool(kind % 2))

    def _l1(self, listed: Listed) -> Unsigned:
        """Count an L1 table; return its entries that name something."""
        if listed.offset % self._header.cluster:
            self._findings.add(Fault.MISALIGNED, listed.offset)
            return np.zeros(0, np.uint64)
        self._references.add(listed.offset, listed.entries * 8)
        entries = self._used(listed)
        self._findings.add_all(Fault.RESERVED_BITS, entries[entries & _L1_RESERVED != 0])
        return entries

    def _used(self, listed: Listed) -> Unsigned:
        """The entries of a table that are not empty; none are behind the end of the file."""
        length = min(listed.entries * 8, align_up(max(0, self._image.file_size - listed.offset), 8))
        parts = (
            numbers(self._image.peek(listed.offset + skipped, min(_BATCH_BYTES, length - skipped)))
            for skipped in range(0, length, _BATCH_BYTES)
        )
        return np.concatenate([part[np.flatnonzero(part)] for part in parts] or [np.zeros(0, np.uint64)])

    def _snapshots(self) -> list[Listed]:
        try:
            found, length = snapshots(self._image)
        except BadList as error:
            self._findings.add(Fault.LISTS, error.offset)
            return []
        self._references.add(self._header.snapshots_offset, length)
        return found

    def _count_bitmaps(self) -> None:
        if not self._header.bitmaps:
            return
        self._references.add(self._header.bitmaps_offset, self._header.bitmaps_bytes)
        try:
            found = bitmaps(self._image)
        except BadList as error:
            self._findings.add(Fault.LISTS, error.offset)
            return
        for listed in found:
            self._references.add(listed.offset, listed.entries * 8)
            entries = self._used(listed)
            offsets = entries & _OFFSET
            bad = (entries & _BITMAP_RESERVED != 0) | (offsets % np.uint64(self._header.cluster) != 0)
            bad |= (offsets != 0) & (entries & _ONE != 0)
            self._findings.add_all(Fault.LISTS, entries[bad])
            self._add_clusters(offsets[~bad & (offsets != 0)])

    def _count_refcounts(self) -> None:
        header, blocks = self._header, self._stored.blocks
        self._references.add(header.refcount_offset, header.refcount_clusters * header.cluster)
        self._add_clusters(blocks)
        clusters = blocks >> np.uint64(header.cluster_bits)
        self._findings.add_all(Fault.REFCOUNTS, blocks[self._references.counts[clusters] != 1])

    def _add_clusters(self, offsets: Unsigned, *, times: int = 1) -> None:
        self._references.add_all(offsets, np.full(len(offsets), self._header.cluster, np.uint64), times=times)

    def _walk(self, tables: _Tables) -> None:
        """Count tables and all that they name."""
        self._findings.add_all(Fault.MISALIGNED, tables.offsets[tables.offsets % np.uint64(self._header.cluster) != 0])
        self._add_clusters(tables.offsets, times=tables.times)
        for table in self._read(tables.offsets):
            self._watch()
            self._check_entries(table, tables)

    def _read(self, offsets: Unsigned) -> Iterator[Table]:
        """Read tables, those that follow one another in the file at once, and cut them into pieces of bounded size."""
        cluster = self._header.cluster
        most = max(1, _BATCH_BYTES // cluster)
        breaks = np.flatnonzero(np.diff(offsets) != cluster) + 1
        for begin, end in zip([0, *breaks.tolist()], [*breaks.tolist(), len(offsets)], strict=True):
            for first in range(begin, end, most):
                length = (min(end, first + most) - first) * cluster
                yield from self._pieces(int(offsets[first]), length)

    def _pieces(self, offset: int, length: int) -> Iterator[Table]:
        for skipped in range(0, length, _BATCH_BYTES):
            yield native(self._image.peek(offset + skipped, min(_BATCH_BYTES, length - skipped)), self._header)

    def _check_entries(self, table: Table, tables: _Tables) -> None:
        held = table.entries != 0
        if table.bitmaps is not None:
            held |= table.bitmaps != 0
        if not held.any():
            return
        entries = table.entries[held]
        maps = None if table.bitmaps is None else table.bitmaps[held]
        packed = entries & _COMPRESSED != 0
        places = np.where(packed, np.uint64(0), entries & _OFFSET)
        self._findings.add_all(Fault.RESERVED_BITS, entries[~packed & (entries & _L2_RESERVED != 0)])
        self._check_packed(entries[packed], None if maps is None else maps[packed], times=tables.times)
        if maps is not None:
            self._check_bitmaps(entries[~packed], places[~packed], maps[~packed])
        placed = places[places != 0]
        self._findings.add_all(Fault.MISALIGNED, placed[placed % np.uint64(self._header.cluster) != 0])
        self._add_clusters(placed, times=tables.times)
        if tables.active:
            self._check_copied(entries[places != 0])
            zero = entries & _ZERO != 0 if maps is None else maps == _ALL_ZERO
            self._counts.update(data=len(placed), compressed=int(packed.sum()), zero=int((zero & ~packed).sum()))

    def _check_packed(self, entries: Unsigned, maps: Unsigned | None, *, times: int) -> None:
        self._findings.add_all(Fault.COPIED_FLAG, entries[entries & _COPIED != 0])
        if maps is not None:
            self._findings.add_all(Fault.SUBCLUSTERS, entries[maps != 0])
            entries = entries[maps == 0]
        self._references.add_all(self._packed.offsets(entries), self._packed.greatest(entries), times=times)

    def _check_bitmaps(self, entries: Unsigned, places: Unsigned, maps: Unsigned) -> None:
        allocated, zero = maps & _ALLOCATED, maps >> _SHIFT
        wrong = (allocated & zero != 0) | ((places == 0) & (allocated != 0))
        self._findings.add_all(Fault.SUBCLUSTERS, entries[wrong])

    def _check_copied(self, entries: Unsigned) -> None:
        """Hold the flag that a cluster is named once against the refcount that the file stores."""
        clusters = (entries & _OFFSET) >> np.uint64(self._header.cluster_bits)
        known = clusters < len(self._single)
        single = np.zeros(len(entries), np.uint8)
        single[known] = self._single[clusters[known].astype(np.intp)]
        self._findings.add_all(Fault.COPIED_FLAG, entries[(single != 0) != (entries & _COPIED != 0)])
