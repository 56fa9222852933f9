# SPDX-License-Identifier: GPL-3.0-or-later
"""Free clusters of a file that is extended, given out in a way that depends only on what the file held before."""

from __future__ import annotations

import numpy as np

from overkeep.blocks.qcow2.runs import Bools, Signed

_WINDOW = 1 << 16  # clusters that are searched at once


class Space:
    """Gives out clusters that were free when the merge began, lowest first, and then those behind the end.

    `used` says of each cluster of the file whether it was in use. What the merge frees is not given out again: until
    the header is switched, the old tables need it.
    """

    def __init__(self, used: Bools) -> None:
        self._used = used
        self._searched = 0
        self.end = len(used)

    def take(self, count: int) -> Signed:
        """The numbers of `count` clusters, rising."""
        found = []
        while count and self._searched < len(self._used):
            window = self._used[self._searched : self._searched + _WINDOW]
            free = np.flatnonzero(~window)[:count]
            found.append(free + self._searched)
            self._searched += int(free[-1]) + 1 if len(free) == count else len(window)
            count -= len(free)
        found.append(np.arange(self.end, self.end + count))
        self.end += count
        return np.concatenate(found)

    def take_run(self, count: int) -> int:
        """The first of `count` clusters in a row."""
        if count == 1:
            return int(self.take(1)[0])
        self.end += count
        return self.end - count
