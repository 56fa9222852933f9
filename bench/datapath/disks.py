# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks to measure with: real files of this machine on a sparse disk, and changes scattered over it."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from pathlib import Path

from overkeep.units import GIB, MIB

CLUSTER = 64 << 10
_TREES = ("/usr", "/opt", "/var/lib")
_STRETCH = 32 * MIB


def make_disk(path: Path, *, size: int, data: int) -> None:
    """Spread `data` bytes of files in stretches of 1 to 32 MiB over a raw disk of `size` bytes."""
    rng = random.Random(1)  # noqa: S311 - the same disk each time
    places = [number * _STRETCH for number in rng.sample(range(size // _STRETCH), size // _STRETCH)]
    content = _contents()
    left, share = data, data / size
    with path.open("wb") as file:
        file.truncate(size)
        for place in sorted(places):
            wanted = rng.choice((0.5, 0.75, 1.0, 1.25, 1.5)) * share * _STRETCH
            length = min(left, _STRETCH, max(MIB, int(wanted) // MIB * MIB))
            file.seek(place)
            file.write(b"".join(itertools.islice(content, length // MIB)))
            left -= length
        os.fsync(file.fileno())


def _contents() -> Iterator[bytes]:
    """Yield what lies in the files of this machine, a MiB at a time, for ever."""
    held = bytearray()
    while True:
        for path in _files():
            try:
                held += path.read_bytes()
            except OSError:
                continue
            while len(held) >= MIB:
                yield bytes(held[:MIB])
                del held[:MIB]


def _files() -> Iterator[Path]:
    for tree in _TREES:
        for folder, folders, names in os.walk(tree):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink() and path.stat().st_size < 64 * MIB:
                    yield path


def scattered(size: int, share: float, seed: int) -> list[int]:
    """Offsets of clusters that make up `share` of a disk of `size` bytes."""
    total = size // CLUSTER
    rng = random.Random(seed)  # noqa: S311 - the same places each time
    return [number * CLUSTER for number in sorted(rng.sample(range(total), int(total * share)))]


def change(path: Path, offsets: list[int]) -> None:
    """Write something new at the offsets of a raw disk."""
    rng = random.Random(7)  # noqa: S311 - no secret
    with path.open("r+b") as file:
        for offset in offsets:
            file.seek(offset)
            file.write(rng.randbytes(CLUSTER))
        os.fsync(file.fileno())


def sizes(*, quick: bool) -> tuple[int, int]:
    """Size of the disk and of the data on it."""
    return (2 * GIB, GIB * 3 // 4) if quick else (10 * GIB, 4 * GIB)
