# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done with images that are there: restoring, merging and verifying them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.datapath import ours
from bench.datapath.backups import Bench, run
from bench.datapath.disks import CLUSTER, change, scattered
from bench.datapath.measure import (
    Act,
    Pairs,
    Row,
    Task,
    cost,
    in_turn,
    limit_row,
    median_stages,
    processor_row,
    wall_row,
)
from bench.datapath.servers import Served, served
from overkeep.blocks.merge.acts import MergeStats, merge_away
from overkeep.blocks.merge.making import Watch
from overkeep.blocks.verify import Findings, verify_image
from overkeep.model.points import Changes
from overkeep.mover.orders import CopyResult
from overkeep.repository.merging import MergeJournal
from overkeep.units import MIB


def restore(bench: Bench) -> Iterator[Row]:
    """A restore of a chain of two images into a disk that is made anew for each run, with its server."""
    base, top = bench.folder / "base.qcow2", bench.folder / "top.qcow2"
    with served(bench.disk, "--read-only") as disk:
        ours.backup(disk.url, base)
    change(bench.disk, scattered(bench.size, 0.01, seed=9))
    with served(bench.disk, "--read-only") as disk:
        ours.backup(disk.url, top, backing=base.name, changes=Changes.COMPARED)
    command = ["qemu-img", "convert", "-n", "-W", "-m", "16", "-t", "none", "-T", "none", "-f", "qcow2", "-O", "raw"]
    results: list[CopyResult] = []
    acts: dict[str, Callable[[str], object]] = {
        "ours": lambda url: results.append(ours.restored(top, url)),
        "theirs": lambda url: run(*command, top, url),
    }
    pairs = Pairs([], [])
    for number in range(bench.rounds):
        for whose in list(acts)[:: -1 if number % 2 else 1]:
            ours.forget(base, top)
            with _new_disk(bench) as disk:
                getattr(pairs, whose).append(cost(partial(acts[whose], disk.url), [disk.pid]))
    yield wall_row("restore", "qemu-img convert -n", pairs, 1.0, **median_stages([each.stages for each in results]))
    yield processor_row("restore", "qemu-img convert -n", pairs, 0.0)
    for image in (base, top):
        ours.remove(image)


@contextmanager
def _new_disk(bench: Bench) -> Iterator[Served]:
    target = bench.folder / "restored.raw"
    with target.open("wb") as file:
        os.truncate(file.fileno(), bench.size)
    with served(target, "--discard=unmap", "--detect-zeroes=unmap") as disk:
        yield disk
    target.unlink()


def merge(bench: Bench) -> Iterator[Row]:
    """A full image and an overlay with a tenth of the clusters become one; both are copied anew for each run."""
    base, top = bench.folder / "base.qcow2", bench.folder / "top.qcow2"
    with served(bench.disk, "--read-only") as disk:
        ours.backup(disk.url, base)
    places = scattered(bench.size, 0.1, seed=11)
    change(bench.disk, places)
    with served(bench.disk, "--read-only") as disk:
        ours.backup(disk.url, top, backing=base.name, changes=Changes.COMPARED)
    pairs, stats = Pairs([], []), list[MergeStats]()
    folder = bench.folder / "merged"
    acts: dict[str, Act] = {
        "ours": lambda: stats.append(_merged(folder, base.name)),
        "theirs": lambda: run("qemu-img", "commit", "-t", "none", folder / top.name),
    }
    for _ in range(bench.rounds):
        for whose, act in acts.items():
            _copied(base, top, folder)
            getattr(pairs, whose).append(cost(act))
            shutil.rmtree(folder)
    stages = median_stages([each.stages for each in stats])
    yield wall_row("merge, overlay of 10 %", "qemu-img commit", pairs, 1.0, **stages)
    moved, smaller = stats[-1].moved, len(places) * CLUSTER
    yield limit_row("merge, bytes moved", "the smaller side", moved / MIB, smaller / MIB, "MiB")
    for image in (base, top):
        ours.remove(image)


def _merged(folder: Path, removed: str) -> MergeStats:
    return merge_away(folder, [removed], journal=MergeJournal(folder), watch=Watch())


def _copied(base: Path, top: Path, folder: Path) -> None:
    folder.mkdir()
    for image in (base, top):
        for path in (image, image.with_suffix(".sums")):
            run("cp", "--sparse=always", path, folder)
    paths = list(folder.iterdir())
    run("sync", *paths)
    ours.forget(*paths)


def verify(bench: Bench) -> Iterator[Row]:
    """A full image is read and compared with its digests."""
    image = bench.folder / "image.qcow2"
    with served(bench.disk, "--read-only") as disk:
        ours.backup(disk.url, image)
    found: list[Findings] = []

    mine = Task(lambda: found.append(verify_image(image.parent, image.name)), lambda: ours.forget(image))
    theirs = Task(lambda: run("sha256sum", image), lambda: ours.forget(image))
    pairs = in_turn(mine, theirs, rounds=bench.rounds)
    if not all(each.sound for each in found):
        raise RuntimeError(f"the image is not sound: {found[-1]}")
    yield wall_row("verify", "sha256sum", pairs, 1.5, **median_stages([dict(each.stages) for each in found]))
    ours.remove(image)
