# SPDX-License-Identifier: GPL-3.0-or-later
"""The file system operations that FUSE asks for, as NFSv3 calls. Errors leave as `OSError` with the true number."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ovirtlab.fabric.nfsfuse.client import Act, Caller, Client
from ovirtlab.fabric.nfsfuse.libnfs import Dirent, Stat, Statvfs, Timeval

log = logging.getLogger(__name__)

TRANSFER = 1 << 20
READLINK_BUFFER = 4096
NANO = 10**9
# <sys/stat.h>: set this time to now; leave it as it is
UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2
# libfuse 3, fuse_common.h: splicing through pipes is slower than one copy here; data is invalidated when a file is
# opened (as NFS clients do), not by asking the server before each read
CAP_SPLICE = (1 << 7) | (1 << 8) | (1 << 9)
CAP_AUTO_INVAL_DATA = 1 << 12

# ftype3 of RFC 1813
_TYPES = {
    1: stat.S_IFREG,
    2: stat.S_IFDIR,
    3: stat.S_IFBLK,
    4: stat.S_IFCHR,
    5: stat.S_IFLNK,
    6: stat.S_IFSOCK,
    7: stat.S_IFIFO,
}


@dataclass
class OpenFile:
    """A file handle of the server, who opened it, and whether data written through it is not yet committed."""

    handle: ctypes.c_void_p
    caller: Caller
    dirty: bool = False


class Operations:
    """What `mfusepy.FUSE` calls. `whoami` gives (uid, gid) of the process whose request is being served."""

    use_ns = True

    def __init__(self, client: Client, whoami: Callable[[], tuple[int, int]], ready: Callable[[], None]) -> None:
        self._client = client
        self._nfs = client.library
        self._whoami = whoami
        self._ready = ready
        self._files: dict[int, OpenFile] = {}
        self._next = 0
        self._lock = threading.Lock()

    def init_with_config(self, connection: Any, config: Any) -> None:
        """Set what the kernel may ask for; runs when the mount is there."""
        connection.max_write = TRANSFER
        connection.max_read = TRANSFER
        connection.max_background = 64
        connection.congestion_threshold = 48
        connection.want &= ~(CAP_SPLICE | CAP_AUTO_INVAL_DATA)
        config.use_ino = 1
        config.attr_timeout = 0.0  # sizes and times are asked for each time: other clients write too
        config.entry_timeout = 1.0
        config.negative_timeout = 0.0
        self._client.start_watching()
        self._ready()

    @property
    def busy(self) -> bool:
        """Whether files are open."""
        return bool(self._files)

    def _call(self, act: Act, caller: Caller | None = None) -> int:
        return self._client.call(act, caller or Caller(*self._whoami()))

    def _on_path(self, function: str, path: str, *arguments: Any) -> None:
        act = getattr(self._nfs, function)
        self._call(lambda context: int(act(context, os.fsencode(path), *arguments)))

    # files

    def _opened(self, path: str, flags: int, mode: int) -> int:
        caller, handle = Caller(*self._whoami()), ctypes.c_void_p()
        name = os.fsencode(path)
        self._call(lambda context: int(self._nfs.nfs_open2(context, name, flags, mode, ctypes.byref(handle))), caller)
        with self._lock:
            self._next += 1
            self._files[self._next] = OpenFile(handle, caller)
            return self._next

    def open(self, path: str, flags: int) -> int:
        return self._opened(path, flags & (os.O_ACCMODE | os.O_TRUNC), 0)

    def create(self, path: str, mode: int, flags: int) -> int:
        # Always exclusive first: the other way of CREATE changes the mode of a file that is there.
        access = flags & os.O_ACCMODE
        try:
            return self._opened(path, os.O_CREAT | os.O_EXCL | access, stat.S_IMODE(mode))
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
        return self._opened(path, access | (flags & os.O_TRUNC), 0)

    def read(self, number: int, address: int, size: int, offset: int) -> int:
        """Read into the memory at `address`; return the count, less than `size` only at the end of the file."""
        file = self._files[number]
        return self._call(
            lambda context: int(self._nfs.nfs_pread(context, file.handle, offset, size, address)), file.caller
        )

    def write(self, number: int, address: int, size: int, offset: int) -> int:
        """Write all of the memory at `address`; the server has it (uncommitted) when this returns."""
        file = self._files[number]
        file.dirty = True
        done = 0
        while done < size:
            done += self._written(file, address + done, size - done, offset + done)
        return done

    def _written(self, file: OpenFile, address: int, size: int, offset: int) -> int:
        count = self._call(
            lambda context: int(self._nfs.nfs_pwrite(context, file.handle, offset, size, address)), file.caller
        )
        if count == 0:
            raise OSError(errno.EIO, "the server wrote nothing")
        return count

    def fsync(self, path: str, datasync: int, number: int) -> int:
        self._commit(self._files[number])
        return 0

    def flush(self, path: str, number: int) -> int:
        """Commit at close(2), the last moment at which a program can learn of an error."""
        file = self._files[number]
        if file.dirty:
            self._commit(file)
        return 0

    def _commit(self, file: OpenFile) -> None:
        file.dirty = False
        try:
            self._call(lambda context: int(self._nfs.nfs_fsync(context, file.handle)), file.caller)
        except OSError:
            file.dirty = True
            raise

    def release(self, path: str, number: int) -> int:
        with self._lock:
            file = self._files.pop(number)
        try:
            self._call(lambda context: int(self._nfs.nfs_close(context, file.handle)), file.caller)
        except OSError as error:  # nobody is left to be told: close(2) has returned, and flush has reported
            log.warning("closing %s: %s", path, error)
        return 0

    def truncate(self, path: str, length: int, number: int | None = None) -> int:
        file = self._files.get(number) if number else None
        if file is None:
            self._on_path("nfs_truncate", path, length)
        else:
            self._call(lambda context: int(self._nfs.nfs_ftruncate(context, file.handle, length)), file.caller)
        return 0

    # attributes

    def getattr(self, path: str, number: int | None = None) -> dict[str, int]:
        found = Stat()
        file = self._files.get(number) if number else None
        if file is None:
            self._on_path("nfs_lstat64", path, ctypes.byref(found))
        else:
            self._call(lambda context: int(self._nfs.nfs_fstat64(context, file.handle, ctypes.byref(found))))
        return {
            "st_ino": found.ino,
            "st_mode": found.mode,
            "st_nlink": found.nlink,
            "st_uid": found.uid,
            "st_gid": found.gid,
            "st_rdev": found.rdev,
            "st_size": found.size,
            "st_blksize": TRANSFER,
            "st_blocks": -(-found.used // 512),
            "st_atime": found.atime * NANO + found.atime_nsec,
            "st_mtime": found.mtime * NANO + found.mtime_nsec,
            "st_ctime": found.ctime * NANO + found.ctime_nsec,
        }

    def access(self, path: str, mode: int) -> int:
        self._on_path("nfs_access", path, mode)
        return 0

    def chmod(self, path: str, mode: int) -> int:
        self._on_path("nfs_chmod", path, stat.S_IMODE(mode))
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        if uid == -1 or gid == -1:  # libnfs always sets both
            found = self.getattr(path)
            uid, gid = (found["st_uid"] if uid == -1 else uid), (found["st_gid"] if gid == -1 else gid)
        self._on_path("nfs_lchown", path, uid, gid)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        """Set access and modification time (ns); the server keeps microseconds."""
        wanted = times or (UTIME_NOW, UTIME_NOW)
        found = self.getattr(path) if UTIME_OMIT in wanted else {}
        old = (found.get("st_atime", 0), found.get("st_mtime", 0))
        exact = [_chosen(new, kept) for new, kept in zip(wanted, old, strict=True)]
        values = (Timeval * 2)(*(Timeval(value // NANO, value % NANO // 1000) for value in exact))
        self._on_path("nfs_lutimes", path, values)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        found = Statvfs()
        self._on_path("nfs_statvfs64", path, ctypes.byref(found))
        names = "bsize frsize blocks bfree bavail files ffree favail namemax"
        return {f"f_{name}": getattr(found, name) for name in names.split()}

    # names

    def readdir(self, path: str, number: int) -> list[tuple[str, dict[str, int], int]]:
        entries: list[tuple[str, dict[str, int], int]] = []
        name = os.fsencode(path)

        def read(context: int) -> int:
            folder = ctypes.c_void_p()
            result = int(self._nfs.nfs_opendir(context, name, ctypes.byref(folder)))
            if result == 0:
                entries[:] = self._entries(context, folder)
            return result

        self._call(read)
        return entries

    def _entries(self, context: int, folder: ctypes.c_void_p) -> list[tuple[str, dict[str, int], int]]:
        found = []
        while entry := self._nfs.nfs_readdir(context, folder):
            item: Dirent = entry.contents
            kind = {"st_mode": _TYPES.get(item.type, 0), "st_ino": item.inode}
            found.append((os.fsdecode(item.name), kind, 0))
        self._nfs.nfs_closedir(context, folder)
        return found

    def fsyncdir(self, path: str, datasync: int, number: int) -> int:
        return 0  # NFSv3 answers a change of a folder only when it is on stable storage (RFC 1813, 4.11)

    def unlink(self, path: str) -> int:
        self._on_path("nfs_unlink", path)
        return 0

    def rename(self, old: str, new: str) -> int:
        self._on_path("nfs_rename", old, os.fsencode(new))
        return 0

    def link(self, target: str, source: str) -> int:
        self._on_path("nfs_link", source, os.fsencode(target))
        return 0

    def symlink(self, target: str, source: str) -> int:
        self._on_path("nfs_symlink", source, os.fsencode(target))
        return 0

    def readlink(self, path: str) -> str:
        buffer = ctypes.create_string_buffer(READLINK_BUFFER)
        self._on_path("nfs_readlink", path, buffer, READLINK_BUFFER)
        return os.fsdecode(buffer.value)

    def mkdir(self, path: str, mode: int) -> int:
        self._on_path("nfs_mkdir2", path, stat.S_IMODE(mode))
        return 0

    def rmdir(self, path: str) -> int:
        self._on_path("nfs_rmdir", path)
        return 0

    def mknod(self, path: str, mode: int, device: int) -> int:
        self._on_path("nfs_mknod", path, mode, device)
        return 0

    def destroy(self, path: str) -> None:
        """Commit what is open; the kernel has released everything before, except after a forced unmount."""
        for file in list(self._files.values()):
            with suppress(OSError):
                self._commit(file)


def _chosen(wanted: int, kept: int) -> int:
    if wanted == UTIME_NOW:
        return time.time_ns()
    return kept if wanted == UTIME_OMIT else int(wanted)
