# SPDX-License-Identifier: GPL-3.0-or-later
"""Damage done on purpose to the structure of a sound image."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

from overkeep.blocks.qcow2.image import ImageFile
from overkeep.blocks.qcow2.layout import COPIED, OFFSET_MASK

Change = Callable[[random.Random, int, int, int], int]


class Words:
    """The image as a file of 64-bit numbers, and where its tables are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.raw = bytearray(path.read_bytes())
        image = ImageFile(path.parent, path.name)
        self.header = image.header
        image.close()
        self.cluster = self.header.cluster

    def get(self, at: int) -> int:
        """The number at an offset."""
        return get(self.raw, at)

    def put(self, at: int, value: int) -> None:
        """Replace the number at an offset."""
        put(self.raw, at, value)

    def save(self) -> None:
        """Write the image back."""
        self.path.write_bytes(self.raw)

    def used(self, offset: int, entries: int) -> list[int]:
        """Offsets of the entries of a table that are not empty."""
        return [at for at in range(offset, offset + entries * 8, 8) if at + 8 <= len(self.raw) and self.get(at)]

    def l1(self) -> list[int]:
        """Offsets of the entries of the L1 table that are used."""
        return self.used(self.header.l1_offset, self.header.l1_entries)

    def l2(self) -> list[int]:
        """Offsets of the words of L2 tables that are used."""
        tables = [self.get(at) & OFFSET_MASK for at in self.l1()]
        return [at for table in tables for at in self.used(table, self.cluster // 8)]

    def refcount_table(self) -> list[int]:
        """Offsets of the entries of the refcount table that are used."""
        return self.used(self.header.refcount_offset, self.header.refcount_clusters * self.cluster // 8)

    def refcounts(self) -> list[int]:
        """Offsets of the words in refcount blocks that are used."""
        return [at for table in self.refcount_table() for at in self.used(self.get(table), self.cluster // 8)]


CHANGES: list[Change] = [
    lambda rng, entry, cluster, size: 0,
    lambda rng, entry, cluster, size: entry ^ COPIED,
    lambda rng, entry, cluster, size: entry ^ (1 << rng.randrange(64)),
    lambda rng, entry, cluster, size: entry ^ (1 << rng.randrange(9)),
    lambda rng, entry, cluster, size: entry + cluster,
    lambda rng, entry, cluster, size: entry - cluster,
    lambda rng, entry, cluster, size: entry + 512,
    lambda rng, entry, cluster, size: entry + size,
    lambda rng, entry, cluster, size: (entry & ~OFFSET_MASK) | (size - 1) // cluster * cluster,
    lambda rng, entry, cluster, size: (entry & ~OFFSET_MASK) | rng.randrange(size // cluster) * cluster,
    lambda rng, entry, cluster, size: rng.randrange(1 << 64),
    lambda rng, entry, cluster, size: entry ^ rng.randrange(1 << 64),
]
"""What may become of an entry of a table, in an image with clusters of `cluster` bytes and `size` in all."""


def get(raw: bytearray, at: int) -> int:
    """The number at an offset."""
    return int(struct.unpack_from(">Q", raw, at)[0])


def put(raw: bytearray, at: int, value: int) -> None:
    """Replace the number at an offset, its lowest 64 bits."""
    struct.pack_into(">Q", raw, at, value & (2**64 - 1))


def change_word(raw: bytearray, rng: random.Random) -> None:
    """Change one number of an image that need not be sound any more, most often one that is not zero."""
    cluster = 1 << min(21, max(9, raw[23]))
    for _ in range(20):
        at = rng.randrange(len(raw) // 8) * 8
        if get(raw, at):
            break
    put(raw, at, rng.choice(CHANGES)(rng, get(raw, at), cluster, max(cluster, len(raw))))


def hurt(path: Path, rng: random.Random) -> str:
    """Damage an image in one place, or a few; return what was done."""
    words = Words(path)
    done = []
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        where = rng.choice(["l1", "l2", "l2", "refcount_table", "refcounts", "refcounts", "other"])
        places = getattr(words, where)() if where != "other" else []
        at = rng.choice(places) if places else rng.randrange(words.cluster, len(words.raw) - 7) // 8 * 8
        number = rng.randrange(len(CHANGES))
        before = words.get(at)
        words.put(at, CHANGES[number](rng, before, words.cluster, len(words.raw)))
        done.append(f"{where} at {at}: {before:#x} became {words.get(at):#x} by {number}")
    words.save()
    return "; ".join(done)
