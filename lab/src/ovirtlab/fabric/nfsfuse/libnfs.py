# SPDX-License-Identifier: GPL-3.0-or-later
"""The functions of libnfs that the bridge calls, with their C types (libnfs 4 and 5 have the same ones)."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_long, c_uint32, c_uint64, c_void_p
from typing import Any

SONAMES = ("libnfs.so.13", "libnfs.so.14")

_STAT_FIELDS = (
    "dev ino mode nlink uid gid rdev size blksize blocks atime mtime ctime atime_nsec mtime_nsec ctime_nsec used"
)
_STATVFS_FIELDS = "bsize frsize blocks bfree bavail files ffree favail fsid flag namemax"


class Stat(ctypes.Structure):
    """`struct nfs_stat_64`: sizes in bytes, times in seconds and nanoseconds."""

    _fields_ = [(name, c_uint64) for name in _STAT_FIELDS.split()]


class Statvfs(ctypes.Structure):
    """`struct nfs_statvfs_64`."""

    _fields_ = [(name, c_uint64) for name in _STATVFS_FIELDS.split()]


class Timeval(ctypes.Structure):
    """`struct timeval`."""

    _fields_ = [("sec", c_long), ("usec", c_long)]


class Dirent(ctypes.Structure):
    """The beginning of `struct nfsdirent`; the library allocates it, so the rest need not be named."""

    _fields_ = [
        ("next", c_void_p),
        ("name", c_char_p),
        ("inode", c_uint64),
        ("type", c_uint32),
        ("mode", c_uint32),
    ]


class Url(ctypes.Structure):
    """`struct nfs_url`."""

    _fields_ = [("server", c_char_p), ("path", c_char_p), ("file", c_char_p)]


_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "nfs_init_context": (c_void_p, []),
    "nfs_destroy_context": (None, [c_void_p]),
    "nfs_parse_url_dir": (POINTER(Url), [c_void_p, c_char_p]),
    "nfs_destroy_url": (None, [POINTER(Url)]),
    "nfs_get_error": (c_char_p, [c_void_p]),
    "nfs_get_fd": (c_int, [c_void_p]),
    "nfs_set_uid": (None, [c_void_p, c_int]),
    "nfs_set_gid": (None, [c_void_p, c_int]),
    "nfs_mount": (c_int, [c_void_p, c_char_p, c_char_p]),
    "nfs_access": (c_int, [c_void_p, c_char_p, c_int]),
    "nfs_lstat64": (c_int, [c_void_p, c_char_p, POINTER(Stat)]),
    "nfs_fstat64": (c_int, [c_void_p, c_void_p, POINTER(Stat)]),
    "nfs_statvfs64": (c_int, [c_void_p, c_char_p, POINTER(Statvfs)]),
    "nfs_open2": (c_int, [c_void_p, c_char_p, c_int, c_int, POINTER(c_void_p)]),
    "nfs_close": (c_int, [c_void_p, c_void_p]),
    "nfs_pread": (c_int, [c_void_p, c_void_p, c_uint64, c_uint64, c_void_p]),
    "nfs_pwrite": (c_int, [c_void_p, c_void_p, c_uint64, c_uint64, c_void_p]),
    "nfs_fsync": (c_int, [c_void_p, c_void_p]),
    "nfs_truncate": (c_int, [c_void_p, c_char_p, c_uint64]),
    "nfs_ftruncate": (c_int, [c_void_p, c_void_p, c_uint64]),
    "nfs_unlink": (c_int, [c_void_p, c_char_p]),
    "nfs_rename": (c_int, [c_void_p, c_char_p, c_char_p]),
    "nfs_link": (c_int, [c_void_p, c_char_p, c_char_p]),
    "nfs_symlink": (c_int, [c_void_p, c_char_p, c_char_p]),
    "nfs_readlink": (c_int, [c_void_p, c_char_p, c_void_p, c_int]),
    "nfs_mkdir2": (c_int, [c_void_p, c_char_p, c_int]),
    "nfs_rmdir": (c_int, [c_void_p, c_char_p]),
    "nfs_mknod": (c_int, [c_void_p, c_char_p, c_int, c_int]),
    "nfs_chmod": (c_int, [c_void_p, c_char_p, c_int]),
    "nfs_lchown": (c_int, [c_void_p, c_char_p, c_int, c_int]),
    "nfs_lutimes": (c_int, [c_void_p, c_char_p, POINTER(Timeval)]),
    "nfs_opendir": (c_int, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "nfs_readdir": (POINTER(Dirent), [c_void_p, c_void_p]),
    "nfs_closedir": (None, [c_void_p, c_void_p]),
}


def load() -> Any:
    """Return the library with typed functions; raise `OSError` when it is not installed."""
    library = _open_first()
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _open_first() -> ctypes.CDLL:
    for soname in SONAMES:
        try:
            return ctypes.CDLL(soname)
        except OSError:
            continue
    raise OSError(f"libnfs is not installed ({' or '.join(SONAMES)}; the Debian package is libnfs13)")
