# SPDX-License-Identifier: GPL-3.0-or-later
"""Trying a target out: a small file is written to it, read back and removed."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

from overkeep.blocks.errors import on_target
from overkeep.model.findings import Finding, Verdict
from overkeep.repository.mounts import Mounts, require_writable
from overkeep.units import KIB, human_size

OWNER = (36, 36)  # vdsm:kvm on hosts; what one writes the others must be able to read and to change
LOW = 0.05  # of the space
_SIZE = 64 * KIB


def probe(mounts: Mounts, name: str) -> Finding:
    """Mount a target if need be, and try it out.

    Raises the errors of `mounts`, and those of the block plane when it cannot be written.
    """
    root = mounts.ensure(name)
    require_writable(root)
    begun = time.monotonic()
    with on_target(root):
        owner = _write_and_read(root / f".overkeep-check-{uuid.uuid4().hex}")
        space = os.statvfs(root)
    took = time.monotonic() - begun
    free, size = space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
    told = f"it is mounted at {root} and can be written ({took * 1000:.0f} ms); {human_size(free)} are free"
    verdict = Verdict.OK
    if owner != OWNER:
        verdict = Verdict.WARNING
        told += (
            f". Files belong to {owner[0]}:{owner[1]} there and must belong to 36:36; "
            "run the service as 36:36, or export with `all_squash,anonuid=36,anongid=36`"
        )
    elif free < LOW * size:
        verdict = Verdict.WARNING
        told += ". It is nearly full: free space, or shorten the retention"
    return Finding(area="target", subject=name, verdict=verdict, text=f"{told[0].upper()}{told[1:]}.")


def _write_and_read(path: Path) -> tuple[int, int]:
    """The owner of a file that was written, and that held what was written."""
    content = os.urandom(_SIZE)
    try:
        with path.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            found = os.fstat(file.fileno())
        if path.read_bytes() != content:
            raise OSError(5, "what was written is read back differently")
    finally:
        path.unlink(missing_ok=True)
    return found.st_uid, found.st_gid
