# SPDX-License-Identifier: GPL-3.0-or-later
"""From what libnfs says of a failed call to the errno a program must see, or to "the connection is gone"."""

from __future__ import annotations

import errno
import re

# RFC 1813, section 2.6, by the names that libnfs prints
_BY_NAME = {
    "PERM": errno.EPERM,
    "NOENT": errno.ENOENT,
    "IO": errno.EIO,
    "NXIO": errno.ENXIO,
    "ACCES": errno.EACCES,
    "EXIST": errno.EEXIST,
    "XDEV": errno.EXDEV,
    "NODEV": errno.ENODEV,
    "NOTDIR": errno.ENOTDIR,
    "ISDIR": errno.EISDIR,
    "INVAL": errno.EINVAL,
    "FBIG": errno.EFBIG,
    "NOSPC": errno.ENOSPC,
    "ROFS": errno.EROFS,
    "MLINK": errno.EMLINK,
    "NAMETOOLONG": errno.ENAMETOOLONG,
    "NOTEMPTY": errno.ENOTEMPTY,
    "DQUOT": errno.EDQUOT,
    "STALE": errno.ESTALE,
    "REMOTE": errno.EREMOTE,
    "BADHANDLE": errno.ESTALE,
    "NOTSUPP": errno.EOPNOTSUPP,
    "SERVERFAULT": errno.EREMOTEIO,
    "JUKEBOX": errno.EAGAIN,
}
_EXTENDED = {10001: "BADHANDLE", 10004: "NOTSUPP", 10006: "SERVERFAULT", 10008: "JUKEBOX"}
_NAME = re.compile(rb"NFS3ERR_([A-Z]+)")
_QUOTED = re.compile(rb'call failed with "([^"]*)"?$', re.DOTALL)
_LOST = (errno.EINTR, errno.ECONNRESET, errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EPIPE, errno.ENOTCONN)


def errno_of(result: int, text: bytes) -> int | None:
    """Return the errno for a negative `result` of libnfs with its error `text`; None when the connection was lost.

    Failed reads and writes come as -EFAULT whatever the cause; their text then ends with the first bytes of the
    server's answer, which are its status, the low byte first (seen in libnfs 4.0: `pwrite call failed with "\\x1c"`
    for "no space left").
    """
    if result == -errno.EFAULT:
        return _status_in(text)
    names = _NAME.findall(text)
    if names:
        return _BY_NAME.get(names[-1].decode(), errno.EIO)
    if result == -errno.EIO or -result in _LOST:
        return None
    return -result if 0 < -result < 200 else errno.EIO


def _status_in(text: bytes) -> int | None:
    quoted = _QUOTED.search(text)
    raw = quoted[1] if quoted else None
    if raw is None or len(raw) > 2:
        return None
    if not raw:  # status 0, and yet no byte was moved
        return errno.EIO
    number = int.from_bytes(raw, "little")
    if number in _EXTENDED:
        return _BY_NAME[_EXTENDED[number]]
    return _PLAIN.get(number, errno.EIO)


# The statuses below 10000 have the numbers of 4.4BSD, which Linux shares up to 31.
_PLAIN = {number: number for number in (1, 2, 5, 6, 13, 17, 18, 19, 20, 21, 22, 27, 28, 30, 31)} | {
    63: errno.ENAMETOOLONG,
    66: errno.ENOTEMPTY,
    69: errno.EDQUOT,
    70: errno.ESTALE,
    71: errno.EREMOTE,
}
