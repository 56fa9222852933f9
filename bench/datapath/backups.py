# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of one disk: full, compressed, incremental, compared, and of a disk that is empty."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.datapath import ours
from bench.datapath.disks import CLUSTER, change, scattered
from bench.datapath.floor import copy_bare
from bench.datapath.measure import Pairs, Row, Task, in_turn, limit_row, median_stages, processor_row, wall_row
from bench.datapath.servers import Host, Served, served
from overkeep.blocks.compression import Compression
from overkeep.blocks.qcow2.form import Form
from overkeep.model.points import Changes
from overkeep.mover.copy_terms import Options
from overkeep.mover.orders import CopyResult
from overkeep.units import MIB, TIB

_CONVERT = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-W", "-m", "16", "-t", "none"]
_SHARE = 0.01  # of the clusters of the disk, for an incremental


@dataclass(frozen=True)
class Bench:
    """The disk to back up, where to, and how often."""

    disk: Path
    size: int
    folder: Path
    rounds: int


class _Ours:
    """A backup of ours, with the results of its runs."""

    def __init__(self, url: str, image: Path, **how: object) -> None:
        self._url, self._image, self._how = url, image, how
        self.results: list[CopyResult] = []

    @property
    def task(self) -> Task:
        """The backup as it is measured; what an earlier run made is removed before."""
        return Task(self._run, prepare=lambda: ours.remove(self._image))

    def _run(self) -> None:
        self.results.append(ours.backup(self._url, self._image, **self._how))  # type: ignore[arg-type]

    @property
    def stages(self) -> dict[str, float]:
        """Where the time went."""
        return median_stages([result.stages for result in self.results])


def run(*command: object) -> None:
    """Run a tool to its end, its output for nobody."""
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)


def _tool(result: Path, *command: object) -> Task:
    """A tool that makes `result`; what an earlier run made is removed before."""
    return Task(lambda: run(*command), prepare=lambda: result.unlink(missing_ok=True))


def full(bench: Bench, host: Host) -> Iterator[Row]:
    """A full backup against all tools, onto a local disk and onto the NFS target."""
    theirs = bench.folder / "theirs.qcow2"
    with served(bench.disk, "--read-only") as disk:
        mine = _Ours(disk.url, bench.folder / "ours.qcow2")
        act = _tool(theirs, *_CONVERT, disk.url, theirs)
        pairs = in_turn(mine.task, act, rounds=bench.rounds, before=disk.restart, servers=lambda: [disk.pid])
        yield wall_row("full backup", "qemu-img convert", pairs, 1.15, **mine.stages)
        yield processor_row("full backup", "qemu-img convert", pairs, round(1 / 1.3, 2))
        yield from _against_bare_copies(bench, disk, theirs)
        for how, required in (("unix", 1.8), ("TLS", 2.2)):
            pairs = _against_imageio(bench, host, disk, how)
            yield wall_row("full backup", f"ovirt-imageio client, {how}", pairs, required)
            yield processor_row("full backup", f"ovirt-imageio client, {how}", pairs, 3.0)
        yield wall_row("full backup", "nbdcopy to qemu-nbd", _against_nbdcopy(bench, disk), 1.5)
        yield _onto_nfs(bench, host, disk)


def _against_bare_copies(bench: Bench, disk: Served, image: Path) -> Iterator[Row]:
    """How near a backup comes to what the disks allow; `image`, made by a tool, has as many bytes."""
    target = bench.folder / "bare"
    mine = _Ours(disk.url, bench.folder / "ours.qcow2")
    for against, as_a_server in (("large pages", False), ("a server's pages", True)):
        copy = partial(copy_bare, image, target, as_a_server=as_a_server)
        act = Task(copy, prepare=lambda: target.unlink(missing_ok=True))
        pairs = in_turn(mine.task, act, rounds=bench.rounds, before=disk.restart)
        yield wall_row("full backup", f"the disks alone, {against}", pairs, 0.0)
    target.unlink()


def _against_imageio(bench: Bench, host: Host, disk: Served, how: str) -> Pairs:
    theirs = bench.folder / "theirs.qcow2"
    url = host.ticket(disk.url, size=bench.size)
    client = [sys.executable, "-m", "bench.datapath.imageio", url, theirs, host.ca_file]
    act = _tool(theirs, *(host.enter if how == "unix" else []), *client)
    mine = _Ours(disk.url, bench.folder / "ours.qcow2")
    # the server of the disk works the same for both: what is compared is the client and the daemon with our copy
    return in_turn(mine.task, act, rounds=bench.rounds, before=disk.restart, servers=lambda: [host.imageio_pid])


def _against_nbdcopy(bench: Bench, disk: Served) -> Pairs:
    theirs = bench.folder / "theirs.qcow2"

    def prepare() -> None:
        theirs.unlink(missing_ok=True)
        run("qemu-img", "create", "-f", "qcow2", theirs, bench.size)

    def act() -> None:
        with served(theirs, form="qcow2") as target:
            run("nbdcopy", "--flush", _standard(disk.url), _standard(target.url))

    mine = _Ours(disk.url, bench.folder / "ours.qcow2")
    return in_turn(mine.task, Task(act, prepare), rounds=bench.rounds, before=disk.restart)


def _standard(url: str) -> str:
    """The URL as libnbd takes it."""
    return "nbd+unix:///?socket=" + url.removeprefix("nbd:unix:")


def _onto_nfs(bench: Bench, host: Host, disk: Served) -> Row:
    theirs, image = host.target / "theirs.qcow2", host.target / "ours.qcow2"
    mine = _Ours(disk.url, image)
    act = _tool(theirs, *_CONVERT, disk.url, theirs)
    pairs = in_turn(mine.task, act, rounds=bench.rounds, before=disk.restart)
    theirs.unlink()
    ours.remove(image)
    return wall_row("full backup onto NFS", "qemu-img convert", pairs, 1.3, **mine.stages)


def compressed(bench: Bench) -> Iterator[Row]:
    """A backup with zstd, with what either tool does when it is told nothing more."""
    theirs, image = bench.folder / "theirs.qcow2", bench.folder / "packed.qcow2"
    command = ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd"]
    with served(bench.disk, "--read-only") as disk:
        mine = _Ours(disk.url, image, options=Options(form=Form(compression=Compression.ZSTD)))
        act = _tool(theirs, *command, disk.url, theirs)
        pairs = in_turn(mine.task, act, rounds=max(1, bench.rounds // 2 + 1), before=disk.restart)
        yield wall_row("zstd backup", "qemu-img convert -c", pairs, 2.5, **mine.stages)
    size, limit = image.stat().st_size, theirs.stat().st_size * 1.05
    yield limit_row("zstd backup, size", "qemu-img convert -c + 5 %", size / MIB, limit / MIB, "MiB")
    ours.remove(image)


def incremental(bench: Bench, host: Host) -> Iterator[Row]:
    """An incremental of clusters that changed at random places, tracked by a dirty bitmap."""
    disk = bench.folder / "tracked.qcow2"
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", bench.disk, disk)
    base = bench.folder / "base.qcow2"
    with served(disk, "--read-only", form="qcow2") as full_disk:
        ours.backup(full_disk.url, base)
    run("qemu-img", "bitmap", "--add", disk, "cp1")
    places = scattered(bench.size, _SHARE, seed=3)
    writes = [word for offset in places for word in ("-c", f"write -P {offset // CLUSTER % 250 + 1} {offset} 64k")]
    for first in range(0, len(writes), 2000):
        run("qemu-io", "-f", "qcow2", *writes[first : first + 2000], disk)
    theirs, image = bench.folder / "theirs.qcow2", bench.folder / "ours.qcow2"
    with served(disk, "--read-only", "--bitmap=cp1", form="qcow2") as changed:
        url = host.ticket(changed.url, size=bench.size, dirty=True)
        mine = _Ours(changed.url, image, backing=base.name, changes=Changes.TRACKED)
        client = [sys.executable, "-m", "bench.datapath.imageio", url, theirs, host.ca_file, base.name]
        act = _tool(theirs, *host.enter, *client)
        pairs = in_turn(mine.task, act, rounds=bench.rounds, before=changed.restart)
    yield wall_row("incremental, 1 % at random", "ovirt-imageio client, unix", pairs, 2.5, **mine.stages)
    stored, limit = image.stat().st_size, 1.02 * len(places) * CLUSTER + MIB
    yield limit_row("incremental, bytes written", "1.02 x changed + 1 MiB", stored / MIB, limit / MIB, "MiB")
    ours.remove(image)
    ours.remove(base)
    disk.unlink()


def compared(bench: Bench) -> Iterator[Row]:
    """A backup of a disk that does not tell what changed, of which a hundredth did."""
    base, image = bench.folder / "base.qcow2", bench.folder / "ours.qcow2"
    with served(bench.disk, "--read-only") as disk:
        ours.backup(disk.url, base)
    places = scattered(bench.size, _SHARE, seed=5)
    change(bench.disk, places)
    with served(bench.disk, "--read-only") as disk:
        mine = _Ours(disk.url, image, backing=base.name, changes=Changes.COMPARED)
        act = Task(lambda: run("nbdcopy", _standard(disk.url), "null:"))
        pairs = in_turn(mine.task, act, rounds=bench.rounds, before=disk.restart)
    yield wall_row("compare mode, 1 % changed", "nbdcopy to nothing", pairs, 0.8, **mine.stages)
    stored, limit = image.stat().st_size, 1.02 * len(places) * CLUSTER + MIB
    yield limit_row("compare mode, bytes written", "1.02 x changed + 1 MiB", stored / MIB, limit / MIB, "MiB")
    ours.remove(image)
    ours.remove(base)


# VmHWM, as the peak that getrusage tells of a new process begins with that of its parent
_EMPTY = """
import re, sys, time
from pathlib import Path
from bench.datapath import ours
began = time.monotonic()
ours.backup(sys.argv[1], Path(sys.argv[2]))
peak = re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())
print(time.monotonic() - began, int(peak[1]) / 1024)
"""


def empty(bench: Bench) -> Iterator[Row]:
    """A disk of 8 TiB that holds nothing, in a process of its own to see its memory."""
    disk, image = bench.folder / "empty.qcow2", bench.folder / "ours.qcow2"
    run("qemu-img", "create", "-f", "qcow2", disk, 8 * TIB)
    with served(disk, "--read-only", form="qcow2") as nothing:
        command = [sys.executable, "-c", _EMPTY, nothing.url, str(image)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, memory = map(float, said.split())
    yield limit_row("empty disk of 8 TiB", "", seconds, 5.0, "s")
    yield limit_row("empty disk of 8 TiB, memory", "", memory, 150.0, "MiB")
    yield limit_row("empty disk of 8 TiB, image", "", image.stat().st_size / MIB, 2.0, "MiB")
    ours.remove(image)
    disk.unlink()
