# SPDX-License-Identifier: GPL-3.0-or-later
"""Disk images: the guest's file systems, copies of them, and the mark of a copy nobody has written to."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from ovirtlab.machine.parts import GuestParts, make_tree
from ovirtlab.machine.process import run

MARK = "user.ovirtlab.clone"
EXT4 = ("mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-N", "8192", "-J", "size=8")
# Nothing is left for the guest to write by itself, so that a quiet guest changes no block.
EXT4_EXTENDED = "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0"


async def make_system_disk(path: Path, size: int, *, parts: GuestParts) -> None:
    """Make a raw image with the guest's root file system on the whole disk."""
    with tempfile.TemporaryDirectory(prefix="ovirtlab-tree-") as folder:
        tree = Path(folder) / "root"
        await asyncio.to_thread(make_tree, parts, tree)
        tree.chmod(0o755)
        await _make_file_system(path, size, label="root", options=("-d", str(tree)))


async def make_data_disk(path: Path, size: int, *, label: str) -> None:
    """Make a raw image with an empty file system on the whole disk."""
    await _make_file_system(path, size, label=label, options=())


async def _make_file_system(path: Path, size: int, *, label: str, options: tuple[str, ...]) -> None:
    with path.open("xb") as image:
        image.truncate(size)
    await run([*EXT4, "-L", label, "-E", EXT4_EXTENDED, *options, path])


async def copy(source: Path, sink: Path, *, source_format: str, sink_format: str, bitmaps: bool = False) -> None:
    """Copy what the guest sees of `source` into a new sparse image; an existing one is overwritten."""
    options = ["--bitmaps"] if bitmaps and source_format == sink_format == "qcow2" else []
    await run(["qemu-img", "convert", "-q", *options, "-f", source_format, "-O", sink_format, source, sink])


def mark_untouched(path: Path, clone: str) -> None:
    """Note at the file that it is, as it is now, a copy that belongs to the saved state `clone`.

    The note dies with the file and is no part of any copy. A file system without extended attributes keeps none, and
    machines on it boot instead of resuming.
    """
    try:
        os.setxattr(path, MARK, _mark(path, clone))
    except OSError:
        return


def is_untouched(path: Path, clone: str) -> bool:
    """Whether `path` has not been written to since it was marked for `clone`."""
    try:
        return os.getxattr(path, MARK) == _mark(path, clone)
    except OSError:
        return False


def _mark(path: Path, clone: str) -> bytes:
    return f"{clone} {path.name} {path.stat().st_mtime_ns}".encode()
