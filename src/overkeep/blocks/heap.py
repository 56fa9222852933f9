# SPDX-License-Identifier: GPL-3.0-or-later
"""How the C library keeps the memory of a process that copies disks with several threads."""

from __future__ import annotations

import ctypes

from overkeep.units import MIB

# Of <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8

# Larger than all that is made and forgotten at once, smaller than the tables of a large disk.
_TABLE = 4 * MIB
_SPARE = 8 * MIB


def share() -> None:
    """Have all threads take memory from one heap, and large tables go back to the system as soon as they are forgotten.

    Otherwise each thread has a heap of its own that keeps what its busiest copy once needed: eight threads take turns
    at holding the same cache. The lock of the one heap costs nothing where the interpreter has one already. Call it
    before the first thread; where the C library has no such settings nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for setting, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _TABLE), (_TRIM_THRESHOLD, _SPARE)):
        mallopt(setting, value)
