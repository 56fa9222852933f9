# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk as a dictionary of clusters, and the chain of real images that its points make in a folder."""

from __future__ import annotations

import copy
import random
import subprocess
from contextlib import closing
from pathlib import Path

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.compression import Compression
from overkeep.blocks.digests import ABSENT, Digests, sums_name
from overkeep.blocks.hashing import ZERO
from overkeep.blocks.image import ImageSink
from overkeep.blocks.merge.acts import MergeStats, merge_away
from overkeep.blocks.merge.making import Watch
from overkeep.blocks.qcow2.form import PLAIN, Form
from overkeep.blocks.qcow2.reader import ChainReader
from overkeep.repository.merging import MergeJournal

Clusters = dict[int, bytes]
NAMES = tuple(f"p{number:03}.qcow2" for number in range(1000))


def run(*command: str | Path) -> str:
    """Run a program to its end and return its output; a failure fails the test with all of it."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


class World:
    """`folder` holds one image for each of `points`, which are what the disk held at that time, with its size."""

    def __init__(self, folder: Path, size: int, *, seed: int = 0) -> None:
        self.folder = folder
        self.size = size
        self.clusters: Clusters = {}
        self.dirty: set[int] = set()
        self.points: dict[str, tuple[int, Clusters]] = {}
        self.chain: list[str] = []
        self._made = 0
        self._rng = random.Random(seed)

    # the disk

    def write(self, first: int, count: int = 1) -> None:
        """Fill clusters with something new, half of which can be compressed."""
        for number in range(first, min(first + count, -(-self.size // CLUSTER))):
            length = min(CLUSTER, self.size - number * CLUSTER)
            self.clusters[number] = (self._rng.randbytes(CLUSTER // 2) + bytes([number % 256]) * CLUSTER)[:length]
            self.dirty.add(number)

    def zero(self, first: int, count: int = 1) -> None:
        """Let clusters be zeroes."""
        for number in range(first, min(first + count, -(-self.size // CLUSTER))):
            self.clusters.pop(number, None)
            self.dirty.add(number)

    def resize(self, size: int) -> None:
        """Let the disk end elsewhere."""
        self.size = min(self.size, size)
        self.clusters = {
            number: data[: self.size - number * CLUSTER]
            for number, data in self.clusters.items()
            if number * CLUSTER < self.size
        }
        self.size = size
        self.dirty = {number for number in self.dirty if number * CLUSTER < size}
        self.clusters = {
            number: data.ljust(min(CLUSTER, size - number * CLUSTER), b"\0") for number, data in self.clusters.items()
        }

    # points

    def point(self, *, full: bool = False, form: Form = PLAIN) -> str:
        """Make a point as a mover does, and return its image's name."""
        name = self._next()
        backing = None if full or not self.chain else self.chain[-1]
        wanted = set(self.clusters) if backing is None else self.dirty
        with closing(ImageSink(self.folder, name, size=self.size, backing=backing, form=form)) as sink:
            ratio = form.cluster // CLUSTER
            for group in sorted({number // ratio for number in wanted}):
                data = self._data(group * ratio, ratio)
                if any(data):
                    sink.write(group * form.cluster, memoryview(data))
                else:
                    sink.zero(group * form.cluster, len(data))
            sink.finish()
        return self._made_point(name, new_chain=backing is None)

    def _data(self, first: int, count: int) -> bytearray:
        """What clusters hold, up to the end of the disk."""
        parts = [self.clusters.get(number, bytes(CLUSTER)) for number in range(first, first + count)]
        return bytearray(b"".join(parts)[: self.size - first * CLUSTER])

    def foreign_point(self, *options: str, compress: bool = False) -> str:
        """Let qemu-img make the image of a point, with options of `-o`; it holds more than what changed."""
        name = self._next()
        raw = self.folder / "raw"
        raw.write_bytes(content(self.size, self.clusters))
        flags = [*(["-c"] if compress else []), *(part for option in options for part in ("-o", option))]
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *flags, raw, self.folder / name)
        raw.unlink()
        if self.chain:
            run("qemu-img", "rebase", "-F", "qcow2", "-b", self.chain[-1], self.folder / name)
        return self._made_point(name, new_chain=False)

    def old_overlay(self) -> str:
        """Let QEMU write what changed into an overlay of version 2, which knows no zero clusters."""
        name = self._next()
        backing = ["-F", "qcow2", "-b", self.folder / self.chain[-1], "-u"]
        run(
            "qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=0.10", *backing, self.folder / name, str(self.size)
        )
        run("qemu-img", "rebase", "-u", "-F", "qcow2", "-b", self.chain[-1], self.folder / name)
        raw = self.folder / "raw"
        for number in sorted(self.dirty):
            data = self.clusters.get(number, b"").ljust(min(CLUSTER, self.size - number * CLUSTER), b"\0")
            raw.write_bytes(data)
            run("qemu-io", "-c", f"write -s {raw} {number * CLUSTER} {len(data)}", self.folder / name)
        raw.unlink()
        return self._made_point(name, new_chain=False)

    def _next(self) -> str:
        self._made += 1
        return NAMES[self._made - 1]

    def _made_point(self, name: str, *, new_chain: bool) -> str:
        self.points[name] = (self.size, dict(self.clusters))
        self.chain = [name] if new_chain else [*self.chain, name]
        self.dirty = set()
        return name

    def at(self, folder: Path) -> World:
        """The same world in another folder."""
        twin = copy.copy(self)
        twin.folder, twin.points, twin.chain = folder, dict(self.points), list(self.chain)
        return twin

    # merging

    def forget(self, *names: str) -> None:
        """These points end; their images are still there."""
        for name in names:
            self.points.pop(name, None)
        self.chain = [name for name in self.chain if name not in names]

    def merge(self, *names: str, watch: Watch | None = None) -> MergeStats:
        """Let these points end, and remove their images."""
        self.forget(*names)
        return merge_away(self.folder, names, journal=MergeJournal(self.folder), watch=watch or Watch())

    # what must hold

    def verify(self, *, qemu: bool = True) -> None:
        """Every point reads as it did with our reader, the newest one with QEMU's too, which finds all images sound."""
        for name in self.points:
            self.verify_point(name)
            if qemu:
                run("qemu-img", "check", "-q", self.folder / name)
        if qemu and self.points:
            self.compare(max(self.points))

    def verify_point(self, name: str) -> None:
        """A point reads as it did."""
        size, clusters = self.points[name]
        missing = set(clusters)
        with closing(ChainReader(self.folder, name)) as reader:
            assert reader.size == size
            for extent in reader.extents(dirty=False):
                numbers = range(extent.start // CLUSTER, -(-extent.end // CLUSTER))
                if extent.zero:
                    wrong = missing.intersection(numbers)
                    assert all(not any(clusters[number]) for number in wrong), (name, sorted(wrong))
                    continue
                for number in numbers:
                    buffer = bytearray(min(CLUSTER, size - number * CLUSTER))
                    reader.read_into(number * CLUSTER, memoryview(buffer))
                    assert buffer == clusters.get(number, bytes(len(buffer))), (name, number)
                    missing.discard(number)
            assert all(not any(clusters[number]) for number in missing), (name, sorted(missing))

    def compare(self, name: str) -> None:
        """QEMU sees the same."""
        size, clusters = self.points[name]
        raw = self.folder.parent / f"{self.folder.name}.raw"
        with raw.open("wb") as file:
            file.truncate(size)
            for number, data in clusters.items():
                file.seek(number * CLUSTER)
                file.write(data)
        run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", self.folder / name, raw)
        raw.unlink()

    def verify_digests(self, name: str) -> None:
        """The digests of the chain say what the point holds."""
        size, clusters = self.points[name]
        with closing(ChainReader(self.folder, name)) as reader:
            files = [Digests(self.folder / sums_name(image)) for image in reader.names]
        hashing = files[0].hashing
        assert all(file.hashing == hashing for file in files), name
        for number in range(-(-size // CLUSTER)):
            expected = hashing.of(memoryview(clusters.get(number, bytes(CLUSTER))))
            assert composed(files, number) == expected, (name, number)
        for file in files:
            file.close()

    def verify_tidy(self) -> None:
        """There is nothing in the folder but the images of the points and their digests."""
        found = {path.name for path in self.folder.iterdir() if path.suffix not in (".sums", ".partial", ".tmp")}
        assert found == set(self.points)
        assert {path.name for path in self.folder.glob("*.sums")} <= {sums_name(name) for name in self.points}


FORMS = (PLAIN, Form(compression=Compression.ZSTD), Form(cluster=4 * CLUSTER), Form(compression=Compression.ZLIB))


def random_world(folder: Path, seed: int) -> tuple[World, list[str]]:
    """A small chain over several tables, and some points of it to be removed, at random."""
    rng = random.Random(seed)
    folder.mkdir()
    size = rng.choice([40 * CLUSTER, 80 * CLUSTER + 512, 9000 * CLUSTER + 512, 20000 * CLUSTER])
    world = World(folder, size, seed=seed)
    places = [0, 1, 2, 3, 5, 20, 33, 8190, 8191, 8192, 17000]
    points = rng.randint(2, 5)
    form, heavy = rng.choice(FORMS), rng.choice([0, 0, 1])
    for number in range(points):
        if number and rng.random() < 0.2:
            world.resize(size + rng.choice([512, CLUSTER, 70 * CLUSTER]))
        for place in rng.sample(places, rng.randint(5, 9) if number == heavy else rng.randint(1, 4)):
            act = world.zero if number and rng.random() < 0.3 else world.write
            act(place + rng.randint(0, 2), rng.randint(1, 8 if number == heavy else 3))
        world.point(form=form if rng.random() < 0.7 else rng.choice(FORMS))
    below = rng.sample(list(world.points)[:-1], rng.randint(1, points - 1))
    newest = list(world.points)[-1:] if points > 2 and len(below) < points - 1 and rng.random() < 0.2 else []
    return world, sorted(below + newest)


def composed(files: list[Digests], number: int) -> bytes:
    """The digest of a cluster as the files of a chain, the image's own first, tell it."""
    for digests in files:
        if number * CLUSTER >= digests.size:
            break
        digest = digests.of(number)
        if digest != ABSENT:
            return digest
    return ZERO


def content(size: int, clusters: Clusters) -> bytes:
    """The whole disk."""
    whole = bytearray(size)
    for number, data in clusters.items():
        whole[number * CLUSTER : number * CLUSTER + len(data)] = data
    return bytes(whole)
