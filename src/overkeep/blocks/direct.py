# SPDX-License-Identifier: GPL-3.0-or-later
"""Passing the page cache by, where the file system lets one."""

from __future__ import annotations

import errno
import fcntl
import os


def set_direct(handle: int, *, wanted: bool) -> bool:
    """Turn O_DIRECT on or off for an open file; return whether it is on after this. Raises `OSError`."""
    flags = fcntl.fcntl(handle, fcntl.F_GETFL)
    try:
        fcntl.fcntl(handle, fcntl.F_SETFL, flags | os.O_DIRECT if wanted else flags & ~os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return wanted
