# SPDX-License-Identifier: GPL-3.0-or-later
"""Life of VMs without a guest: starting, failing to, plugging disks, growing them, writes that fail."""

import os
import subprocess
import sys
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


ORPHAN_MAKER = """
import asyncio, sys
from pathlib import Path
from ovirtlab.host.api import VmDefinition, VmDisk
from ovirtlab.host.local import LocalHost

async def main(folder):
    host = LocalHost(name="h", id="h", address="x", imageio_port=0, directory=folder / "h",
                     control_socket=folder / "c", netns=None, cache=folder / "cache")
    disk = VmDisk(disk_id="d", path=folder / "disk", format="raw", target="vda")
    await host.create_volume(disk.path, "raw", 1 << 20)
    await host.start_vm(VmDefinition(vm_id="v", name="v", memory_mib=128, disks=(disk,)))
    await host.start_nbd_server("n", disk.path.with_name("other"), "raw", read_only=True)
    print("started", flush=True)
    await asyncio.sleep(60)

folder = Path(sys.argv[1])
(folder / "other").write_bytes(bytes(512))
asyncio.run(main(folder))
"""


def test_nothing_outlives_a_lab_that_is_killed(bench):
    with subprocess.Popen([sys.executable, "-c", ORPHAN_MAKER, bench.directory], stdout=subprocess.PIPE) as lab:
        try:
            assert lab.stdout.readline() == b"started\n"
            assert sum("qemu-" in line for line in bench.processes()) == 2
        finally:
            lab.kill()
    deadline = time.monotonic() + 90
    while bench.processes():
        assert time.monotonic() < deadline, bench.processes()
        time.sleep(0.02)


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_a_host_runs_in_its_network_namespace(bench, run):
    disk, name = bench.disk(), f"ovlh-{os.getpid()}"

    async def scenario():
        async with bench.host(netns=name) as host:
            await host.create_volume(disk.path, "qcow2", MIB)
            await host.start_vm(bench.definition(disk))
            pid = (bench.directory / "host1/vms/vm1/pid").read_text().strip()
            assert Path(f"/proc/{pid}/ns/net").stat().st_ino == Path(f"/run/netns/{name}").stat().st_ino

    added = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True, timeout=90)
    if added.returncode:
        pytest.skip(f"no network namespaces here: {added.stderr!r}")
    try:
        run(scenario())
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True, timeout=90)
