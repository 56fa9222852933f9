# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes behind FUSE mounts, found by their command lines, whoever started them."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

MODULE = "ovirtlab.fabric.nfsfuse"
STEP = 0.02


@dataclass(frozen=True, kw_only=True)
class Bridge:
    """A running bridge: what it mounts, and where (in its own mount namespace)."""

    pid: int
    source: str
    place: str

    @property
    def server(self) -> str:
        """The address of the NFS server."""
        return self.source.partition(":/")[0]


def running() -> list[Bridge]:
    """Return all bridges of the machine, but not those that are ending as zombies."""
    found = (_bridge(path) for path in Path("/proc").iterdir() if path.name.isdigit())
    return [bridge for bridge in found if bridge is not None]


def _bridge(process: Path) -> Bridge | None:
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
    if MODULE not in words or words.index(MODULE) + 2 >= len(words):
        return None
    source, place = words[words.index(MODULE) + 1 :][:2]
    return Bridge(pid=int(process.name), source=source, place=place)


def wait_gone(pids: Collection[int], *, seconds: float) -> bool:
    """Wait until none of `pids` is a bridge any more; tell whether that came true in time."""
    deadline = time.monotonic() + seconds
    while any(bridge.pid in pids for bridge in running()):
        if time.monotonic() > deadline:
            return False
        time.sleep(STEP)
    return True
