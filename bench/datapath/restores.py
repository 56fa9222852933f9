# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done with images that are there: a restore, and checking them."""

from __future__ import annotations

import os
from collections.abc import Iterator

from bench.datapath import ours
from bench.datapath.backups import Bench, run
from bench.datapath.disks import change, scattered
from bench.datapath.measure import Row, in_turn, processor_row, wall_row
from bench.datapath.servers import served
from overkeep.model.points import Changes
from overkeep.mover.orders import CopyResult


def restore(bench: Bench) -> Iterator[Row]:
    """A restore of a chain of two images into a new disk."""
    base, top = bench.folder / "base.qcow2", bench.folder / "top.qcow2"
    with served(bench.disk, "--read-only") as disk:
        ours.backup(disk.url, base)
    change(bench.disk, scattered(bench.size, 0.01, seed=9))
    with served(bench.disk, "--read-only") as disk:
        ours.backup(disk.url, top, backing=base.name, changes=Changes.COMPARED)
    target = bench.folder / "restored.raw"
    command = ["qemu-img", "convert", "-n", "-W", "-m", "16", "-t", "none", "-T", "none", "-f", "qcow2", "-O", "raw"]
    with target.open("wb") as file:
        os.truncate(file.fileno(), bench.size)
    with served(target, "--discard=unmap", "--detect-zeroes=unmap") as disk:
        results: list[CopyResult] = []

        def mine() -> None:
            ours.forget(base, top)
            results.append(ours.restored(top, disk.url))

        def theirs() -> None:
            ours.forget(base, top)
            run(*command, top, disk.url)

        pairs = in_turn(mine, theirs, rounds=bench.rounds, servers=[disk.pid])
    yield wall_row("restore", "qemu-img convert -n", pairs, 1.0, **results[-1].stages)
    yield processor_row("restore", "qemu-img convert -n", pairs, 0.0)
    for image in (base, top):
        ours.remove(image)
    target.unlink()
