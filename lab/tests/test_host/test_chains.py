# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots and merges of disks: what each volume holds, which bitmaps follow, and what NBD servers show of a chain."""

import json
import subprocess
from pathlib import Path

import pytest

from ovirtlab.host.api import BackingVolume, BackupDisk, HostError, VmDisk
from ovirtlab.host.local import LocalHost

MIB = 1 << 20
SIZE = 16 * MIB
BLOCK = 65536


def content(path: Path, tmp: Path) -> bytes:
    """What a guest would see of a chain."""
    subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", path, tmp], check=True, timeout=90)
    return tmp.read_bytes()


def exported(url: str, sink: Path) -> bytes:
    socket = url.removeprefix("nbd:unix:")
    command = ["qemu-img", "convert", "-f", "raw", "-O", "raw", f"nbd+unix:///?socket={socket}", sink]
    subprocess.run(command, check=True, timeout=90)
    return sink.read_bytes()


def dirty(url: str, context: str) -> list[tuple[int, int]]:
    """(start, length) of the dirty extents of an export, by the only dirty bitmap there is."""
    socket, _, name = url.removeprefix("nbd:unix:").partition(":exportname=")
    image = f"driver=nbd,export={name},server.type=unix,server.path={socket},x-dirty-bitmap=qemu:dirty-bitmap:{context}"
    command = ["qemu-img", "map", "--output=json", "--image-opts", image]
    mapped = json.loads(subprocess.run(command, check=True, timeout=90, capture_output=True).stdout)
    return [(extent["start"], extent["length"]) for extent in mapped if not extent["data"]]


def backing_name(path: Path) -> str | None:
    shown = subprocess.run(["qemu-img", "info", "-U", "--output=json", path], check=True, capture_output=True).stdout
    name: str | None = json.loads(shown).get("backing-filename")
    return name


def filled(*blocks: tuple[int, int]) -> bytes:
    """A disk of zeros but for 64 KiB of a byte at each block number."""
    data = bytearray(SIZE)
    for number, byte in blocks:
        data[number * BLOCK : (number + 1) * BLOCK] = bytes([byte]) * BLOCK
    return bytes(data)


async def started(host: LocalHost, bench, *disks: VmDisk) -> None:
    for disk in disks:
        await host.create_volume(disk.path, disk.format, SIZE)
    await host.start_vm(bench.definition(*disks))


async def snapshot(host: LocalHost, bench, *disks: tuple[VmDisk, Path, Path], bitmaps: tuple[str, ...] = ()) -> None:
    """Each disk goes on in a new volume over the one it has now."""
    for disk, below, overlay in disks:
        fmt = disk.format if below == disk.path else "qcow2"
        await host.create_overlay(overlay, below, fmt, bitmaps=bitmaps)
    await host.snapshot_vm("vm1", {disk.disk_id: overlay for disk, _, overlay in disks})


def write(host: LocalHost, number: int, byte: int, target: str = "vda"):
    return host.block_io("vm1", target, f"write -P {byte} {number * BLOCK} {BLOCK}")


def test_snapshot_freezes_all_disks_and_the_merge_of_the_active_volume_undoes_it(bench, run):
    one, raw = bench.disk("vda"), bench.disk("vdb", "raw")
    over, over_raw = bench.path("over"), bench.path("over-raw")

    async def scenario():
        async with bench.host() as host:
            await started(host, bench, one, raw)
            await write(host, 0, 1)
            await write(host, 0, 2, "vdb")
            await snapshot(host, bench, (one, one.path, over), (raw, raw.path, over_raw))
            await write(host, 0, 3)
            await write(host, 5, 4, "vdb")
            assert content(one.path, bench.path("t")) == filled((0, 1))
            assert content(raw.path, bench.path("t")) == filled((0, 2))
            assert backing_name(over) == one.path.name

            await host.merge_live("vm1", one.disk_id, top=over, base=one.path)
            await host.merge_live("vm1", raw.disk_id, top=over_raw, base=raw.path)
            over.unlink()
            over_raw.unlink()
            await write(host, 7, 5)
            await host.stop_vm("vm1", force=False)
            assert content(one.path, bench.path("t")) == filled((0, 3), (7, 5))
            assert content(raw.path, bench.path("t")) == filled((0, 2), (5, 4))

    run(scenario())


def test_merge_in_the_middle_while_the_vm_runs_on_its_chain(bench, run):
    disk = bench.disk()
    second, third = bench.path("second"), bench.path("third")

    async def scenario():
        async with bench.host() as host:
            await started(host, bench, disk)
            await write(host, 0, 1)
            await snapshot(host, bench, (disk, disk.path, second))
            await write(host, 1, 2)
            await snapshot(host, bench, (disk, second, third))
            await write(host, 2, 3)
            await host.merge_live("vm1", disk.disk_id, top=second, base=disk.path)
            assert backing_name(third) == disk.path.name
            assert content(disk.path, bench.path("t")) == filled((0, 1), (1, 2))
            second.unlink()
            # a VM starts on a chain, and what it wrote in the last one is there
            await host.stop_vm("vm1", force=True)
            below = (BackingVolume(path=disk.path, format="qcow2"),)
            chained = VmDisk(disk_id=disk.disk_id, path=third, format="qcow2", target="vda", backing=below)
            await host.start_vm(bench.definition(chained))
            await write(host, 3, 4)
            await host.merge_live("vm1", disk.disk_id, top=third, base=disk.path)
            await write(host, 4, 5)
            await host.stop_vm("vm1", force=True)
            assert content(disk.path, bench.path("t")) == filled((0, 1), (1, 2), (2, 3), (3, 4), (4, 5))

    run(scenario())


def test_checkpoints_go_through_snapshot_and_merge(bench, run):
    """A bitmap covers what was written before, during and after a snapshot, and one begun at the snapshot survives."""
    disk, over = bench.disk(), bench.path("over")

    def plan(since: str | None, to: str | None) -> tuple[BackupDisk]:
        scratch = bench.path("scratch")
        return (BackupDisk(disk_id=disk.disk_id, scratch=scratch, from_checkpoint=since, to_checkpoint=to),)

    async def changed(host: LocalHost, name: str, since: str) -> list[tuple[int, int]]:
        urls = await host.start_backup("vm1", name, plan(since, None), require_consistency=False)
        try:
            return dirty(urls[disk.disk_id], "backup-vda")
        finally:
            await host.stop_backup("vm1", name)

    async def scenario():
        async with bench.host() as host:
            await started(host, bench, disk)
            await host.start_backup("vm1", "b1", plan(None, "cp1"), require_consistency=False)
            await host.stop_backup("vm1", "b1")
            await write(host, 1, 1)
            await snapshot(host, bench, (disk, disk.path, over), bitmaps=("cp2",))
            await write(host, 3, 2)
            # two volumes bear cp1, and a live backup reads both
            assert await changed(host, "b2", "cp1") == [(BLOCK, BLOCK), (3 * BLOCK, BLOCK)]
            # the frozen volume is readable by others with what it recorded
            url = await host.start_nbd_server("s1", disk.path, "qcow2", read_only=True, bitmap="cp1")
            assert dirty(url, "cp1") == [(BLOCK, BLOCK)]
            await host.stop_nbd_server("s1")
            await host.merge_live("vm1", disk.disk_id, top=over, base=disk.path)
            await write(host, 5, 3)
            await host.redefine_checkpoints("vm1", {"cp1": [disk.disk_id], "cp2": [disk.disk_id]})
            assert await changed(host, "b3", "cp1") == [(BLOCK, BLOCK), (3 * BLOCK, BLOCK), (5 * BLOCK, BLOCK)]
            assert await changed(host, "b4", "cp2") == [(3 * BLOCK, BLOCK), (5 * BLOCK, BLOCK)]

    run(scenario())


def test_cold_merge_and_bitmaps_over_several_volumes(bench, run):
    disk, second, third = bench.disk(), bench.path("second"), bench.path("third")

    async def scenario():
        async with bench.host() as host:
            await host.create_volume(disk.path, "qcow2", SIZE)
            await host.add_bitmap(disk.path, "cp1")
            for path, below, byte in ((disk.path, None, 1), (second, disk.path, 2), (third, second, 3)):
                if below is not None:
                    await host.create_overlay(path, below, "qcow2", bitmaps=("cp2",) if path == second else ())
                command = f"write -P {byte} {byte * BLOCK} {BLOCK}"
                subprocess.run(["qemu-io", "-f", "qcow2", "-c", command, path], check=True, stdout=subprocess.DEVNULL)

            url = await host.start_nbd_server("s1", third, "qcow2", read_only=True, bitmap="cp1")
            assert dirty(url, "cp1") == [(BLOCK, 3 * BLOCK)]
            assert exported(url, bench.path("t")) == filled((1, 1), (2, 2), (3, 3))
            await host.stop_nbd_server("s1")
            assert not list((bench.directory / "host1/nbd").iterdir())
            url = await host.start_nbd_server("s2", third, "qcow2", read_only=True, shallow=True)
            assert exported(url, bench.path("t")) == filled((3, 3))
            await host.stop_nbd_server("s2")

            await host.merge_volumes(second, disk.path, "qcow2", child=third)
            assert backing_name(third) == disk.path.name
            second.unlink()
            assert content(third, bench.path("t")) == filled((1, 1), (2, 2), (3, 3))
            assert content(disk.path, bench.path("t")) == filled((1, 1), (2, 2))
            url = await host.start_nbd_server("s3", third, "qcow2", read_only=True, bitmap="cp2")
            assert dirty(url, "cp2") == [(2 * BLOCK, 2 * BLOCK)]
            await host.stop_nbd_server("s3")

            # a hole in the chain of a bitmap makes it worthless
            await host.remove_bitmap(third, "cp1")
            with pytest.raises(HostError, match="Invalid bitmap chain"):
                await host.start_nbd_server("s4", third, "qcow2", read_only=True, bitmap="cp1")
            with pytest.raises(HostError, match="does not exist"):
                await host.start_nbd_server("s5", third, "qcow2", read_only=True, bitmap="cp9")

    run(scenario())


def test_a_snapshot_that_fails_leaves_the_vm_as_it_was(bench, run):
    disk, over = bench.disk(), bench.path("over")

    async def scenario():
        async with bench.host() as host:
            await started(host, bench, disk)
            await host.create_overlay(over, disk.path, "qcow2")
            with pytest.raises(HostError):
                await host.snapshot_vm("vm1", {disk.disk_id: bench.path("missing")})
            with pytest.raises(HostError, match="does not use"):
                await host.merge_live("vm1", disk.disk_id, top=over, base=disk.path)
            await write(host, 0, 9)
            await host.snapshot_vm("vm1", {disk.disk_id: over})
            await host.merge_live("vm1", disk.disk_id, top=over, base=disk.path)
            await host.stop_vm("vm1", force=True)
            assert content(disk.path, bench.path("t")) == filled((0, 9))

    run(scenario())


def test_a_layer_is_copied_alone_over_a_copy_of_what_is_below(bench, run):
    """Of clusters that only the layer holds, zeros among them; the copy depends on the copy below and nothing else."""
    disk, over = bench.disk("vda", "raw"), bench.path("over")
    copies = bench.path("elsewhere") / "base", bench.path("elsewhere") / "over"

    async def scenario():
        async with bench.host() as host:
            await started(host, bench, disk)
            for number in (0, 1, 2):
                await write(host, number, 1)
            await snapshot(host, bench, (disk, disk.path, over))
            await write(host, 1, 2)
            await host.block_io("vm1", "vda", f"write -z {2 * BLOCK} {BLOCK}")
            await host.stop_vm("vm1", force=False)
            await host.copy_volume(disk.path, copies[0], "raw")
            await host.copy_layer(over, copies[1], backing=copies[0], fmt="raw")
            with pytest.raises(HostError):
                await host.copy_layer(over, copies[1], backing=copies[0], fmt="raw")

    run(scenario())
    over.unlink()
    disk.path.unlink()
    assert backing_name(copies[1]) == "base"
    assert content(copies[1], bench.path("t")) == filled((0, 1), (1, 2))
    assert content(copies[0], bench.path("t")) == filled((0, 1), (1, 1), (2, 1))
    assert copies[1].stat().st_blocks * 512 < SIZE
