# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in a row of flags, one for each cluster of a disk or of a file."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_MOST = 1 << 20  # looked at in one go: the edges of a large disk, all at once, would fill the memory


def runs(flags: NDArray[np.bool_] | NDArray[np.uint8], *, equal: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield `(start, end)` of the runs of `flags` that are true, or that `equal` a number."""
    begin, last = -1, False
    for at in range(0, len(flags), _MOST):
        framed = np.empty(min(_MOST, len(flags) - at) + 1, bool)
        part = flags[at : at + _MOST]
        framed[0], framed[1:] = last, part if equal is None else part == equal
        for edge in (at + np.flatnonzero(framed[1:] != framed[:-1])).tolist():
            if begin >= 0:
                yield begin, edge
            begin = edge if begin < 0 else -1
        last = bool(framed[-1])
    if begin >= 0:
        yield begin, len(flags)
