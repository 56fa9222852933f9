# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives in the `newc` form that Linux takes as an initramfs, the same bytes for the same content."""

from __future__ import annotations

import stat
from collections.abc import Mapping


def archive(files: Mapping[str, bytes]) -> bytes:
    """Pack `files` (path without leading slash to content) with the folders they need; every file may be executed."""
    folders = sorted({folder for path in files for folder in _parents(path)})
    parts = [_entry(number, name, stat.S_IFDIR | 0o755, b"") for number, name in enumerate(folders, 1)]
    start = len(folders) + 1
    parts += [_entry(n, name, stat.S_IFREG | 0o755, files[name]) for n, name in enumerate(sorted(files), start)]
    parts.append(_entry(0, "TRAILER!!!", 0, b""))
    return b"".join(parts)


def _parents(path: str) -> list[str]:
    names = path.split("/")[:-1]
    return ["/".join(names[:count]) for count in range(1, len(names) + 1)]


def _entry(inode: int, name: str, mode: int, content: bytes) -> bytes:
    links = 2 if stat.S_ISDIR(mode) else 1
    # inode, mode, uid, gid, links, mtime, size, device and special device (major, minor each), name size, check
    fields = (inode, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    header = "070701" + "".join(f"{field:08X}" for field in fields) + name + "\0"
    return _padded(header.encode()) + _padded(content)


def _padded(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % 4)
