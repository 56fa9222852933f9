# SPDX-License-Identifier: GPL-3.0-or-later
"""Life of VMs without a guest: starting, failing to, plugging disks, growing them, writes that fail."""

import time
from pathlib import Path

import pytest

from ovirtlab.host.api import HostError

MIB = 1 << 20


def test_a_vm_is_started_and_stopped(bench, run):
    disk = bench.disk()

    async def scenario():
        async with bench.host() as host:
            await host.create_volume(disk.path, "qcow2", MIB)
            assert host.vm_state("vm1") == "down"
            began = time.monotonic()
            await host.start_vm(bench.definition(disk))
            assert time.monotonic() - began < 5
            assert host.vm_state("vm1") == "up"
            pid = (bench.directory / "host1/vms/vm1/pid").read_text().strip()
            assert "guest=one,, two,debug-threads=off" in Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            with pytest.raises(HostError, match="runs already"):
                await host.start_vm(bench.definition(disk))
            await host.stop_vm("vm1", force=False)
            await host.stop_vm("vm1", force=False)
            assert host.vm_state("vm1") == "down"
            with pytest.raises(HostError, match="not running"):
                await host.block_io("vm1", "vda", "read 0 512")

    run(scenario())


def test_a_vm_whose_disk_is_in_use_says_so(bench, run):
    disk = bench.disk()

    async def scenario():
        async with bench.host() as host, bench.host("host2") as other:
            await host.create_volume(disk.path, "qcow2", MIB)
            await host.start_vm(bench.definition(disk))
            with pytest.raises(HostError, match="lock"):
                await other.start_vm(bench.definition(disk))
            assert other.vm_state("vm1") == "down"

    run(scenario())


def test_disks_are_plugged_and_unplugged(bench, run):
    first, second = bench.disk("vda"), bench.disk("vdb", "raw")

    async def scenario():
        async with bench.host() as host:
            await host.create_volume(first.path, "qcow2", MIB)
            await host.create_volume(second.path, "raw", MIB)
            await host.start_vm(bench.definition(first))
            await host.attach_disk("vm1", second)
            with pytest.raises(HostError, match="already"):
                await host.attach_disk("vm1", second)
            await host.block_io("vm1", "vdb", "write -P 7 0 4k")
            await host.detach_disk("vm1", second.disk_id)
            assert second.path.read_bytes()[:4096] == b"\x07" * 4096
            await host.resize_volume(second.path, "raw", 2 * MIB)  # nothing holds it any more
            with pytest.raises(HostError, match="no disk"):
                await host.block_io("vm1", "vdb", "write 0 4k")

    run(scenario())


def test_a_disk_in_use_is_grown_through_its_vm(bench, run):
    disk = bench.disk()

    async def scenario():
        async with bench.host() as host:
            await host.create_volume(disk.path, "qcow2", MIB)
            await host.start_vm(bench.definition(disk))
            await host.resize_volume(disk.path, "qcow2", 2 * MIB)
            await host.block_io("vm1", "vda", "write -P 1 1M 1M")

    run(scenario())


@pytest.mark.parametrize("command", ["write 0 2M", "write -P 1 1G 4k", "read -P 9 0 4k", "nonsense", "write"])
def test_a_write_that_fails_is_an_error(bench, run, command):
    disk = bench.disk()

    async def scenario():
        async with bench.host() as host:
            await host.create_volume(disk.path, "qcow2", MIB)
            await host.start_vm(bench.definition(disk))
            assert "wrote 4096/4096" in await host.block_io("vm1", "vda", "write -P 2 0 4k")
            await host.block_io("vm1", "vda", "flush")
            with pytest.raises(HostError):
                await host.block_io("vm1", "vda", command)

    run(scenario())
