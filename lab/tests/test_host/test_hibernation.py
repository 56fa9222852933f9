# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs whose memory is written to a file, and which go on from there, on this host or another."""

from dataclasses import replace

import pytest

from ovirtlab.host.api import BackupDisk, HostError

MIB = 1 << 20
SIZES = (128 * MIB, 64 * MIB)


async def shell(host, command: str) -> str:
    status, out, err = await host.guest_exec("vm1", ["sh", "-c", command])
    assert status == 0, err
    return out.decode().strip()


@pytest.mark.guest
def test_a_guest_goes_on_where_it_was_on_another_host(bench, run):
    async def scenario():
        async with bench.host() as host, bench.host("host2") as other:
            disks = (bench.disk("vda"), bench.disk("vdb", "raw"))
            clone = await host.make_guest_disks(disks, SIZES, True)
            await host.start_vm(bench.definition(*disks, guest="linux", clone=clone))
            extra = bench.disk("vdc", "raw")
            await host.create_volume(extra.path, "raw", 16 * MIB)
            await host.attach_disk("vm1", extra)
            await host.wait_guest("vm1")
            await shell(host, "echo only in memory > /dev/note && echo kept > /data/file")
            told = []
            host.watch_vms(lambda *change: told.append(change))
            suspended = await host.suspend_vm("vm1", bench.path("memory"))
            assert (host.vm_state("vm1"), told) == ("down", [])
            await other.start_vm(suspended)
            assert await shell(other, "cat /dev/note /data/file") == "only in memory\nkept"
            assert await shell(other, "blockdev --getsize64 /dev/vdc") == str(16 * MIB)

    run(scenario())


def test_bitmaps_of_a_suspended_vm_see_what_was_and_will_be_written(bench, run):
    async def scenario():
        async with bench.host() as host:
            disk = bench.disk()
            await host.create_volume(disk.path, "qcow2", 16 * MIB)
            await host.start_vm(bench.definition(disk))
            first = BackupDisk(
                disk_id=disk.disk_id, scratch=bench.path("scratch"), from_checkpoint=None, to_checkpoint="one"
            )
            await host.start_backup("vm1", "b1", (first,), require_consistency=False)
            await host.stop_backup("vm1", "b1")
            await host.block_io("vm1", "vda", "write -P 1 1M 64k")
            suspended = await host.suspend_vm("vm1", bench.path("memory"))
            assert await host.bitmaps(disk.path) == {"one": ("auto",)}
            await host.start_vm(suspended)
            await host.block_io("vm1", "vda", "write -P 2 4M 64k")
            await host.redefine_checkpoints("vm1", {"one": [disk.disk_id]})
            await host.stop_vm("vm1", force=True)
            assert await host.bitmaps(disk.path) == {"one": ("auto",)}

    run(scenario())


def test_a_vm_whose_memory_cannot_be_written_runs_on(bench, run):
    async def scenario():
        async with bench.host() as host:
            disk = bench.disk()
            await host.create_volume(disk.path, "qcow2", 16 * MIB)
            await host.start_vm(bench.definition(disk))
            with pytest.raises(HostError):
                await host.suspend_vm("vm1", bench.path("nowhere") / "memory")
            assert host.vm_state("vm1") == "up"
            await host.block_io("vm1", "vda", "write -P 1 1M 64k")

    run(scenario())


def test_a_vm_does_not_start_anew_when_its_memory_is_gone(bench, run):
    async def scenario():
        async with bench.host() as host:
            disk = bench.disk()
            await host.create_volume(disk.path, "qcow2", 16 * MIB)
            with pytest.raises(HostError):
                await host.start_vm(replace(bench.definition(disk), memory=bench.path("nowhere")))
            assert host.vm_state("vm1") == "down"

    run(scenario())
