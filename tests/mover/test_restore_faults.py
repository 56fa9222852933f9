# SPDX-License-Identifier: GPL-3.0-or-later
"""Restores to disks whose server fails, breaks off, answers in part or not at all: each ends, and can be repeated."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from overkeep.blocks import nbd as nbd_ends
from overkeep.blocks.errors import DiskFailed, DiskFull, DiskLost, DiskReadOnly, DiskUnreachable
from overkeep.blocks.memory import MemoryDisk
from overkeep.blocks.nbd import NbdSink, NbdSource
from overkeep.errors import Cancelled, OverkeepError
from overkeep.model.points import Changes
from overkeep.mover.copy_terms import Options, interruptible
from overkeep.mover.disk_copies import differing, restore
from overkeep.mover.orders import Access, CopyOrder, CopyResult, OrderState, Progress
from overkeep.units import KIB, MIB
from tests.mover.bench import SPEED, Bench, assert_same, tool
from tests.mover.proxy import NbdProxy
from tests.mover.shelf import Shelf, Watching, scribble

DISK = 24 * MIB
SECTOR = 512


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """A chain of two points of a disk, in `disk`."""
    shelf = Shelf(tmp_path / "chain")
    shelf.folder.mkdir()
    return shelf


@pytest.fixture
def disk(shelf: Shelf) -> MemoryDisk:
    disk = MemoryDisk(DISK)
    rng = random.Random(11)
    disk.write(2 * MIB, memoryview(rng.randbytes(9 * MIB)))
    shelf.back_up(disk, Changes.ALL)
    disk.mark()
    scribble(disk, rng, 8)
    disk.write(20 * MIB, memoryview(rng.randbytes(2 * MIB)))
    shelf.back_up(disk, Changes.TRACKED)
    return disk


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """The disk that is restored to, full of something else."""
    path = tmp_path / "victim"
    path.write_bytes(b"x" * DISK)
    return path


@contextmanager
def no_thread_left() -> Iterator[None]:
    """After the body no worker of a copy is at work any more."""
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("copy-")]


class Moved(Watching):
    """Does something once when the first data have been written, over connections that are open by then."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._act = act
        self._done = False

    def progress(self, progress: Progress) -> None:
        super().progress(progress)
        if progress.moved and not self._done:
            self._done = True
            self._act()


def try_to_restore(shelf: Shelf, url: str, *, watch: Watching | None = None) -> CopyResult:
    with no_thread_left(), closing(NbdSink(url)) as sink:
        return restore(shelf.place, sink, options=Options(), watch=watch or Watching())


def faulty(victim: Path, folder: Path, what: str, number: int, sector: int = -1) -> str:
    """Options of a disk of which one request of a kind fails, the first or the one that touches a sector."""
    config = folder / "faults.conf"
    config.write_text(
        f'[inject-error]\nevent = "none"\niotype = "{what}"\nerrno = "{number}"\nsector = "{sector}"\nonce = "on"\n'
    )
    return f"driver=raw,file.driver=blkdebug,file.config={config},file.image.driver=file,file.image.filename={victim}"


ANSWERS = [
    ("write", 5, 3 * MIB // SECTOR, DiskFailed),
    ("write", 28, 10 * MIB // SECTOR, DiskFull),
    ("write", 1, 21 * MIB // SECTOR, DiskReadOnly),
    ("write-zeroes", 5, -1, DiskFailed),
    ("write-zeroes", 28, -1, DiskFull),
    ("flush", 5, -1, DiskFailed),
    ("flush", 28, -1, DiskFull),
]


@pytest.mark.parametrize(("what", "number", "sector", "expected"), ANSWERS)
def test_a_request_that_fails_ends_the_restore_and_the_next_is_whole(
    shelf: Shelf,
    disk: MemoryDisk,
    victim: Path,
    nbd: Any,
    tmp_path: Path,
    what: str,
    number: int,
    sector: int,
    expected: type[OverkeepError],
) -> None:
    url = nbd.serve_options(faulty(victim, tmp_path, what, number, sector))
    with pytest.raises(expected) as caught:
        try_to_restore(shelf, url)
    assert caught.value.retry is (expected is DiskFailed)
    done = try_to_restore(shelf, url)
    assert done.virtual_size == DISK
    nbd.stop()  # killed: what was not made durable would be lost
    assert victim.read_bytes() == disk.content


# An answer to a write is 16 bytes: between two of them, in the middle of one, and in that of the first.
@pytest.mark.parametrize("at", [16 * 2, 16 * 5 + 7, 1])
@pytest.mark.parametrize("workers", [1, 8])
def test_a_connection_that_breaks_ends_the_restore_and_the_next_is_whole(
    shelf: Shelf,
    disk: MemoryDisk,
    victim: Path,
    nbd: Any,
    proxied: Callable[[str], NbdProxy],
    at: int,
    workers: int,
) -> None:
    proxy = proxied(nbd.serve_raw(victim))
    proxy.break_after(at, sent=MIB)  # then the greetings of one worker are over, and most answers are still to come
    with closing(NbdSink(proxy.url)) as sink, no_thread_left(), pytest.raises((DiskLost, DiskUnreachable)) as caught:
        restore(shelf.place, sink, options=Options(workers=workers), watch=Watching())
    assert proxy.broken == 1
    assert caught.value.retry
    assert isinstance(caught.value, DiskLost) or workers > 1  # of several it may be a greeting that was broken off
    try_to_restore(shelf, proxy.url)
    nbd.stop()
    assert victim.read_bytes() == disk.content


def test_after_a_break_only_what_is_missing_is_written(
    shelf: Shelf, disk: MemoryDisk, victim: Path, nbd: Any, proxied: Callable[[str], NbdProxy]
) -> None:
    """The disk that is read before is read on over a new connection when the first one breaks."""
    proxy = proxied(nbd.serve_raw(victim))
    with closing(NbdSink(proxy.url)) as sink, pytest.raises(DiskLost):
        restore(shelf.place, sink, options=Options(workers=1), watch=Moved(lambda: proxy.break_after(1)))
    opened = proxy.opened
    with closing(NbdSource(proxy.url)) as present:
        proxy.break_after(5 * MIB)
        only = differing(shelf.place, present, options=Options(workers=1), watch=Watching())
    assert proxy.broken == 2
    assert proxy.opened == opened + 3  # for the size, to read, and one in place of the second
    with closing(NbdSink(proxy.url)) as sink:
        done = restore(shelf.place, sink, only=only, options=Options(), watch=Watching())
    assert 0 < done.covered < DISK
    nbd.stop()
    assert victim.read_bytes() == disk.content


@pytest.mark.parametrize("stop", [False, True], ids=["answers", "patience"])
def test_a_server_that_stops_to_answer_holds_nobody(
    shelf: Shelf, disk: MemoryDisk, victim: Path, nbd: Any, monkeypatch: pytest.MonkeyPatch, stop: bool
) -> None:
    """The copy ends by its own limit, or within two seconds when it is cancelled."""
    monkeypatch.setattr(nbd_ends, "ANSWER_SECONDS", 60 if stop else 1)
    url = nbd.serve_raw(victim)
    stopped: list[float] = []

    def halt() -> None:
        nbd.newest.send_signal(signal.SIGSTOP)
        stopped.append(time.monotonic())
        if stop:
            threading.Timer(0.5, watch.stop, [Cancelled(what="The copy")]).start()

    watch = Moved(halt)
    try:
        with (
            interruptible(watch) as sockets,
            closing(NbdSink(url, sockets=sockets)) as sink,
            no_thread_left(),
            pytest.raises(OverkeepError) as caught,
        ):
            restore(shelf.place, sink, options=Options(workers=1), watch=watch)
    finally:
        nbd.newest.send_signal(signal.SIGCONT)
    assert time.monotonic() - stopped[0] < 0.5 + 2 + (0 if stop else 10)
    assert watch.stopped is stop
    if not stop:
        assert isinstance(caught.value, DiskLost)
        assert caught.value.retry
    try_to_restore(shelf, url)
    nbd.stop()
    assert victim.read_bytes() == disk.content


def test_a_server_that_dies_is_found_in_mid_restore(shelf: Shelf, disk: MemoryDisk, victim: Path, nbd: Any) -> None:
    url = nbd.serve_raw(victim)
    with closing(NbdSink(url)) as sink, no_thread_left(), pytest.raises((DiskLost, DiskUnreachable)):
        restore(shelf.place, sink, options=Options(), watch=Moved(nbd.newest.kill))
    try_to_restore(shelf, nbd.serve_raw(victim))
    nbd.stop()
    assert victim.read_bytes() == disk.content


def test_the_order_of_a_restore_fails_and_the_next_one_does_it(
    bench: Bench, nbd: Any, proxied: Callable[[str], NbdProxy], tmp_path: Path
) -> None:
    """The same through a whole mover: first the connection breaks, then the storage is full, then it has room."""
    source = tmp_path / "source.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", source, "64M")
    tool("qemu-io", "-f", "qcow2", "-c", "write -P 0x41 0 20M", "-c", "write -P 0x42 40M 3M", source)
    bench.done(bench.backup(nbd(source)))
    new = tmp_path / "new.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", new, "64M")
    proxy = proxied(nbd(new, write=True, speed=SPEED))
    ticket = bench.tickets.add(proxy.url, op="write")
    order = CopyOrder(host="host1", source=bench.image("p1.qcow2"), sink=Access(ticket=ticket))
    bench.client.put("r:d:1", order)
    bench.until_moving("r:d:1")
    proxy.break_after(1)
    lost = bench.follow("r:d:1")
    assert (lost.state, lost.error_code, lost.retry) == (OrderState.FAILED, "disk-lost", True)
    bench.done(order.model_copy(update={"fence": 2}), "r:d:2")
    assert bench.tickets.remove(ticket) == 204
    nbd.stop()
    assert_same(source, new)
    (tmp_path / "raw").write_bytes(os.urandom(64 * KIB) + bytes(64 * MIB - 64 * KIB))
    url = nbd.serve_options(faulty(tmp_path / "raw", tmp_path, "write", 28))
    again = CopyOrder(
        host="host1", source=bench.image("p1.qcow2"), sink=Access(ticket=bench.tickets.add(url, op="write"))
    )
    full = bench.failed(again, "s:d:1")
    assert (full.error_code, full.retry) == ("disk-full", False)
    bench.done(again.model_copy(update={"fence": 2, "differential": True}), "s:d:2")
    nbd.stop()
    tool("qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", source, tmp_path / "raw")
