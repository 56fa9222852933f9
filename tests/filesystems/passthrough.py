# SPDX-License-Identifier: GPL-3.0-or-later
"""A file system in user space that is a folder of another one, for those that spoil something of it."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path

import mfusepy

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)

_TIMES = ("st_atime", "st_mtime", "st_ctime")
_NUMBERS = ("st_mode", "st_ino", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks", "st_blksize")
_ROOM = ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail")


class Passthrough(mfusepy.Operations):
    """Every call goes to the folder `below`."""

    def __init__(self, below: Path) -> None:
        self._below = below

    def _path(self, path: str) -> Path:
        return self._below / path.lstrip("/")

    def serve(self, mountpoint: str, **options: object) -> None:
        """Be mounted until the standard input ends, as it does when those who need it are killed; obey its lines."""
        threading.Thread(target=self._listen, args=(mountpoint,), daemon=True).start()
        mfusepy.FUSE(self, mountpoint, foreground=True, hard_remove=True, **options)

    def _listen(self, mountpoint: str) -> None:
        for line in sys.stdin:
            sys.stdout.write(f"{self.obey(line)}\n")
            sys.stdout.flush()
        subprocess.run(["umount", "--lazy", mountpoint], check=False)
        os._exit(0)  # a name space of mounts that somebody made meanwhile would keep this one

    def obey(self, line: str) -> object:
        """Do what a line of the standard input says; return the answer. Here no line says anything."""
        return ""

    def getattr(self, path: str, fh: int | None = None) -> dict[str, object]:
        found = os.lstat(self._path(path)) if fh is None else os.fstat(fh)
        return {name: getattr(found, name) for name in (*_NUMBERS, *_TIMES)}

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._below)
        return {name: getattr(found, name) for name in _ROOM}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *(entry.name for entry in self._path(path).iterdir())]

    def mkdir(self, path: str, mode: int) -> int:
        self._path(path).mkdir(mode)
        return 0

    def rmdir(self, path: str) -> int:
        self._path(path).rmdir()
        return 0

    def link(self, target: str, source: str) -> int:
        self._path(target).hardlink_to(self._path(source))
        return 0

    def unlink(self, path: str) -> int:
        self._path(path).unlink()
        return 0

    def rename(self, old: str, new: str) -> int:
        self._path(old).rename(self._path(new))
        return 0

    def chmod(self, path: str, mode: int) -> int:
        self._path(path).chmod(mode)
        return 0

    def utimens(self, path: str, times: tuple[float, float] | None = None) -> int:
        os.utime(self._path(path), times)
        return 0

    def create(self, path: str, mode: int, fi: object = None) -> int:
        return os.open(self._path(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def open(self, path: str, flags: int) -> int:
        return os.open(self._path(path), flags & ~os.O_DIRECT)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self._path(path), length)
        return 0

    def fallocate(self, path: str, mode: int, offset: int, size: int, fh: int) -> int:
        if _libc.fallocate(fh, mode, offset, size):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return 0

    def flush(self, path: str, fh: int) -> int:
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        os.fsync(fh)
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        return 0

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0
