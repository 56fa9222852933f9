# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that QEMU makes: every shape that qemu-img knows, filled at random by qemu-io, alone and in chains."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from overkeep.units import KIB, MIB
from tests.blocks.conftest import run

SECTOR = 512


@dataclass(frozen=True)
class Shape:
    """How an image is laid out."""

    cluster: int
    version: int = 3
    refcount_bits: int = 16
    compression: str = "zlib"
    subclusters: bool = False

    @property
    def options(self) -> str:
        """As `qemu-img create -o` wants them."""
        parts = [f"cluster_size={self.cluster}", f"compat={'0.10' if self.version == 2 else '1.1'}"]
        if self.version == 3:
            parts += [
                f"refcount_bits={self.refcount_bits}",
                f"compression_type={self.compression}",
                f"extended_l2={'on' if self.subclusters else 'off'}",
            ]
        return ",".join(parts)

    def __str__(self) -> str:
        parts = (self.version, self.cluster, self.refcount_bits, self.compression, "sub" * self.subclusters)
        return "-".join(str(part) for part in parts if part)


CLUSTERS = [512, 4 * KIB, 16 * KIB, 64 * KIB, 2 * MIB]
SHAPES = [
    *(Shape(cluster, version=2) for cluster in CLUSTERS),
    *(
        Shape(cluster, compression=compression, subclusters=subclusters)
        for cluster, compression, subclusters in product(CLUSTERS, ("zlib", "zstd"), (False, True))
        if cluster >= 16 * KIB or not subclusters
    ),
    *(Shape(4 * KIB, refcount_bits=1 << order, subclusters=False) for order in (0, 1, 2, 3, 5, 6)),
    *(Shape(64 * KIB, refcount_bits=1 << order, subclusters=True) for order in (0, 6)),
]


def random_size(rng: random.Random, shape: Shape) -> int:
    """A size with some clusters in it, often not a whole number of them."""
    most = max(3 * MIB, 4 * shape.cluster)
    return rng.choice([rng.randrange(most // 4, most), most]) // SECTOR * SECTOR


def content(rng: random.Random, length: int) -> bytes:
    """Bytes that are found nowhere else; some can be compressed, some cannot."""
    if rng.random() < 0.3:
        return rng.randbytes(length)
    piece = rng.randbytes(64)
    return (piece * (length // 64 + 1))[:length]


def fill(path: Path, rng: random.Random, *, shape: Shape, size: int, writes: int = 12) -> None:
    """Write, compress, zero and discard at random; `path` is an image that was just made."""
    commands = [*_compressed(path.parent, rng, shape, size)]
    commands += [_command(path.parent, rng, shape, size) for _ in range(rng.randrange(writes))]
    if commands:
        rest = [part for command in commands for part in ("-c", command)]
        run("qemu-io", "-t", "unsafe", "-d", "unmap", "-f", "qcow2", *rest, path)


def _compressed(folder: Path, rng: random.Random, shape: Shape, size: int) -> list[str]:
    """Compressed writes of whole clusters, no two of the same, since QEMU refuses that."""
    commands, cluster = [], 0
    while (cluster := cluster + rng.randrange(1, 9)) * shape.cluster < size and len(commands) < 6:
        start = cluster * shape.cluster
        length = min(size - start, rng.randrange(1, 4) * shape.cluster)
        commands.append(f"write -q -c -s {_pattern(folder, rng, length)} {start} {length}")
        cluster += 3
    return commands if rng.random() < 0.7 else []


def _command(folder: Path, rng: random.Random, shape: Shape, size: int) -> str:
    start = rng.randrange(size // SECTOR) * SECTOR
    length = min(size - start, rng.choice([SECTOR, 4 * KIB, shape.cluster, rng.randrange(1, 600) * SECTOR]))
    if rng.random() < 0.4:  # whole clusters: these can be zeroed or discarded in the tables alone
        start -= start % shape.cluster
        length = min(size - start, -(-length // shape.cluster) * shape.cluster)
    verb = rng.choice(["write", "write", "write", "zero", "unmap", "discard"])
    if verb == "write":
        return f"write -q -s {_pattern(folder, rng, length)} {start} {length}"
    return {"zero": "write -q -z", "unmap": "write -q -z -u", "discard": "discard -q"}[verb] + f" {start} {length}"


def _pattern(folder: Path, rng: random.Random, length: int) -> Path:
    path = folder.parent / f"pattern-{rng.randrange(1 << 60):x}"
    path.write_bytes(content(rng, length))
    return path


def make(folder: Path, name: str, rng: random.Random, *, shape: Shape, backing: tuple[str, str] | None = None) -> None:
    """Make an image at random; `backing` is the format of its backing file and what the header shall call it."""
    size = random_size(rng, shape)
    below = ["-F", backing[0], "-b", backing[1]] if backing else []
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", shape.options, *below, folder / name, str(size))
    fill(folder / name, rng, shape=shape, size=size)
    if shape.version == 3 and rng.random() < 0.3 and shape.refcount_bits > 4:  # compressed clusters share theirs
        run("qemu-img", "snapshot", "-c", "kept", folder / name)
        fill_again(folder / name, rng, shape=shape, size=size)
    elif rng.random() < 0.3:
        # Version 2 has no clusters of zeroes, which a larger disk may need to hide what is below.
        size = random_size(rng, shape) if shape.version == 3 else size // 2 // SECTOR * SECTOR
        run("qemu-img", "resize", "-q", "-f", "qcow2", "--shrink", folder / name, str(size))
        fill_again(folder / name, rng, shape=shape, size=size)


def fill_again(path: Path, rng: random.Random, *, shape: Shape, size: int) -> None:
    """Write, zero and discard at random in an image that has something in it."""
    rest = [part for _ in range(6) for part in ("-c", _command(path.parent, rng, shape, size))]
    run("qemu-io", "-t", "unsafe", "-d", "unmap", "-f", "qcow2", *rest, path)


def make_chain(folder: Path, rng: random.Random, *, length: int) -> str:
    """Make a chain of images of any shapes, sometimes over a raw file; return the name of its first."""
    backing: tuple[str, str] | None = None
    if rng.random() < 0.4:
        (folder / "base.raw").write_bytes(content(rng, rng.randrange(1, 5 * MIB // SECTOR) * SECTOR))
        backing = ("raw", spelled(folder, "base.raw", rng))
    name = ""
    for number in range(length):
        name = f"{number}.qcow2"
        make(folder, name, rng, shape=rng.choice(SHAPES), backing=backing)
        backing = ("qcow2", spelled(folder, name, rng))
    return name


def spelled(folder: Path, name: str, rng: random.Random) -> str:
    """One of the ways in which a header may name a file of the image's own folder."""
    return rng.choice([name, name, f"./{name}", f"{folder}/{name}", f"../{folder.name}/{name}"])
