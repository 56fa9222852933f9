# SPDX-License-Identifier: GPL-3.0-or-later
"""What a disk should hold, by digest: composed along a chain without reading its data."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from overkeep.blocks.buffers import CLUSTER, aligned_buffer
from overkeep.blocks.digests import Digests, Row, row, sums_name, zero_row
from overkeep.blocks.errors import DigestsDamaged, TargetMissing
from overkeep.blocks.flags import runs
from overkeep.blocks.hashing import Hashing, fresh
from overkeep.blocks.qcow2.reader import ChainReader
from overkeep.logs import fields
from overkeep.units import MIB

_READ = 2 * MIB

log = logging.getLogger(__name__)


class Expected(Protocol):
    """Digests of a disk, by cluster. Safe for several threads."""

    @property
    def hashing(self) -> Hashing:
        """What makes these digests."""

    def range(self, first: int, count: int) -> Row:
        """Digests of `count` clusters from number `first` on."""


@dataclass
class _Layer:
    """One image of the chain: its name, the size of its disk, and its digests unless there are none."""

    image: str
    size: int
    digests: Digests | None

    def leave_unless(self, hashing: Hashing) -> None:
        """Do without digests that others than `hashing` made: nothing can be told from comparing them."""
        if self.digests is not None and self.digests.hashing != hashing:
            self.digests = None

    def held(self, first: int, count: int) -> Row | None:
        """Digests of what this image holds; None when they are not known, or turn out to be damaged."""
        try:
            return None if self.digests is None else self.digests.range(first, count)
        except DigestsDamaged as error:
            _tell(self.image, error)
            self.digests = None
            return None


class ChainDigests:
    """Digests of the disk that the chain of image `name` makes; the clusters of an image without digests are read.

    Close it after use. Raises what `ChainReader` raises.
    """

    def __init__(self, folder: Path, name: str) -> None:
        with ExitStack() as stack:
            self._reader = ChainReader(folder, name)
            stack.callback(self._reader.close)
            self._layers = []
            for image, size in zip(self._reader.names, self._reader.sizes, strict=True):
                digests = open_digests(folder, image, size)
                if digests is not None:
                    stack.callback(digests.close)
                self._layers.append(_Layer(image, size, digests))
            newest = self._layers[0].digests
            self.hashing = newest.hashing if newest else fresh()
            for layer in self._layers:
                layer.leave_unless(self.hashing)
            self._stack = stack.pop_all()

    @property
    def size(self) -> int:
        """Virtual size of the disk in bytes."""
        return self._reader.size

    def range(self, first: int, count: int) -> Row:
        """Digests of `count` clusters from number `first` on, all of them known."""
        found = np.zeros((count, 2), dtype=np.uint64)
        missing = np.ones(count, dtype=bool)
        starts = np.arange(first, first + count, dtype=np.uint64) * np.uint64(CLUSTER)
        for layer in self._layers:
            _settle(found, missing, missing & (starts >= layer.size), zero_row(count))
            held = layer.held(first, count) if missing.any() else None
            if held is None:
                break
            _settle(found, missing, missing & held.any(axis=1), held)
        else:
            _settle(found, missing, missing.copy(), zero_row(count))
        for start, end in runs(missing):
            found[start:end] = self._read(first + start, first + end)
        return found

    def _read(self, first: int, end: int) -> Row:
        parts = []
        for at in range(first * CLUSTER, min(end * CLUSTER, self._reader.size), _READ):
            data = aligned_buffer(min(_READ, end * CLUSTER - at, self._reader.size - at))
            self._reader.read_into(at, data)
            parts.append(self.hashing.of(data))
        return row(b"".join(parts))

    def close(self) -> None:
        """Release the files; may be called twice."""
        self._stack.close()


def _settle(found: Row, missing: NDArray[np.bool_], which: NDArray[np.bool_], values: Row) -> None:
    """Take `which` lines from `values`; they are no longer `missing`."""
    found[which] = values[which]
    missing &= ~which


def hashing_upon(folder: Path, backing: str | None) -> Hashing:
    """What makes the digests of an image upon `backing`: what made those below, so that they compose."""
    known = hashing_of(folder, backing) if backing is not None else None
    return known or fresh()


def hashing_of(folder: Path, image: str) -> Hashing | None:
    """What made the digests beside an image; None when there are none."""
    digests = _opened(folder, image)
    if digests is None:
        return None
    digests.close()
    return digests.hashing


def open_digests(folder: Path, image: str, size: int) -> Digests | None:
    """Open the digests beside an image of a disk of `size` bytes; None when there are none.

    Those that are damaged, or of another disk, are as good as none.
    """
    digests = _opened(folder, image)
    if digests is None or digests.size == size:
        return digests
    digests.close()
    _tell(image, DigestsDamaged(file=sums_name(image), reason=f"it is of a disk of {digests.size} bytes, not {size}"))
    return None


def _opened(folder: Path, image: str) -> Digests | None:
    try:
        return Digests(folder / sums_name(image))
    except TargetMissing:
        return None
    except DigestsDamaged as error:
        _tell(image, error)
        return None


def _tell(image: str, error: DigestsDamaged) -> None:
    log.warning("digests not used %s", fields(image=image, reason=repr(str(error))))
