# SPDX-License-Identifier: GPL-3.0-or-later
"""Live backups of VMs without a guest: what is exported, what is left, and every refusal with its code."""

import json
import subprocess
from pathlib import Path

import pytest

from ovirtlab.host.api import BackupDisk, HostError

MIB = 1 << 20
SIZE = 64 * MIB


def exported(url: str, sink: Path) -> bytes:
    """All bytes of an export, read by another NBD client."""
    socket, name = url.removeprefix("nbd:unix:").split(":exportname=")
    command = ["qemu-img", "convert", "-f", "raw", "-O", "raw", f"nbd+unix:///{name}?socket={socket}", sink]
    subprocess.run(command, check=True, timeout=90)
    return sink.read_bytes()


def dirty(url: str, context: str) -> list[tuple[int, int]]:
    """(start, length) of the dirty extents of an export."""
    socket, name = url.removeprefix("nbd:unix:").split(":exportname=")
    image = f"driver=nbd,export={name},server.type=unix,server.path={socket},x-dirty-bitmap={context}"
    command = ["qemu-img", "map", "--output=json", "--image-opts", image]
    mapped = json.loads(subprocess.run(command, check=True, timeout=90, capture_output=True).stdout)
    return [(extent["start"], extent["length"]) for extent in mapped if not extent["data"]]


def backed_up(disk, bench, *, since=None, to=None) -> BackupDisk:
    scratch = bench.path(f"{disk.target}.scratch")
    return BackupDisk(disk_id=disk.disk_id, scratch=scratch, from_checkpoint=since, to_checkpoint=to)


async def raises(code: int, awaitable) -> HostError:
    with pytest.raises(HostError) as caught:
        await awaitable
    assert caught.value.code == code, caught.value
    return caught.value


async def started(host, bench, *disks) -> None:
    for disk in disks:
        await host.create_volume(disk.path, disk.format, SIZE)
    await host.start_vm(bench.definition(*disks))


def test_full_then_incremental(bench, run):
    disk = bench.disk()

    async def scenario():
        async with bench.host() as host:
            await started(host, bench, disk)
            await host.block_io("vm1", "vda", "write -P 0x11 0 1M")
            urls = await host.start_backup("vm1", "b1", (backed_up(disk, bench, to="cp1"),), require_consistency=False)
            socket = bench.directory / "host1/backup/b1"
            assert urls == {"disk-vda": f"nbd:unix:{socket}:exportname=vda"}
            # what is written while the backup runs is not in it, and is in the next
            await host.block_io("vm1", "vda", "write -P 0x22 0 64k")
            await host.block_io("vm1", "vda", "write -P 0x23 10M 64k")
            assert exported(urls["disk-vda"], bench.path("full")) == b"\x11" * MIB + bytes(SIZE - MIB)
            await host.stop_backup("vm1", "b1")
            assert not socket.exists()
            assert not bench.path("vda.scratch").exists()

            await host.block_io("vm1", "vda", "write -P 0x33 20M 128k")
            urls = await host.start_backup(
                "vm1", "b2", (backed_up(disk, bench, since="cp1", to="cp2"),), require_consistency=False
            )
            extents = dirty(urls["disk-vda"], "qemu:dirty-bitmap:backup-vda")
            assert extents == [(0, 65536), (10 * MIB, 65536), (20 * MIB, 131072)]
            content = exported(urls["disk-vda"], bench.path("incremental"))
            assert content[:65536] == b"\x22" * 65536
            assert content[20 * MIB : 20 * MIB + 131072] == b"\x33" * 131072
            await host.stop_backup("vm1", "b2")
            await host.stop_vm("vm1", force=False)
            # both bitmaps are stored, enabled, and nothing else is
            assert dict(await host.bitmaps(disk.path)) == {"cp1": ("auto",), "cp2": ("auto",)}

    run(scenario())


def test_raw_and_qcow2_disks_share_a_socket(bench, run):
    tracked, raw = bench.disk("vda"), bench.disk("vdb", "raw")

    async def scenario():
        async with bench.host() as host:
            await started(host, bench, tracked, raw)
            await host.block_io("vm1", "vdb", "write -P 0x44 1M 1M")
            plan = (backed_up(tracked, bench, to="cp1"), backed_up(raw, bench))
            urls = await host.start_backup("vm1", "b1", plan, require_consistency=False)
            assert {url.split(":exportname=")[0] for url in urls.values()} == {
                f"nbd:unix:{bench.directory}/host1/backup/b1"
            }
            await host.block_io("vm1", "vdb", "write -P 0x55 0 2M")
            content = exported(urls["disk-vdb"], bench.path("raw-copy"))
            assert content == bytes(MIB) + b"\x44" * MIB + bytes(SIZE - 2 * MIB)
            await host.stop_backup("vm1", "b1")

    run(scenario())


def test_one_backup_at_a_time(bench, run):
    disk = bench.disk()

    async def scenario():
        async with bench.host() as host:
            await started(host, bench, disk)
            await host.start_backup("vm1", "b1", (backed_up(disk, bench, to="cp1"),), require_consistency=False)
            second = backed_up(disk, bench, to="cp2")
            await raises(68, host.start_backup("vm1", "b2", (second,), require_consistency=False))
            await raises(68, host.delete_checkpoint("vm1", "cp1"))
            await raises(68, host.attach_disk("vm1", bench.disk("vdb")))
            await host.stop_backup("vm1", "not-this-one")  # success, and the running one goes on
            await raises(68, host.redefine_checkpoints("vm1", {"cp1": [disk.disk_id]}))
            await host.stop_backup("vm1", "b1")
            await host.stop_backup("vm1", "b1")
            await host.delete_checkpoint("vm1", "cp1")

    run(scenario())


def test_checkpoints_must_be_redefined_after_a_restart(bench, run):
    disk = bench.disk()

    async def scenario():
        async with bench.host() as host:
            await started(host, bench, disk)
            await host.start_backup("vm1", "b1", (backed_up(disk, bench, to="cp1"),), require_consistency=False)
            await host.stop_backup("vm1", "b1")
            await host.stop_vm("vm1", force=True)  # a power-off, as libvirt does it, keeps bitmaps
            await host.start_vm(bench.definition(disk))
            plan = (backed_up(disk, bench, since="cp1", to="cp2"),)
            await raises(103, host.start_backup("vm1", "b2", plan, require_consistency=False))
            await raises(103, host.delete_checkpoint("vm1", "cp1"))
            await raises(109, host.redefine_checkpoints("vm1", {"cp1": [disk.disk_id], "never-made": [disk.disk_id]}))
            await host.redefine_checkpoints("vm1", {"cp1": [disk.disk_id]})
            await host.start_backup("vm1", "b2", plan, require_consistency=False)
            await host.stop_backup("vm1", "b2")

    run(scenario())


def test_a_killed_vm_has_inconsistent_bitmaps(bench, run):
    disk = bench.disk()
    changes = []

    async def scenario():
        async with bench.host() as host:
            host.watch_vms(lambda *change: changes.append(change))
            await started(host, bench, disk)
            await host.start_backup("vm1", "b1", (backed_up(disk, bench, to="cp1"),), require_consistency=False)
            await host.stop_backup("vm1", "b1")
            await host.stop_vm("vm1", force=False)
            assert changes == []
            await host.start_vm(bench.definition(disk))
            await host.redefine_checkpoints("vm1", {"cp1": [disk.disk_id]})
            await host.block_io("vm1", "vda", "write -P 1 0 64k")
            await host.crash_vm("vm1")
            assert [(vm, state) for vm, state, _ in changes] == [("vm1", "down")]
            assert host.vm_state("vm1") == "down"
            assert (await host.bitmaps(disk.path))["cp1"] == ("in-use", "auto")

            await host.start_vm(bench.definition(disk))
            await raises(109, host.redefine_checkpoints("vm1", {"cp1": [disk.disk_id]}))
            await host.stop_vm("vm1", force=False)
            await host.remove_bitmap(disk.path, "cp1")
            await host.remove_bitmap(disk.path, "cp1")
            assert not await host.bitmaps(disk.path)

    run(scenario())


def test_a_bitmap_lost_since_its_redefinition(bench, run):
    disk = bench.disk()

    async def scenario():
        async with bench.host() as host:
            await started(host, bench, disk)
            await host.start_backup("vm1", "b1", (backed_up(disk, bench, to="cp1"),), require_consistency=False)
            await host.stop_backup("vm1", "b1")
            bitmap = {"node": "vda", "name": "cp1"}
            await host._vms.machine("vm1").execute("block-dirty-bitmap-remove", bitmap)
            plan = (backed_up(disk, bench, since="cp1", to="cp2"),)
            await raises(109, host.start_backup("vm1", "b2", plan, require_consistency=False))
            await raises(1, host.delete_checkpoint("vm1", "cp1"))

    run(scenario())


def test_a_backup_that_cannot_start_leaves_nothing(bench, run):
    first, second = bench.disk("vda"), bench.disk("vdb")

    async def scenario():
        async with bench.host() as host:
            await host.create_volume(first.path, "qcow2", SIZE)
            await host.create_volume(second.path, "qcow2", SIZE)
            await host.add_bitmap(second.path, "taken")
            await host.start_vm(bench.definition(first, second))
            machine = host._vms.machine("vm1")
            before = await machine.execute("query-named-block-nodes", {"flat": True})

            plan = (backed_up(first, bench, to="taken"), backed_up(second, bench, to="taken"))
            await raises(0, host.start_backup("vm1", "b1", plan, require_consistency=False))

            assert await machine.execute("query-named-block-nodes", {"flat": True}) == before
            assert await machine.execute("query-jobs") == []
            assert not (bench.directory / "host1/backup/b1").exists()
            assert not list(bench.directory.glob("*.scratch"))
            plan = (backed_up(first, bench, to="cp1"), backed_up(second, bench, to="cp1"))
            await host.start_backup("vm1", "b1", plan, require_consistency=False)
            await host.stop_backup("vm1", "b1")

    run(scenario())


def test_a_scratch_image_that_cannot_be_made(bench, run):
    disk = bench.disk()

    async def scenario():
        async with bench.host() as host:
            await started(host, bench, disk)
            plan = BackupDisk(
                disk_id=disk.disk_id, scratch=bench.path("no/such/folder"), from_checkpoint=None, to_checkpoint="cp1"
            )
            await raises(0, host.start_backup("vm1", "b1", (plan,), require_consistency=False))
            assert await host._vms.machine("vm1").execute("query-jobs") == []

    run(scenario())


def test_consistency_cannot_be_had_without_an_agent(bench, run):
    disk = bench.disk()

    async def scenario():
        async with bench.host() as host:
            await started(host, bench, disk)
            plan = (backed_up(disk, bench, to="cp1"),)
            error = await raises(0, host.start_backup("vm1", "b1", plan, require_consistency=True))
            assert "frozen" in str(error)
            assert not bench.path("vda.scratch").exists()

    run(scenario())


def test_a_vm_that_dies_during_its_backup(bench, run):
    disk = bench.disk()

    async def scenario():
        async with bench.host() as host:
            await started(host, bench, disk)
            await host.start_backup("vm1", "b1", (backed_up(disk, bench, to="cp1"),), require_consistency=False)
            await host.crash_vm("vm1")
            socket = bench.directory / "host1/backup/b1"
            assert socket.exists()  # stale, as in reality
            await raises(0, host.stop_backup("vm1", "b1"))
            assert not socket.exists()
            assert not bench.path("vda.scratch").exists()
            await host.start_vm(bench.definition(disk))

    run(scenario())
