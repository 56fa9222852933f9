# SPDX-License-Identifier: GPL-3.0-or-later
"""Orders that compare, compress, write only what differs, and disks that break or hang while they are copied."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overkeep.mover.errors import OrderRefused
from overkeep.mover.orders import Access, CopyOrder, OrderState
from overkeep.units import KIB, MIB
from tests.mover.bench import CANCELLED_WITHIN, SIZE, SPEED, Bench, assert_same, tool, write
from tests.mover.conftest import wait_for
from tests.mover.proxy import NbdProxy

CONNECTIONS = 6
"""What a copy may open to a disk at once."""


def restored(bench: Bench, url: str, name: str, **changes: Any) -> CopyOrder:
    ticket = bench.tickets.add(url, op="write")
    return CopyOrder(host="host1", source=bench.image(name), sink=Access(ticket=ticket), **changes)


def test_a_compared_backup_holds_what_changed(bench: Bench, disk: Path, nbd: Any) -> None:
    bench.done(bench.backup(nbd(disk)))
    nbd.stop()
    write(disk, "write -P 0x44 1M 128k", "write -P 0x55 40M 64k", "write -z 12M 64k", "write -P 0x22 13M 64k")
    status = bench.done(bench.backup(nbd(disk), "p2.qcow2", backing="p1.qcow2", compare=True), "j2:d:1")
    assert_same(disk, bench.folder / "p2.qcow2")
    info = json.loads(tool("qemu-img", "info", "--output=json", bench.folder / "p2.qcow2"))
    assert info["backing-filename"] == "p1.qcow2"
    assert status.result is not None
    assert status.result.covered == SIZE
    assert status.result.stored <= 192 * KIB + MIB  # the last of the writes changed nothing
    assert status.result.stages["source"] > 0
    assert status.progress.done == status.progress.total == SIZE


def test_a_compared_backup_of_an_unchanged_disk_through_the_images_api(
    bench: Bench, disk: Path, tmp_path: Path
) -> None:
    raw = tmp_path / "disk.raw"
    tool("qemu-img", "convert", "-O", "raw", disk, raw)
    bench.done(bench.backup("", ticket=bench.tickets.add(f"file://{raw}")))
    order = bench.backup("", "p2.qcow2", backing="p1.qcow2", compare=True, ticket=bench.tickets.add(f"file://{raw}"))
    status = bench.done(order, "j2:d:1")
    assert status.result is not None
    assert status.result.stored <= 6 * 64 * KIB
    assert_same(disk, bench.folder / "p2.qcow2")


@pytest.mark.parametrize("cluster", [64 * KIB, MIB])
def test_compressed_orders(bench: Bench, disk: Path, nbd: Any, tmp_path: Path, cluster: int) -> None:
    form = {"compression": "zstd", "cluster": cluster, "read_back": 1.0}
    first = bench.done(bench.backup(nbd(disk), **form))
    assert_same(disk, bench.folder / "p1.qcow2")
    info = json.loads(tool("qemu-img", "info", "--output=json", bench.folder / "p1.qcow2"))
    assert info["format-specific"]["data"]["compression-type"] == "zstd"
    assert info["cluster-size"] == cluster
    assert first.result is not None
    assert first.result.moved >= 7 * MIB
    assert first.result.stored <= 6 * cluster  # header, data, and a cluster for each kind of table
    assert {"compress", "digest", "read_back", "source", "target"} == set(first.result.stages)
    nbd.stop()
    write(disk, "write -P 0x44 1M 128k", "write -z 12M 64k")
    url = nbd(disk, "--bitmap=cp1")
    bench.done(bench.backup(url, "p2.qcow2", backing="p1.qcow2", dirty=True, **form), "j2:d:1")
    assert_same(disk, bench.folder / "p2.qcow2")
    new = tmp_path / "new.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", new, SIZE)
    bench.done(restored(bench, nbd(new, write=True), "p2.qcow2"), "r:d:1")
    nbd.stop()
    assert_same(disk, new)


def test_a_differential_restore_writes_only_what_differs(
    bench: Bench, disk: Path, nbd: Any, proxied: Callable[[str], NbdProxy], tmp_path: Path
) -> None:
    bench.done(bench.backup(nbd(disk)))
    nbd.stop()
    work = tmp_path / "work.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "qcow2", work)
    write(work, "write -P 0x99 2M 64k", f"write -P 0x98 {20 * MIB + 5} 3", "write -z 63M 128k")
    before = work.stat().st_size
    proxy = proxied(nbd(work, write=True))
    status = bench.done(restored(bench, proxy.url, "p1.qcow2", differential=True), "r:d:1")
    nbd.stop()
    tool("qemu-img", "compare", "-q", disk, work)
    assert status.result is not None
    assert status.result.covered == 4 * 64 * KIB
    assert proxy.sent <= 3 * 64 * KIB + 64 * KIB  # data of three clusters, and requests
    assert work.stat().st_size - before <= 2 * 64 * KIB  # clusters that were there are written in place
    assert 1 < proxy.most <= CONNECTIONS


@pytest.mark.parametrize("differential", [False, True])
@pytest.mark.parametrize("spoilt", [False, True])
def test_a_restored_disk_is_read_back(
    bench: Bench,
    disk: Path,
    nbd: Any,
    proxied: Callable[[str], NbdProxy],
    tmp_path: Path,
    differential: bool,
    spoilt: bool,
) -> None:
    bench.done(bench.backup(nbd(disk)))
    work = tmp_path / "work.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", work, SIZE)
    proxy = proxied(nbd(work, write=True))
    if spoilt:
        proxy.spoil()
    status = bench.run(restored(bench, proxy.url, "p1.qcow2", differential=differential, read_back=1.0), "r:d:1")
    nbd.stop()
    assert proxy.most <= CONNECTIONS
    if spoilt:
        assert (status.state, status.error_code) == (OrderState.FAILED, "restore-differs")
        assert "(1 clusters differ)" in status.error
        return
    assert status.result is not None
    assert status.result.stages["read_back"] > 0
    tool("qemu-img", "compare", "-q", disk, work)


def test_a_share_of_a_restored_disk_is_read_back(
    bench: Bench, large: Path, nbd: Any, proxied: Callable[[str], NbdProxy], tmp_path: Path
) -> None:
    bench.done(bench.backup(nbd(large)))
    work = tmp_path / "work.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", work, SIZE)
    proxy = proxied(nbd(work, write=True))
    bench.done(restored(bench, proxy.url, "p1.qcow2", read_back=0.001), "r:d:1")
    assert 64 * KIB < proxy.received <= 3 * MIB  # one piece, and answers


def test_a_differential_restore_without_the_control_socket(blind: Bench, disk: Path, nbd: Any) -> None:
    blind.done(blind.backup(nbd(disk)))
    nbd.stop()
    saved = disk.read_bytes()
    write(disk, "write -P 0x99 2M 64k", "write -P 0x98 20M 64k")
    status = blind.done(restored(blind, nbd(disk, write=True), "p1.qcow2", differential=True), "r:d:1")
    nbd.stop()
    assert status.result is not None
    assert status.result.covered == 2 * 64 * KIB
    original = disk.with_name("original.qcow2")
    original.write_bytes(saved)
    tool("qemu-img", "compare", "-q", original, disk)


def test_a_lost_connection_is_made_anew(
    bench: Bench, large: Path, nbd: Any, proxied: Callable[[str], NbdProxy]
) -> None:
    proxy = proxied(nbd(large))
    proxy.break_after(15 * MIB)
    status = bench.done(bench.backup(proxy.url))
    assert proxy.broken == 1
    assert_same(large, bench.folder / "p1.qcow2")
    assert proxy.most <= CONNECTIONS + 1  # one is of ovirt-imageio
    assert status.result is not None
    assert status.result.moved == 40 * MIB


def test_connections_are_counted(bench: Bench, large: Path, nbd: Any, proxied: Callable[[str], NbdProxy]) -> None:
    proxy = proxied(nbd(large, speed=2 * SPEED))  # slow, so that all that may work do
    bench.done(bench.backup(proxy.url, bandwidth=64 * MIB))
    assert 3 <= proxy.most <= CONNECTIONS


def test_a_limited_order_takes_its_time(bench: Bench, disk: Path, nbd: Any) -> None:
    status = bench.done(bench.backup(nbd(disk), bandwidth=4 * MIB))
    assert status.result is not None
    assert status.result.seconds >= 1.0  # 7 MiB, of which the first piece need not wait
    assert_same(disk, bench.folder / "p1.qcow2")


@pytest.mark.parametrize("when", ["in mid copy", "at its beginning"])
def test_a_disk_that_hangs_can_be_cancelled(bench: Bench, large: Path, nbd: Any, when: str) -> None:
    order = bench.backup(nbd(large, speed=SPEED))
    server = nbd.newest
    if when == "at its beginning":
        server.send_signal(signal.SIGSTOP)
        bench.client.put("j:d:1", order)
        bench.follow("j:d:1", lambda status: status.state is OrderState.RUNNING)
    else:
        bench.client.put("j:d:1", order)
        bench.until_moving()
        server.send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    try:
        status = bench.client.cancel("j:d:1")
        seconds = time.monotonic() - begin
    finally:
        server.send_signal(signal.SIGCONT)
    assert (status.state, status.error_code) == (OrderState.CANCELLED, "cancelled")
    assert bench.files() == []
    assert seconds < CANCELLED_WITHIN, "it waited for the disk"
    wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith(("copy-", "ticket-"))])


def test_a_restore_to_a_disk_that_hangs_can_be_cancelled(bench: Bench, large: Path, nbd: Any, tmp_path: Path) -> None:
    bench.done(bench.backup(nbd(large)))
    new = tmp_path / "new.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", new, SIZE)
    order = restored(bench, nbd(new, write=True), "p1.qcow2", bandwidth=SPEED)
    bench.client.put("r:d:1", order)
    bench.until_moving("r:d:1")
    nbd.newest.send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    try:
        status = bench.client.cancel("r:d:1")
        seconds = time.monotonic() - begin
    finally:
        nbd.newest.send_signal(signal.SIGCONT)
    assert status.state is OrderState.CANCELLED
    assert seconds < CANCELLED_WITHIN


def test_what_does_not_fit_together_is_refused(bench: Bench, disk: Path, nbd: Any) -> None:
    url = nbd(disk)
    for changes in ({"compare": True}, {"differential": True}, {"compare": True, "dirty": True, "backing": "p0.qcow2"}):
        with pytest.raises(OrderRefused):
            bench.client.put("j:d:1", bench.backup(url, **changes))
