# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies ordered over HTTPS, from and to real NBD servers with real tickets; every result compared by qemu-img."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

from overkeep.config import MoverConfig, TargetConfig
from overkeep.mover.orders import Access, CopyOrder, Image, OrderState
from overkeep.units import KIB, MIB
from tests.mover.bench import DEADLINE, FOLDER, SIZE, SPEED, Bench, assert_same, settings_for, tool, write


def test_a_full_backup_is_the_disk(bench: Bench, disk: Path, nbd: Any) -> None:
    status = bench.done(bench.backup(nbd(disk)))
    assert_same(disk, bench.folder / "p1.qcow2")
    assert bench.files() == ["p1.qcow2", "p1.sums"]
    result = status.result
    assert result is not None
    assert (result.virtual_size, result.covered) == (SIZE, SIZE)
    assert 7 * MIB <= result.moved <= 8 * MIB  # 8 MiB were written, one of them zeroed
    assert result.stored == (bench.folder / "p1.qcow2").stat().st_size <= 7 * MIB + 512 * KIB
    assert (status.progress.done, status.progress.total) == (SIZE, SIZE)


def test_an_incremental_holds_what_changed(bench: Bench, disk: Path, nbd: Any) -> None:
    bench.done(bench.backup(nbd(disk)))
    nbd.stop()
    write(disk, "write -P 0x44 1M 128k", "write -P 0x55 40M 64k", "write -z 12M 64k")
    url = nbd(disk, "--bitmap=cp1")
    status = bench.done(bench.backup(url, "p2.qcow2", backing="p1.qcow2", dirty=True), "j2:d:1")
    assert_same(disk, bench.folder / "p2.qcow2")
    info = json.loads(tool("qemu-img", "info", "--output=json", bench.folder / "p2.qcow2"))
    assert info["backing-filename"] == "p1.qcow2"
    assert status.result is not None
    assert status.result.covered == 256 * KIB
    assert status.result.stored <= 192 * KIB + MIB
    assert status.progress.total == 256 * KIB


def test_a_restore_is_the_disk(bench: Bench, disk: Path, nbd: Any, tmp_path: Path) -> None:
    bench.done(bench.backup(nbd(disk)))
    nbd.stop()
    write(disk, "write -P 0x66 5M 1M")
    bench.done(bench.backup(nbd(disk, "--bitmap=cp1"), "p2.qcow2", backing="p1.qcow2", dirty=True), "j2:d:1")
    new = tmp_path / "new.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", new, SIZE)
    write(new, "write -P 0x99 20M 1M")  # something to be overwritten by zeroes
    ticket = bench.tickets.add(nbd(new, write=True), op="write")
    order = CopyOrder(host="host1", source=bench.image("p2.qcow2"), sink=Access(ticket=ticket))
    status = bench.done(order, "r:d:1")
    assert status.result is not None
    assert status.result.virtual_size == SIZE
    assert bench.tickets.remove(ticket) == 204
    nbd.stop()  # killed: what was not flushed would be lost
    assert_same(disk, new)


def test_without_the_control_socket_the_images_api_serves(blind: Bench, disk: Path, nbd: Any, tmp_path: Path) -> None:
    blind.done(blind.backup(nbd(disk)))
    assert_same(disk, blind.folder / "p1.qcow2")
    nbd.stop()
    write(disk, "write -P 0x44 1M 128k", "write -z 12M 64k")
    status = blind.done(blind.backup(nbd(disk, "--bitmap=cp1"), "p2.qcow2", backing="p1.qcow2", dirty=True), "j2:d:1")
    assert_same(disk, blind.folder / "p2.qcow2")
    assert status.result is not None
    assert status.result.covered == 192 * KIB
    new = tmp_path / "new.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", new, SIZE)
    write(new, "write -P 0x99 20M 1M")
    ticket = blind.tickets.add(nbd(new, write=True), op="write")
    blind.done(CopyOrder(host="host1", source=blind.image("p2.qcow2"), sink=Access(ticket=ticket)), "r:d:1")
    assert blind.tickets.remove(ticket) == 204
    nbd.stop()
    assert_same(disk, new)


def test_the_images_api_knows_its_limits(blind: Bench, disk: Path, nbd: Any) -> None:
    url = nbd(disk)
    blind.done(blind.backup(url))
    plain = blind.tickets.add(url)
    order = blind.backup("", "p2.qcow2", backing="p1.qcow2", dirty=True, ticket=plain)
    assert blind.failed(order, "j2:d:1").error_code == "no-changed-blocks"
    wrong = blind.backup("", "p3.qcow2", ticket=blind.tickets.add(url, op="write"))
    assert blind.failed(wrong, "j3:d:1").error_code == "ticket-refuses"


def test_a_ticket_that_leads_to_a_file(bench: Bench, disk: Path, tmp_path: Path) -> None:
    raw, new = tmp_path / "disk.raw", tmp_path / "new.raw"
    tool("qemu-img", "convert", "-O", "raw", disk, raw)
    tool("qemu-img", "create", "-q", "-f", "raw", new, SIZE)
    bench.done(bench.backup("", ticket=bench.tickets.add(f"file://{raw}")))
    assert_same(disk, bench.folder / "p1.qcow2")
    sink = Access(ticket=bench.tickets.add(f"file://{new}", op="write"))
    bench.done(CopyOrder(host="host1", source=bench.image("p1.qcow2"), sink=sink), "r:d:1")
    assert raw.read_bytes() == new.read_bytes()


def test_a_ticket_removed_in_mid_copy_through_the_images_api(blind: Bench, large: Path, nbd: Any) -> None:
    ticket = blind.tickets.add(nbd(large, speed=SPEED))
    blind.client.put("j:d:1", blind.backup("", ticket=ticket))
    blind.until_moving()
    assert blind.tickets.remove(ticket) == 204
    status = blind.follow("j:d:1")
    assert (status.state, status.error_code) == (OrderState.FAILED, "ticket-cancelled")
    assert blind.files() == []


def test_cancelling_in_mid_copy_leaves_nothing(bench: Bench, large: Path, nbd: Any) -> None:
    order = bench.backup(nbd(large, speed=SPEED))
    bench.client.put("j:d:1", order)
    bench.until_moving()
    assert "p1.qcow2.partial" in bench.files()
    status = bench.client.cancel("j:d:1")
    assert (status.state, status.error_code) == (OrderState.CANCELLED, "cancelled")
    assert bench.files() == []
    assert isinstance(order.source, Access)
    assert bench.tickets.remove(order.source.ticket) == 204


def test_silence_in_mid_copy_leaves_nothing(bench: Bench, large: Path, nbd: Any) -> None:
    bench.client.put("j:d:1", bench.backup(nbd(large, speed=SPEED), lease=1.0))
    bench.until_moving()
    deadline = time.monotonic() + DEADLINE
    while not (status := bench.client.orders()[0]).state.terminal:  # a list is no contact
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (status.state, status.error_code, status.retry) == (OrderState.FAILED, "lease-expired", True)
    assert bench.files() == []


def test_a_ticket_removed_in_mid_copy_ends_it(bench: Bench, large: Path, nbd: Any) -> None:
    ticket = bench.tickets.add(nbd(large, speed=SPEED), inactivity_timeout=2)
    bench.client.put("j:d:1", bench.backup("", ticket=ticket))
    bench.until_moving()
    assert bench.tickets.remove(ticket) == 204
    status = bench.follow("j:d:1")
    assert (status.state, status.error_code) == (OrderState.FAILED, "ticket-cancelled")
    assert ticket[:8] in status.error
    assert ticket not in status.error  # it is a secret
    assert bench.files() == []


def test_the_ticket_is_kept_alive(bench: Bench, large: Path, nbd: Any) -> None:
    ticket = bench.tickets.add(nbd(large, speed=SPEED), inactivity_timeout=2)
    bench.client.put("j:d:1", bench.backup("", ticket=ticket))
    idle = []
    while not (status := bench.client.wait("j:d:1", after=10**6, timeout=0.3)).state.terminal:
        idle.append(bench.tickets.get(ticket)["idle_time"])
    assert status.state is OrderState.DONE, status
    assert len(idle) > 9  # longer than the Manager's patience
    assert max(idle) <= 2
    assert bench.tickets.get(ticket)["connections"] == 0


def test_a_lost_disk_fails_the_copy(bench: Bench, large: Path, nbd: Any) -> None:
    bench.client.put("j:d:1", bench.backup(nbd(large, speed=SPEED)))
    bench.until_moving()
    nbd.stop()
    status = bench.follow("j:d:1")
    assert (status.state, status.error_code, status.retry) == (OrderState.FAILED, "disk-lost", True)
    assert bench.files() == []


def test_two_copies_at_once(bench: Bench, disk: Path, nbd: Any) -> None:
    url = nbd(disk)
    bench.client.put("j:d:1", bench.backup(url, "p1.qcow2"))
    bench.client.put("j:e:1", bench.backup(nbd(disk), "p2.qcow2"))
    assert bench.follow("j:d:1").state is OrderState.DONE
    assert bench.follow("j:e:1").state is OrderState.DONE
    assert_same(disk, bench.folder / "p1.qcow2")
    assert_same(disk, bench.folder / "p2.qcow2")


def test_an_image_is_replaced_only_by_a_later_attempt(bench: Bench, disk: Path, nbd: Any) -> None:
    url = nbd(disk)
    bench.done(bench.backup(url))
    assert bench.failed(bench.backup(url), "j2:d:1").error_code == "image-exists"
    bench.done(bench.backup(url, fence=2), "j:d:2")
    assert bench.failed(bench.backup(url, fence=2), "j2:d:2").error_code == "image-exists"
    assert_same(disk, bench.folder / "p1.qcow2")
    manifest = bench.folder.parent.parent / "points" / "p1" / "point.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    assert bench.failed(bench.backup(url, fence=3), "j:d:3").error_code == "image-exists"


def test_a_missing_or_foreign_parent_is_refused(bench: Bench, disk: Path, nbd: Any) -> None:
    url = nbd(disk, "--bitmap=cp1")
    order = bench.backup(url, "p2.qcow2", backing="p1.qcow2", dirty=True)
    assert bench.failed(order).error_code == "backing-missing"
    hostile = bench.folder / "p1.qcow2"
    tool("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", hostile, SIZE)
    status = bench.failed(bench.backup(url, "p2.qcow2", backing="p1.qcow2", dirty=True), "j:d:2")
    assert status.error_code == "backing-missing"
    assert bench.files() == ["p1.qcow2"]


def test_tickets_that_do_not_fit(bench: Bench, disk: Path, nbd: Any) -> None:
    url = nbd(disk)
    unknown = "00000000-0000-0000-0000-000000000000"
    cases = {
        "ticket-unknown": bench.backup("", ticket=unknown),
        "ticket-refuses": bench.backup("", ticket=bench.tickets.add(url, op="write")),
        "ticket-broken": bench.backup("", ticket=bench.tickets.add("nbd:unix:/nowhere/at/all")),
    }
    for number, (code, order) in enumerate(cases.items(), 1):
        status = bench.failed(order, f"j:d:{number}")
        assert status.error_code == code
        assert status.error.endswith((".", "again."))
    assert bench.files() == []


def test_changed_blocks_that_nobody_tracks(bench: Bench, disk: Path, nbd: Any) -> None:
    url = nbd(disk)
    bench.done(bench.backup(url))
    plain = bench.tickets.add(url)
    status = bench.failed(bench.backup("", "p2.qcow2", backing="p1.qcow2", dirty=True, ticket=plain), "j2:d:1")
    assert status.error_code == "no-changed-blocks"
    status = bench.failed(bench.backup(url, "p2.qcow2", backing="p1.qcow2", dirty=True), "j3:d:1")
    assert status.error_code in ("no-changed-blocks", "imageio-unreachable")


def test_a_disk_that_is_too_small_is_not_touched(bench: Bench, disk: Path, nbd: Any, tmp_path: Path) -> None:
    bench.done(bench.backup(nbd(disk)))
    small = tmp_path / "small.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", small, SIZE // 2)
    ticket = bench.tickets.add(nbd(small, write=True), op="write")
    order = CopyOrder(host="host1", source=bench.image("p1.qcow2"), sink=Access(ticket=ticket))
    assert bench.failed(order, "r:d:1").error_code == "sizes-differ"


def test_another_repository_is_refused(bench: Bench, disk: Path, nbd: Any) -> None:
    sink = bench.image("p1.qcow2", repository="00000000-0000-4000-8000-000000000000")
    status = bench.failed(bench.backup(nbd(disk), sink=sink))
    assert status.error_code == "repository-differs"
    assert bench.target.repository in status.error
    assert bench.files() == []


def test_a_link_out_of_the_target_is_not_followed(bench: Bench, disk: Path, nbd: Any, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (bench.target.root / "workloads").symlink_to(outside)
    assert bench.failed(bench.backup(nbd(disk))).error_code == "unsafe-path"
    assert list(outside.iterdir()) == []


def test_a_full_target(settings: MoverConfig, make_target: Any, tickets: Any, serve: Any, disk: Path, nbd: Any) -> None:
    target = make_target("size=4m")
    bench = Bench(serve(settings_for(settings, (target.config,), tickets))[1], target, tickets)
    assert bench.failed(bench.backup(nbd(disk))).error_code == "target-full"
    assert bench.files() == []


def test_a_read_only_target(settings: MoverConfig, target: Any, tickets: Any, serve: Any, disk: Path, nbd: Any) -> None:
    tool("mount", "-o", "remount,ro", target.root)
    bench = Bench(serve(settings_for(settings, (target.config,), tickets))[1], target, tickets)
    assert bench.failed(bench.backup(nbd(disk))).error_code == "target-read-only"


def test_a_bare_folder_is_not_written_to(
    settings: MoverConfig, tmp_path: Path, tickets: Any, serve: Any, disk: Path, nbd: Any
) -> None:
    bare = TargetConfig(
        name="nfs1", source="server:/export", mountpoint=tmp_path / "bare", mount_command=("true",)
    )  # a mount command that claims success
    _, client = serve(settings_for(settings, (bare,), tickets))
    ticket = tickets.add(nbd(disk))
    sink = Image(target="nfs1", repository="r", folder=FOLDER, name="p1.qcow2")
    client.put("j:d:1", CopyOrder(host="host1", source=Access(ticket=ticket), sink=sink))
    deadline = time.monotonic() + DEADLINE
    while not (status := client.wait("j:d:1", after=0, timeout=1)).state.terminal:
        assert time.monotonic() < deadline
    assert (status.state, status.error_code) == (OrderState.FAILED, "target-not-mounted")
    assert str(tmp_path / "bare") in status.error
    assert list((tmp_path / "bare").iterdir()) == []


def test_no_thread_is_left(bench: Bench, disk: Path, nbd: Any) -> None:
    bench.done(bench.backup(nbd(disk)))
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(("order-", "ticket-", "copy-"))]
