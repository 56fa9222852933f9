# SPDX-License-Identifier: GPL-3.0-or-later
"""Refcounts of the clusters of an image file: those it stores, and those that its tables make."""

from __future__ import annotations

import numpy as np

from overkeep.blocks.qcow2.entries import numbers
from overkeep.blocks.qcow2.findings import Fault, Findings
from overkeep.blocks.qcow2.image import ImageFile
from overkeep.blocks.qcow2.refcounts import touched_by
from overkeep.blocks.qcow2.runs import Bools, Bytes8, Unsigned

_OFFSET, _RESERVED = np.uint64(0xFFFF_FFFF_FFFF_FE00), np.uint64(0x1FF)
_BATCH = 1 << 18  # clusters looked at in one go


class StoredRefcounts:
    """The refcount blocks of an image; errors of their table are noted when it is loaded.

    `file_clusters` is how many clusters the file has, the last perhaps in part.
    """

    def __init__(self, image: ImageFile, findings: Findings, file_clusters: int) -> None:
        header = image.header
        self._image = image
        self.per_block = header.cluster * 8 >> header.refcount_order
        entries = numbers(image.peek(header.refcount_offset, header.refcount_clusters * header.cluster))
        offsets = entries & _OFFSET
        reserved = (entries & _RESERVED) != 0
        misaligned = ~reserved & (offsets % np.uint64(header.cluster) != 0)
        outside = ~reserved & ~misaligned & (offsets >> np.uint64(header.cluster_bits) >= file_clusters)
        findings.add_all(Fault.RESERVED_BITS, entries[reserved])
        findings.add_all(Fault.MISALIGNED, offsets[misaligned])
        findings.add_all(Fault.OUTSIDE, offsets[outside])
        self.blocks: Unsigned = offsets[~(reserved | misaligned | outside) & (offsets != 0)]
        """Where the blocks are, those left out that cannot be."""
        self._lookup = np.where(misaligned, np.uint64(0), offsets)

    def some(self, first: int, count: int) -> Unsigned:
        """The refcounts of `count` clusters of the file from number `first` on; 0 where no block tells."""
        found = np.zeros(count, np.uint64)
        cluster = first
        while cluster < first + count:
            index, skipped = divmod(cluster, self.per_block)
            length = min(self.per_block - skipped, first + count - cluster)
            if index >= len(self._lookup):
                break
            if self._lookup[index]:
                part = self._part(int(self._lookup[index]), skipped, length)
                found[cluster - first : cluster - first + length] = part
            cluster += length
        return found

    def _part(self, block: int, first: int, count: int) -> Unsigned:
        """Some of the refcounts in the block at an offset of the file; a whole one may have 16 million."""
        order = self._image.header.refcount_order
        begin, end = (first << order) // 8, -(-((first + count) << order) // 8)
        skipped = first - (begin * 8 >> order)
        return unpacked(self._image.peek(block + begin, end - begin), order)[skipped : skipped + count]

    def single(self, clusters: int) -> Bytes8:
        """For each of the first `clusters` of the file whether its refcount is 1."""
        result = np.zeros(clusters, np.uint8)
        for first in range(0, clusters, _BATCH):
            part = result[first : first + _BATCH]
            part[:] = self.some(first, len(part)) == 1
        return result


def unpacked(block: bytes | bytearray, order: int) -> Unsigned:
    """The refcounts in a block, each 2^`order` bits wide."""
    if order >= 3:
        return np.frombuffer(block, f">u{1 << order >> 3}").astype(np.uint64)
    width = 1 << order
    shifts = np.arange(0, 8, width, dtype=np.uint8)  # the first of a byte is in its lowest bits
    parts = (np.frombuffer(block, np.uint8)[:, None] >> shifts) & np.uint8((1 << width) - 1)
    return parts.ravel().astype(np.uint64)


class References:
    """Counts how often each cluster of the file is named; what ends behind the file is noted and not counted.

    The last cluster may end behind the file, as QEMU leaves it.
    """

    def __init__(self, image: ImageFile, findings: Findings, file_clusters: int) -> None:
        self._bits = image.header.cluster_bits
        self._end = image.file_size + image.header.cluster
        self._findings = findings
        self.file_clusters = file_clusters
        self.counts = np.zeros(file_clusters + 1, np.uint32)

    def add(self, offset: int, length: int) -> None:
        """Count a stretch of the file once."""
        if offset + length >= self._end:
            self._findings.add(Fault.OUTSIDE, offset)
        elif length:
            self.counts[offset >> self._bits : ((offset + length - 1) >> self._bits) + 1] += np.uint32(1)

    def add_all(self, offsets: Unsigned, lengths: Unsigned, *, times: int = 1) -> None:
        """Count stretches of the file, each of at least one byte and at most a few clusters, each of them `times`."""
        inside = offsets + lengths < np.uint64(self._end)
        self._findings.add_all(Fault.OUTSIDE, offsets[~inside])
        starts, ends = offsets[inside].astype(np.int64), (offsets + lengths)[inside].astype(np.int64)
        for clusters in touched_by(starts, ends, 1 << self._bits):
            np.add.at(self.counts, clusters, np.uint32(times))

    def compare(self, stored: StoredRefcounts) -> None:
        """Note where the file stores another refcount than its tables make."""
        total = len(self.counts) if self.counts[self.file_clusters] else self.file_clusters
        for first in range(0, total, _BATCH):
            counted = self.counts[first : min(total, first + _BATCH)].astype(np.uint64)
            said = stored.some(first, len(counted))
            self._note(Fault.LEAK, said > counted, first)
            self._note(Fault.OVERLAP, (said < counted) & (counted > 1), first)
            self._note(Fault.UNCOUNTED, (said < counted) & (counted == 1), first)

    def _note(self, fault: Fault, where: Bools, first: int) -> None:
        numbers = (np.flatnonzero(where) + first).astype(np.uint64)
        self._findings.add_all(fault, numbers << np.uint64(self._bits))
