# SPDX-License-Identifier: GPL-3.0-or-later
"""NBD ends against real qemu-nbd: URLs, changed blocks, and every way in which a server can fail."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Protocol

import pytest

from overkeep.blocks import nbd
from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.copy import copy
from overkeep.blocks.errors import (
    BadDiskAddress,
    DiskFailed,
    DiskFull,
    DiskLost,
    DiskReadOnly,
    DiskRefused,
    DiskUnreachable,
    NoChangedBlocks,
)
from overkeep.blocks.image import ChainReader, ImageSink
from overkeep.blocks.memory import MemoryDisk
from overkeep.blocks.nbd import NbdSink, NbdSource
from overkeep.blocks.nbd_address import parse_url
from overkeep.units import KIB, MIB

Qemu = Callable[..., str]


class Serve(Protocol):
    def __call__(self, image: Path | str, *options: str, format: str = "raw", export: str = "") -> str: ...


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nbd:unix:/run/a.sock", ("/run/a.sock", "")),
        ("nbd:unix:/run/a.sock:exportname=sda", ("/run/a.sock", "sda")),
        ("nbd:unix:/run/a.sock:exportname=/a:b", ("/run/a.sock", "/a:b")),
        ("nbd+unix:///?socket=/run/a.sock", ("/run/a.sock", "")),
        ("nbd+unix:///sd%20a?socket=/run/a.sock", ("/run/a.sock", "sd a")),
        ("nbd://host:10810/sda", (("host", 10810), "sda")),
        ("nbd://host", (("host", 10809), "")),
        ("nbd://[::1]:1/x", (("::1", 1), "x")),
        ("nbd:host:10809:exportname=sda", (("host", 10809), "sda")),
        ("nbd:[::1]:1", (("::1", 1), "")),
        ("NBD://host/sda", (("host", 10809), "sda")),
    ],
)
def test_urls(url: str, expected: tuple[object, str]) -> None:
    address, export = parse_url(url)
    plain = str(address) if address.transport == "unix" else (address.host, address.port)
    assert (plain, export) == expected


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "none of the forms"),
        ("nbd:", "none of the forms"),
        ("nbd:unix:relative", "none of the forms"),
        ("file:///etc/shadow", "none of the forms"),
        ("http://host/x", "none of the forms"),
        ("nbd+unix:///x", "no socket"),
        ("nbd+unix:///x?socket=relative", "no socket"),
        ("nbds://host/x", "encrypted"),
        ("nbd://host:0/x", "no port 0"),
        ("nbd://host:99999/x", "Port out of range"),
        ("nbd://host:many/x", "Port could not be cast"),
        ("nbd:host:99999", "no port 99999"),
        ("nbd://[::1/x", "Invalid IPv6"),
    ],
)
def test_other_urls_are_refused(url: str, reason: str) -> None:
    with pytest.raises(BadDiskAddress, match=reason):
        parse_url(url)


def test_a_backup_and_its_restore(tmp_path: Path, serve: Serve, qemu: Qemu) -> None:
    raw = bytearray(30 * MIB)
    for at in (0, 7, 8, 29):
        raw[at * MIB + 4096 : at * MIB + 600 * KIB] = os.urandom(600 * KIB - 4096)
    (tmp_path / "disk").write_bytes(raw)
    url = serve(tmp_path / "disk", "--read-only", export="sda")
    with closing(NbdSource(url)) as source, closing(ImageSink(tmp_path, "a.qcow2", size=source.size)) as sink:
        stats = copy(source, sink, source.extents(dirty=False), chunk=MIB)
    assert stats.covered == 30 * MIB
    qemu("qemu-img", "compare", "-f", "raw", "-F", "qcow2", tmp_path / "disk", tmp_path / "a.qcow2")
    (tmp_path / "new").write_bytes(b"x" * 30 * MIB)
    url = serve(tmp_path / "new", "--discard=unmap")
    with closing(ChainReader(tmp_path, "a.qcow2")) as chain, closing(NbdSink(url)) as disk:
        copy(chain, disk, chain.extents(dirty=False), workers=3, chunk=MIB)
    assert (tmp_path / "new").read_bytes() == raw


def test_changed_blocks_are_rounded_out_and_zeroes_stay_zeroes(
    tmp_path: Path, serve: Serve, qemu: Qemu, servers: list[subprocess.Popen[bytes]]
) -> None:
    disk = tmp_path / "disk.qcow2"
    qemu("qemu-img", "create", "-q", "-f", "qcow2", disk, "64M")
    qemu("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 16M", disk)
    url = serve(disk, "--read-only", format="qcow2")
    with closing(NbdSource(url)) as source, closing(ImageSink(tmp_path, "p0.qcow2", size=source.size)) as sink:
        copy(source, sink, source.extents(dirty=False))
    servers[-1].kill()
    servers[-1].wait(90)
    qemu("qemu-img", "bitmap", "--add", "--enable", "-g", "65536", disk, "b0")
    rng = random.Random(5)
    writes = sorted(rng.sample(range(256), 20))
    commands = [f"write -P {2 + n} {n * CLUSTER + 4096} 4096" for n in writes]
    commands += ["write -z 8M 1M", f"write -z {10 * MIB + 4096} 8192", "write -P 9 40M 512"]
    qemu("qemu-io", "-f", "qcow2", *(part for command in commands for part in ("-c", command)), disk)
    url = serve(disk, "--read-only", "--bitmap=b0", format="qcow2")
    with closing(NbdSource(url, dirty=True)) as source:
        extents = list(source.extents(dirty=True))
        with closing(ImageSink(tmp_path, "p1.qcow2", size=source.size, backing="p0.qcow2")) as sink:
            copy(source, sink, extents)
    dirty = {n for extent in extents for n in range(extent.start // CLUSTER, extent.end // CLUSTER)}
    assert dirty == {*writes, *range(128, 144), 160, 640}
    assert all(extent.start % CLUSTER == extent.length % CLUSTER == 0 for extent in extents)
    zero = {n for e in extents if e.zero for n in range(e.start // CLUSTER, e.end // CLUSTER)}
    assert zero >= set(range(128, 144)) - set(writes)
    assert (tmp_path / "p1.qcow2").stat().st_size <= 1.05 * len(dirty) * CLUSTER + MIB
    qemu("qemu-img", "check", "-q", tmp_path / "p1.qcow2")
    qemu("qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", "-U", disk, tmp_path / "p1.qcow2")


def test_changes_of_a_raw_disk_are_not_known(tmp_path: Path, serve: Serve) -> None:
    (tmp_path / "disk").write_bytes(bytes(MIB))
    url = serve(tmp_path / "disk", "--read-only")
    with pytest.raises(NoChangedBlocks):
        NbdSource(url, dirty=True)
    with closing(NbdSource(url)) as source, pytest.raises(NoChangedBlocks):
        list(source.extents(dirty=True))


def test_a_disk_that_is_exported_for_reading_cannot_be_written(tmp_path: Path, serve: Serve) -> None:
    (tmp_path / "disk").write_bytes(bytes(MIB))
    with pytest.raises(DiskReadOnly):
        NbdSink(serve(tmp_path / "disk", "--read-only"))


def test_an_export_that_is_not_there(tmp_path: Path, serve: Serve) -> None:
    (tmp_path / "disk").write_bytes(bytes(MIB))
    url = serve(tmp_path / "disk", export="sda")
    with pytest.raises(DiskRefused):
        NbdSource(url.replace("sda", "sdb"))


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(DiskUnreachable) as caught:
        NbdSource(f"nbd:unix:{tmp_path}/none.sock")
    assert caught.value.retry
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(f"{tmp_path}/closed.sock")
    with pytest.raises(DiskUnreachable, match="refused"):
        NbdSink(f"nbd:unix:{tmp_path}/closed.sock")


def test_a_server_that_is_no_nbd_server(tmp_path: Path) -> None:
    path = f"{tmp_path}/http.sock"
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(path)
        listener.listen()

        def greet() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(DiskUnreachable):
            NbdSource(f"nbd:unix:{path}")
        thread.join(90)


def test_the_connection_too_many_ends_in_time(tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nbd, "ANOTHER_SECONDS", 0.5)
    (tmp_path / "disk").write_bytes(bytes(MIB))
    url = serve(tmp_path / "disk", "--shared=2")
    with closing(NbdSource(url)) as first, closing(first.clone()):
        started = time.monotonic()
        with pytest.raises(DiskUnreachable, match="all its connections"):
            first.clone()
        assert time.monotonic() - started < 5
    NbdSource(url).close()


@pytest.mark.parametrize("free", [1, 2, 4])
@pytest.mark.parametrize("mode", ["--read-only", "--discard=unmap"])
def test_a_copy_makes_do_with_the_connections_that_it_gets(
    tmp_path: Path, serve: Serve, qemu: Qemu, monkeypatch: pytest.MonkeyPatch, mode: str, free: int
) -> None:
    monkeypatch.setattr(nbd, "ANOTHER_SECONDS", 0.5)
    disk, copied = tmp_path / "disk", tmp_path / "copy"
    disk.write_bytes(os.urandom(16 * MIB) + bytes(16 * MIB))
    copied.write_bytes(bytes(32 * MIB))
    source = NbdSource(serve(disk, f"--shared={free}", mode))
    sink = NbdSink(serve(copied, f"--shared={free}"))
    with closing(source), closing(sink):
        stats = copy(source, sink, source.extents(dirty=False), chunk=MIB)
    assert stats.covered == 32 * MIB
    qemu("qemu-img", "compare", "-f", "raw", "-F", "raw", disk, copied)


def test_a_server_that_takes_one_reader_is_not_asked_for_more(tmp_path: Path, serve: Serve) -> None:
    (tmp_path / "disk").write_bytes(bytes(MIB))
    with closing(NbdSource(serve(tmp_path / "disk", "--shared=1", "--read-only"))) as alone:
        assert alone.parallel == 0
    with closing(NbdSource(serve(tmp_path / "disk", "--read-only"))) as one_of_many:
        assert one_of_many.parallel == nbd.CONNECTIONS


@pytest.mark.parametrize("shared", [True, False])
def test_each_connection_is_flushed_unless_one_flush_is_for_all(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    flushed = list[object]()
    flush = nbd.Client.flush
    monkeypatch.setattr(nbd.Client, "flush", lambda client: (flushed.append(client), flush(client)))
    (tmp_path / "disk").write_bytes(bytes(8 * MIB))
    source = MemoryDisk(8 * MIB)
    source.write(0, memoryview(os.urandom(8 * MIB)))
    with closing(NbdSink(serve(tmp_path / "disk"))) as sink:
        if not shared:
            sink._client.transmission_flags &= ~nbd.nbd.FLAG_CAN_MULTI_CONN
        copy(source, sink, source.extents(dirty=False), chunk=MIB)
        assert len(set(flushed)) == (1 if shared else 1 + len(sink._clones))
        assert sink._clones
    assert (tmp_path / "disk").read_bytes() == source.content


def test_a_server_that_dies(tmp_path: Path, serve: Serve, servers: list[subprocess.Popen[bytes]]) -> None:
    (tmp_path / "disk").write_bytes(os.urandom(8 * MIB))
    with closing(NbdSource(serve(tmp_path / "disk", "--read-only"))) as source:
        sink = MemoryDisk(source.size)
        extents = source.extents(dirty=False)
        with pytest.raises(DiskLost) as caught:
            copy(source, sink, extents, workers=1, chunk=MIB, progress=lambda c, m: servers[-1].kill())
        assert caught.value.retry
        assert not sink.finished


def test_a_server_that_stops_answering(
    tmp_path: Path, serve: Serve, servers: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nbd, "ANSWER_SECONDS", 1)
    (tmp_path / "disk").write_bytes(os.urandom(MIB))
    with closing(NbdSource(serve(tmp_path / "disk", "--read-only"))) as source:
        servers[-1].send_signal(19)  # SIGSTOP
        try:
            with pytest.raises(DiskLost, match="no answer"):
                source.read_into(0, memoryview(bytearray(CLUSTER)))
        finally:
            servers[-1].send_signal(18)  # SIGCONT


def fault(tmp_path: Path, errno_: int, event: str) -> str:
    """Image options of a disk whose requests fail."""
    config = tmp_path / "faults.conf"
    config.write_text(f'[inject-error]\nevent = "{event}"\nerrno = "{errno_}"\nonce = "off"\n')
    image = f"file.image.driver=file,file.image.filename={tmp_path}/d.qcow2"
    return f"driver=qcow2,file.driver=blkdebug,file.config={config},{image}"


@pytest.mark.parametrize(("number", "error"), [(28, DiskFull), (5, DiskFailed), (1, DiskReadOnly)])
def test_a_write_that_fails(tmp_path: Path, serve: Serve, qemu: Qemu, number: int, error: type[Exception]) -> None:
    qemu("qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "d.qcow2", "8M")
    url = serve(fault(tmp_path, number, "write_aio"), format="")
    with closing(NbdSink(url)) as sink, pytest.raises(error):
        sink.write(0, memoryview(os.urandom(CLUSTER)))


def test_extents_of_a_server_without_block_status(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").write_bytes(bytes(2 * MIB))
    with closing(NbdSource(serve(tmp_path / "disk"))) as source:
        monkeypatch.setattr(source._client, "_meta_context", {})
        assert [(e.start, e.length, e.zero) for e in source.extents(dirty=False)] == [(0, 2 * MIB, False)]
        with closing(ImageSink(tmp_path, "a.qcow2", size=source.size)) as sink:
            copy(source, sink, source.extents(dirty=False))
    assert (tmp_path / "a.qcow2").stat().st_size < MIB
