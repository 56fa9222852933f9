# SPDX-License-Identifier: GPL-3.0-or-later
"""The digests of a merged image, composed from those of the run; only what none of them tells is read and hashed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.copy import copy
from overkeep.blocks.digests import DIGEST, PER_PAGE, ZERO, Digests, DigestWriter, digests_of
from overkeep.blocks.ends import Extent
from overkeep.blocks.errors import DigestsDamaged, TargetMissing, UnsafeImage
from overkeep.blocks.image import sums_name
from overkeep.blocks.qcow2.held import HOLE, STRETCH, ZEROES
from overkeep.blocks.qcow2.image import ImageFile
from overkeep.blocks.qcow2.reader import ChainReader
from overkeep.blocks.qcow2.tables import PER_TABLE
from overkeep.blocks.qcow2.view import View
from overkeep.logs import fields

_PAGES = PER_TABLE // PER_PAGE  # of a stretch
_WORDS = DIGEST // 8
_ZERO = np.frombuffer(ZERO, np.uint64)

Words = NDArray[np.uint64]

log = logging.getLogger(__name__)


def write_digests(folder: Path, view: View, cancelled: Callable[[], bool]) -> None:
    """Give the newest image of `view` the digests of everything that its run shows; durable once this returns."""
    with ExitStack() as stack:
        known = [_known(folder, image, stack) for image in view.images]
        writer = stack.enter_context(closing(DigestWriter(folder / sums_name(view.images[0].name), size=view.size)))
        reader = stack.enter_context(closing(ChainReader(folder, view.images[0].name)))
        copy(reader, _Hashing(writer, view.size), _compose(view, known, writer), cancelled=cancelled)
        writer.finish()


class _Known:
    """The digests of one image, as far as they can be used."""

    def __init__(self, digests: Digests | None) -> None:
        self._digests = digests

    def of(self, stretch: int) -> Words:
        """Those of a stretch, two words each, zeroes where there is none."""
        if self._digests is not None:
            try:
                found = np.frombuffer(self._digests.pages(stretch * _PAGES, _PAGES), np.uint64)
                return found.reshape(PER_TABLE, _WORDS)
            except DigestsDamaged as error:
                log.warning("digests left out %s", fields(reason=error))
                self._digests = None
        return np.zeros((PER_TABLE, _WORDS), np.uint64)


def _known(folder: Path, image: ImageFile, stack: ExitStack) -> _Known:
    try:
        digests = stack.enter_context(closing(Digests(folder / sums_name(image.name))))
    except (DigestsDamaged, TargetMissing, UnsafeImage) as error:
        log.info("digests are made anew %s", fields(image=image.name, reason=error))
        return _Known(None)
    return _Known(digests if digests.size == image.header.size else None)


def _compose(view: View, known: list[_Known], writer: DigestWriter) -> Iterator[Extent]:
    """Write what is known, and yield what must be read."""
    for stretch in range(view.stretches):
        shown = view.shown(stretch)
        found = np.zeros((PER_TABLE, _WORDS), np.uint64)
        found[shown.kinds == ZEROES] = _ZERO
        for depth in np.unique(shown.providers[shown.kinds > ZEROES]).tolist():
            mine = (shown.providers == depth) & (shown.kinds > ZEROES)
            found[mine] = known[depth].of(stretch)[mine]
        _write(writer, stretch, found)
        missing = (shown.kinds != HOLE) & ~found.any(axis=1)
        yield from _extents(stretch, missing, view.size)


def _write(writer: DigestWriter, stretch: int, found: Words) -> None:
    for page in range(_PAGES):
        part = found[page * PER_PAGE : (page + 1) * PER_PAGE]
        if part.any():
            last = int(np.flatnonzero(part.any(axis=1))[-1]) + 1
            writer.put(stretch * PER_TABLE + page * PER_PAGE, part[:last].tobytes())


def _extents(stretch: int, chosen: NDArray[np.bool_], size: int) -> Iterator[Extent]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]])))
    for first, last in edges.reshape(-1, 2).tolist():
        start = stretch * STRETCH + first * CLUSTER
        yield Extent(start, min(stretch * STRETCH + last * CLUSTER, size) - start, False)


class _Hashing:
    """A sink that keeps the digests of what is written to it."""

    def __init__(self, writer: DigestWriter, size: int) -> None:
        self.size = size
        self._writer = writer

    def write(self, offset: int, data: memoryview) -> None:
        """Keep the digests of `data`."""
        self._writer.put(offset // CLUSTER, digests_of(data))

    def zero(self, offset: int, length: int) -> None:
        """Zeroes are known without being written."""
        raise NotImplementedError

    def clone(self) -> _Hashing:
        """Return this sink: it is safe for several threads."""
        return self

    def finish(self) -> None:
        """The writer is finished by whoever made it."""

    def close(self) -> None:
        """Nothing is held here."""
