# SPDX-License-Identifier: GPL-3.0-or-later
"""An image of a repository as an end of a copy: the QCOW2 file together with its digests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.digests import DigestWriter, check_range, row, sums_name, zero_row
from overkeep.blocks.ends import UNLIMITED, Piece
from overkeep.blocks.expected import Expected, hashing_upon
from overkeep.blocks.flags import runs
from overkeep.blocks.hashing import DIGEST
from overkeep.blocks.qcow2.form import PLAIN, Form
from overkeep.blocks.qcow2.reader import ChainReader
from overkeep.blocks.qcow2.writer import ImageWriter
from overkeep.blocks.stages import Stages
from overkeep.errors import Conflict

__all__ = ["ChainReader", "ImageSink", "sums_name"]


class ImageSink:
    """A sink that makes `name` and its digests in `folder`; arguments and errors as of `ImageWriter`.

    With `parent`, what the backing image's disk holds, only clusters that differ from it are kept: an overlay of a disk
    that does not tell what changed is as small as one of a disk that does.
    When it is `new`, an image of that name that has come meanwhile is not replaced: `finish` raises `Conflict`.
    """

    parallel = UNLIMITED

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        size: int,
        backing: str | None = None,
        parent: Expected | None = None,
        new: bool = False,
        form: Form = PLAIN,
        stages: Stages | None = None,
    ) -> None:
        self._stages = stages or Stages()
        self._image = ImageWriter(folder, name, size=size, backing=backing, form=form, stages=self._stages)
        self._name = folder / name
        self._new = new
        self._overlay = backing is not None
        self._parent = parent
        self._group = form.cluster // CLUSTER
        try:
            hashing = parent.hashing if parent else hashing_upon(folder, backing)
            self._digests = DigestWriter(folder / sums_name(name), size=size, hashing=hashing)
        except BaseException:
            self._image.close()
            raise

    @property
    def size(self) -> int:
        """Virtual size in bytes."""
        return self._image.size

    @property
    def stored(self) -> int:
        """Bytes of the image file so far."""
        return self._image.stored

    def write(self, offset: int, data: memoryview) -> None:
        """Write `data` and keep its digests."""
        self.write_each([(offset, data)])

    def write_each(self, pieces: Sequence[Piece]) -> None:
        """Write all `pieces` and keep their digests."""
        with self._stages.spent("digest"):
            kept = [each for offset, data in pieces for each in self._digested(offset, data)]
        if kept:
            self._image.write_each(kept)

    def _digested(self, offset: int, data: memoryview) -> Iterator[Piece]:
        """Keep the digests of what of `data` must be kept, and yield that."""
        first, count = check_range(offset, len(data), self.size)
        digests = self._digests.hashing.of(data)
        kept = self._kept(first, row(digests))
        for start, end in kept if kept is not None else ((0, count),):
            self._digests.put(first + start, digests[start * DIGEST : end * DIGEST])
            yield offset + start * CLUSTER, data[start * CLUSTER : end * CLUSTER]

    def zero(self, offset: int, length: int) -> None:
        """Let a run read as zeroes; in a full image such clusters are absent, also among the digests."""
        first, count = check_range(offset, length, self.size)
        kept = self._kept(first, zero_row(count))
        if kept is None:
            self._zero(offset, length)
            return
        for start, end in kept:
            self._zero(offset + start * CLUSTER, min(end * CLUSTER, length) - start * CLUSTER)

    def _kept(self, first: int, digests: NDArray[np.uint64]) -> list[tuple[int, int]] | None:
        """The runs of clusters that must be kept of those from `first` on; None for all."""
        if self._parent is None:
            return None
        differ = (self._parent.range(first, len(digests)) != digests).any(axis=1)
        return list(runs(_grouped(differ, self._group)))

    def _zero(self, offset: int, length: int) -> None:
        first, count = check_range(offset, length, self.size)
        if self._overlay:
            self._digests.put_zeroes(first, count)
        else:
            self._digests.forget(first, count)
        self._image.zero(offset, length)

    def clone(self) -> ImageSink:
        """Return this sink: it is safe for several threads."""
        return self

    def finish(self) -> None:
        """Make digests and image durable and give them their names, the image last."""
        if self._new and self._name.exists():
            raise Conflict(what=f"The image {self._name} was made by somebody else meanwhile", todo="use another name")
        self._digests.finish()
        self._image.finish()

    def close(self) -> None:
        """Remove what is unfinished; nothing happens after `finish`."""
        self._digests.close()
        self._image.close()


def _grouped(flags: NDArray[np.bool_], group: int) -> NDArray[np.bool_]:
    """Let all clusters of a larger cluster of the image differ when one does."""
    if group == 1:
        return flags
    padded = np.zeros(-(-len(flags) // group) * group, dtype=bool)
    padded[: len(flags)] = flags
    return np.repeat(padded.reshape(-1, group).any(axis=1), group)[: len(flags)]
