# SPDX-License-Identifier: GPL-3.0-or-later
"""`python rotten.py BELOW MOUNTPOINT SUFFIX OFFSET`: a file system that stores well and returns one byte wrong.

What is written goes to the folder BELOW as it is. In whatever is read of a file whose name ends with SUFFIX, the byte
at OFFSET (from the end, when negative) is another one, as on a server with a bad disk.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import mfusepy


class Rotten(mfusepy.Operations):
    """Every call goes to the folder below."""

    def __init__(self, below: Path, suffix: str, offset: int) -> None:
        self._below = below
        self._suffix = suffix
        self._offset = offset

    def _path(self, path: str) -> Path:
        return self._below / path.lstrip("/")

    def getattr(self, path: str, fh: int | None = None) -> dict[str, object]:
        found = os.lstat(self._path(path))
        names = ("st_mode", "st_ino", "st_nlink", "st_uid", "st_gid", "st_size", "st_atime", "st_mtime", "st_ctime")
        return {name: getattr(found, name) for name in names}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *(entry.name for entry in self._path(path).iterdir())]

    def mkdir(self, path: str, mode: int) -> int:
        self._path(path).mkdir(mode)
        return 0

    def create(self, path: str, mode: int, fi: object = None) -> int:
        return os.open(self._path(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def open(self, path: str, flags: int) -> int:
        return os.open(self._path(path), flags & ~os.O_DIRECT)

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        data = bytearray(os.pread(fh, size, offset))
        if path.endswith(self._suffix):
            at = self._offset if self._offset >= 0 else os.fstat(fh).st_size + self._offset
            if offset <= at < offset + len(data):
                data[at - offset] ^= 0xFF
        return bytes(data)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self._path(path), length)
        return 0

    def unlink(self, path: str) -> int:
        self._path(path).unlink()
        return 0

    def rename(self, old: str, new: str) -> int:
        self._path(old).rename(self._path(new))
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        os.fsync(fh)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._below)
        return {name: getattr(found, name) for name in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail")}


if __name__ == "__main__":
    below, mountpoint, suffix, offset = sys.argv[1:]
    mfusepy.FUSE(Rotten(Path(below), suffix, int(offset)), mountpoint, foreground=True, fsname="rotten")
