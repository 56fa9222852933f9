# SPDX-License-Identifier: GPL-3.0-or-later
"""Giving a part of a file back to its file system."""

from __future__ import annotations

import ctypes
import errno
import os

_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_NOT_POSSIBLE = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV)

_fallocate = ctypes.CDLL(None, use_errno=True).fallocate64
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_fallocate.restype = ctypes.c_int


def punch(handle: int, offset: int, length: int) -> bool:
    """Make a hole in a file, whose size stays; False when its file system cannot. Raises `OSError`.

    NFS can from version 4.2 on.
    """
    if not _fallocate(handle, _KEEP_SIZE | _PUNCH_HOLE, offset, length):
        return True
    number = ctypes.get_errno()
    if number in _NOT_POSSIBLE:
        return False
    raise OSError(number, os.strerror(number))
