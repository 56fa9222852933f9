# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures backup and restore of one disk against `qemu-img convert` on the same NBD socket, pair by pair.

`python bench/copy.py [--target T] [--folder F] [--size GIB] [--data GIB] [--rounds N]`: prints medians and ratios;
below 1 is faster, or less processor time, than qemu-img. The disks of the VM lie in the folder, the images in the
target; both are the working folder unless named, and a target on NFS is measured by naming a folder of its mount.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path[:] = sys.path[1:]  # this folder's copy.py must not stand in for Python's own module of that name

import argparse
import os
import random
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from overkeep.blocks.copy import CHUNK, WORKERS, copy
from overkeep.blocks.errors import DiskUnreachable
from overkeep.blocks.image import ChainReader, ImageSink
from overkeep.blocks.nbd import NbdSink, NbdSource
from overkeep.units import GIB, MIB

_DEADLINE = 20.0


@dataclass(frozen=True)
class Cost:
    """Wall time and own processor time of one run, in seconds; the server's is not counted."""

    wall: float
    processor: float


def main() -> None:
    """Measure and print."""
    options = _options()
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as name,
        tempfile.TemporaryDirectory(dir=options.target or options.folder) as target_name,
    ):
        folder, target = Path(name), Path(target_name)
        source, restored = folder / "source.raw", folder / "restored.raw"
        _make_disk(source, size=options.size * GIB, data=options.data * GIB)
        restored.touch()
        os.truncate(restored, options.size * GIB)
        with _served(source, "--read-only") as url:
            backup = [_backup_pair(url, target, options, number=number) for number in range(options.rounds)]
        with _served(restored, "--discard=unmap") as url:
            restore = [_restore_pair(url, target, options, number=number) for number in range(options.rounds)]
    _say(f"{options.size} GiB holding {options.data} GiB, {options.rounds} pairs, {options.workers} workers")
    _report("backup", backup)
    _report("restore", restore)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--target", type=Path)
    parser.add_argument("--size", type=int, default=4, help="virtual size in GiB")
    parser.add_argument("--data", type=int, default=1, help="GiB of it that hold data")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--chunk", type=int, default=CHUNK // MIB, help="MiB")
    return parser.parse_args()


def _make_disk(path: Path, *, size: int, data: int) -> None:
    """Spread `data` bytes in pieces of 1 to 16 MiB over the disk."""
    rng = random.Random(1)  # noqa: S311 - the same disk each time
    noise = rng.randbytes(16 * MIB)
    places = [place * 16 * MIB for place in rng.sample(range(size // (16 * MIB)), size // (16 * MIB))]
    with path.open("wb") as file:
        file.truncate(size)
        while data > 0 and places:
            length = min(data, rng.randint(1, 16) * MIB if len(places) * 16 * MIB > 2 * data else 16 * MIB)
            file.seek(places.pop())
            file.write(noise[:length])
            data -= length
        os.fsync(file.fileno())


@contextmanager
def _served(image: Path, *flags: str) -> Iterator[str]:
    """Serve `image` as VDSM does."""
    path = image.with_suffix(".sock")
    url = f"nbd:unix:{path}"
    command = ["qemu-nbd", "--persistent", "--shared=8", "--format=raw", "--cache=none", "--aio=native"]
    with subprocess.Popen([*command, f"--socket={path}", *flags, str(image)]) as server:
        try:
            _await_server(url)
            yield url
        finally:
            server.kill()


def _await_server(url: str) -> None:
    deadline = time.monotonic() + _DEADLINE
    while True:
        try:
            NbdSource(url).close()
        except DiskUnreachable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _backup_pair(url: str, folder: Path, options: argparse.Namespace, *, number: int) -> tuple[Cost, Cost]:
    def ours() -> None:
        with closing(NbdSource(url)) as disk, closing(ImageSink(folder, "ours.qcow2", size=disk.size)) as image:
            copy(disk, image, disk.extents(dirty=False), workers=options.workers, chunk=options.chunk * MIB)

    theirs = ["qemu-img", "convert", "-W", "-m", "16", "-t", "none", "-T", "none", "-f", "raw", "-O", "qcow2", url]
    return _pair(ours, [*theirs, str(folder / "theirs.qcow2")], number)


def _restore_pair(url: str, folder: Path, options: argparse.Namespace, *, number: int) -> tuple[Cost, Cost]:
    def ours() -> None:
        with closing(ChainReader(folder, "ours.qcow2")) as chain, closing(NbdSink(url)) as disk:
            copy(chain, disk, chain.extents(dirty=False), workers=options.workers, chunk=options.chunk * MIB)

    image = str(folder / "theirs.qcow2")
    theirs = [
        "qemu-img",
        "convert",
        "-n",
        "-W",
        "-m",
        "16",
        "-t",
        "none",
        "-T",
        "none",
        "-f",
        "qcow2",
        "-O",
        "raw",
        image,
    ]
    return _pair(ours, [*theirs, url], number)


def _pair(ours: Callable[[], None], theirs: list[str], number: int) -> tuple[Cost, Cost]:
    """Run both, every other time in the other order: the second finds the disk still busy with the first."""
    runs: list[Callable[[], object]] = [ours, lambda: subprocess.run(theirs, check=True)]
    if number % 2:
        return _cost(runs[0]), _cost(runs[1])
    second = _cost(runs[1])
    return _cost(runs[0]), second


def _cost(act: Callable[[], object]) -> Cost:
    os.sync()
    before, started = _processor(), time.monotonic()
    act()
    return Cost(time.monotonic() - started, _processor() - before)


def _processor() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _report(what: str, pairs: list[tuple[Cost, Cost]]) -> None:
    for measure in ("wall", "processor"):
        ours, theirs = ([getattr(pair[who], measure) for pair in pairs] for who in (0, 1))
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        medians = f"{statistics.median(ours):6.2f} s   qemu-img {statistics.median(theirs):6.2f} s"
        _say(f"{what:8} {measure:10} overkeep {medians}   ratio {ratio:.2f}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
