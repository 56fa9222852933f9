# SPDX-License-Identifier: GPL-3.0-or-later
"""What is put round an end: it changes what it is for, and nothing else."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from overkeep.blocks.buffers import aligned_buffer
from overkeep.blocks.copy import copy
from overkeep.blocks.errors import BadRange, DiskLost, DiskUnreachable
from overkeep.blocks.memory import MemoryDisk
from overkeep.blocks.nbd import CONNECT_SECONDS, NbdSource
from overkeep.blocks.sockets import Sockets
from overkeep.blocks.stages import Stages
from overkeep.blocks.wrappers import Bandwidth, Retrying, Throttled, Timed
from overkeep.errors import Cancelled
from overkeep.testing.ends import FaultySource
from overkeep.units import MIB
from tests.blocks.conftest import wait_for

CANCELLED_WITHIN = 2.0  # seconds


@pytest.fixture
def disk() -> MemoryDisk:
    made = MemoryDisk(8 * MIB)
    made.write(0, memoryview(os.urandom(8 * MIB)))
    return made


def test_all_of_them_together_copy_the_disk(disk: MemoryDisk) -> None:
    stages, copied = Stages(), MemoryDisk(disk.size)
    faulty = FaultySource(disk, fails={2, 5})
    source = Timed(Throttled(Retrying(faulty), Bandwidth(1 << 30)), stages)
    copy(source, copied, source.extents(dirty=False), workers=3, chunk=MIB)
    assert copied.content == disk.content
    assert faulty.reads.made == 8 + 2
    assert stages.seconds["source"] > 0


@pytest.mark.parametrize(("fails", "pauses", "reads"), [({1, 2, 3}, (0, 0), 3), ({1}, (), 1), ({1, 2}, (0,), 2)])
def test_the_first_error_counts_when_no_attempt_helps(
    disk: MemoryDisk, fails: set[int], pauses: Sequence[float], reads: int
) -> None:
    faulty = FaultySource(disk, fails=fails)
    with pytest.raises(DiskLost, match="request 1"):
        Retrying(faulty, pauses=pauses).read_into(0, aligned_buffer(MIB))
    assert faulty.reads.made == reads


def test_what_no_retry_cures_is_not_tried_again(disk: MemoryDisk) -> None:
    faulty = FaultySource(disk, fails=set())
    with pytest.raises(BadRange):
        Retrying(faulty).read_into(disk.size, aligned_buffer(MIB))
    assert faulty.reads.made == 1
    stopped = FaultySource(disk, fails={1})
    with pytest.raises(DiskLost):
        Retrying(stopped, stopped=lambda: True).read_into(0, aligned_buffer(MIB))
    assert stopped.reads.made == 1


def test_a_lost_connection_is_made_anew(tmp_path: Path, qemu: Callable[..., str], serve: Callable[..., str]) -> None:
    image = tmp_path / "disk"
    image.write_bytes(os.urandom(4 * MIB))
    source = NbdSource(serve(image))
    retrying = Retrying(source)
    source._client._sock.shutdown(socket.SHUT_RDWR)  # as a broken network does; an interrupt is for good
    buffer = aligned_buffer(MIB)
    retrying.read_into(MIB, buffer)
    assert buffer == image.read_bytes()[MIB : 2 * MIB]
    retrying.close()


def test_a_server_that_is_started_anew_is_waited_for(
    tmp_path: Path, serve: Callable[..., str], servers: list[subprocess.Popen[bytes]]
) -> None:
    image = tmp_path / "disk"
    image.write_bytes(os.urandom(8 * MIB))
    source = NbdSource(serve(image, "--read-only"))
    failures = 0

    def is_seldom_back() -> bool:
        """Asked before each wait: the server comes back when something has failed four times."""
        nonlocal failures
        failures += 1
        if failures == 4:
            servers.append(subprocess.Popen(servers[0].args))
        return False

    def kill(covered: int, moved: int) -> None:
        servers[0].kill()

    copied = MemoryDisk(source.size)
    retrying = Retrying(source, pauses=(0.1,) * 100, stopped=is_seldom_back)
    with closing(retrying):
        copy(retrying, copied, source.extents(dirty=False), workers=3, chunk=MIB, progress=kill)
    assert len(servers) == 2
    assert copied.content == image.read_bytes()


def test_it_waits_before_it_reads_again_and_not_when_told_to_stop(disk: MemoryDisk) -> None:
    begin = time.monotonic()
    Retrying(FaultySource(disk, fails={1, 2}), pauses=(0.1, 0.2)).read_into(0, aligned_buffer(MIB))
    assert time.monotonic() - begin >= 0.3
    answers = iter([False, True])
    begin = time.monotonic()
    with pytest.raises(DiskLost):
        Retrying(FaultySource(disk, fails={1}), pauses=(900,), stopped=lambda: next(answers, True)).read_into(
            0, aligned_buffer(MIB)
        )
    assert time.monotonic() - begin < 900


def test_an_interrupted_disk_fails_at_once_and_for_good(tmp_path: Path, serve: Callable[..., str]) -> None:
    image = tmp_path / "disk"
    image.write_bytes(os.urandom(4 * MIB))
    sockets = Sockets()
    source = NbdSource(serve(image), sockets=sockets)
    clone = source.clone()
    sockets.interrupt()
    for end in (source, clone):
        with pytest.raises(DiskLost):
            end.read_into(0, aligned_buffer(MIB))
        end.close()
    with pytest.raises(DiskUnreachable):
        source.clone()


class Connecting:
    """A thread that opens a disk at a port, which does not succeed, and can be interrupted."""

    def __init__(self, port: int) -> None:
        self._sockets, self._caught = Sockets(), list[BaseException]()
        self._url = f"nbd://127.0.0.1:{port}/"
        self._thread = threading.Thread(target=self._connect)
        self._thread.start()

    def _connect(self) -> None:
        try:
            NbdSource(self._url, sockets=self._sockets)
        except DiskUnreachable as error:
            self._caught.append(error)

    def interrupt(self) -> float:
        """Interrupt; return after how many seconds it has failed."""
        begin = time.monotonic()
        self._sockets.interrupt()
        self._thread.join(CONNECT_SECONDS)
        assert len(self._caught) == 1
        return time.monotonic() - begin


def test_a_handshake_that_hangs_can_be_interrupted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections and never says a word
        connecting = Connecting(server.getsockname()[1])
        accepted, _ = server.accept()
        with accepted:
            assert connecting.interrupt() < CANCELLED_WITHIN


def waiting_for(port: int) -> int:
    """How many connections to `port` wait for the first answer of its host."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[2].endswith(f":{port:04X}") and line[3] == "02" for line in lines)  # SYN_SENT


def test_the_wait_for_a_host_that_does_not_answer_can_be_interrupted() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port = server.getsockname()[1]
        while not waiting_for(port):  # until its queue is full
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        before = waiting_for(port)
        connecting = Connecting(port)
        wait_for(lambda: waiting_for(port) > before)
        assert connecting.interrupt() < CANCELLED_WITHIN


def test_a_bandwidth_is_shared_and_not_exceeded(disk: MemoryDisk) -> None:
    source = Throttled(disk, Bandwidth(16 * MIB))
    begin = time.monotonic()
    copy(source, MemoryDisk(disk.size), disk.extents(dirty=False), workers=4, chunk=MIB)
    assert time.monotonic() - begin >= 7 / 16  # eight pieces, of which the first need not wait


def test_waiting_for_bandwidth_ends_when_told_to_stop(disk: MemoryDisk) -> None:
    stop = threading.Event()
    source = Throttled(disk, Bandwidth(1, stopped=stop.is_set))
    source.read_into(0, aligned_buffer(MIB))
    caught: list[BaseException] = []

    def read() -> None:
        try:
            source.clone().read_into(0, aligned_buffer(MIB))
        except Cancelled as error:
            caught.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    stop.set()
    reader.join(90)
    assert len(caught) == 1
