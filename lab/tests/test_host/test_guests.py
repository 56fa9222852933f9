# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests that really run: clones of a saved state, their agent and console, consistent copies, cold boots."""

import asyncio
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ovirtlab.host.api import BackupDisk, HostError, VmDisk

pytestmark = pytest.mark.guest

MIB = 1 << 20
SIZES = (128 * MIB, 64 * MIB)


async def cloned(host, bench, *, agent: bool = True, formats=("qcow2", "raw"), **fields):
    """Make the disks of a guest and start it from its saved state."""
    disks = tuple(bench.disk(f"vd{letter}", fmt) for letter, fmt in zip("ab", formats, strict=True))
    clone = await host.make_guest_disks(disks, SIZES, agent)
    definition = bench.definition(*disks, guest="linux", agent=agent, clone=clone, **fields)
    await host.start_vm(definition)
    return definition


async def shell(host, command: str, vm_id: str = "vm1") -> str:
    status, out, err = await host.guest_exec(vm_id, ["sh", "-c", command])
    assert status == 0, err
    return out.decode().strip()


def convert(url: str, sink: Path) -> None:
    socket, name = url.removeprefix("nbd:unix:").split(":exportname=")
    source = f"nbd+unix:///{name}?socket={socket}"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", source, sink], check=True, timeout=90)


def journal_needs_recovery(image: Path) -> bool:
    raw = image.with_suffix(".check")
    subprocess.run(["qemu-img", "convert", "-O", "raw", image, raw], check=True, timeout=90)
    shown = subprocess.run(["dumpe2fs", "-h", raw], check=True, timeout=90, capture_output=True, text=True).stdout
    return "needs_recovery" in shown


def test_two_clones_run_apart(bench, run):
    async def scenario():
        async with bench.host() as host, bench.host("host2") as other:
            definition = await cloned(host, bench)
            moved = bench.path("second")
            moved.mkdir()
            disks = tuple(replace(disk, path=moved / disk.target, format="raw") for disk in definition.disks)
            assert await other.make_guest_disks(disks, SIZES, True) == definition.clone
            began = time.monotonic()
            await other.start_vm(replace(definition, name="other", disks=disks))
            assert time.monotonic() - began < 10  # 0.4 s on an idle machine; a boot takes 2.5 s there
            assert await shell(host, "hostname") == "one--two"
            assert await shell(other, "hostname") == "other"
            assert abs(int(await shell(other, "date +%s")) - time.time()) < 5
            await shell(host, "echo first >/data/file; sync")
            assert await shell(other, "ls /data") == "lost+found"
            assert await host.guest_exec("vm1", ["sh", "-c", "echo out; echo err >&2; exit 3"]) == (
                3,
                b"out\n",
                b"err\n",
            )

    run(scenario())


def test_backup_of_a_frozen_guest_boots(bench, run):
    copies = tuple(bench.path(f"copy-{target}.qcow2") for target in ("vda", "vdb"))

    async def scenario():
        async with bench.host() as host:
            await cloned(host, bench)
            await shell(host, "dd if=/dev/urandom of=/data/file bs=64k count=20 2>/dev/null; cp /data/file /root/file")
            known = await shell(host, "sha256sum </data/file")
            plan = tuple(
                BackupDisk(
                    disk_id=f"disk-{target}",
                    scratch=bench.path(f"{target}.scratch"),
                    from_checkpoint=None,
                    to_checkpoint="cp1" if target == "vda" else None,
                )
                for target in ("vda", "vdb")
            )
            urls = await host.start_backup("vm1", "b1", plan, require_consistency=True)
            await shell(host, "rm /data/file /root/file; sync")  # thawed: this would hang
            for target, copy in zip(("vda", "vdb"), copies, strict=True):
                convert(urls[f"disk-{target}"], copy)
                assert not journal_needs_recovery(copy)
            await host.stop_backup("vm1", "b1")
            await host.stop_vm("vm1", force=True)

            restored = tuple(
                VmDisk(disk_id=f"new-{n}", path=copy, format="qcow2", target=f"vd{'ab'[n]}")
                for n, copy in enumerate(copies)
            )
            await host.start_vm(bench.definition(*restored, vm_id="vm2", name="restored", guest="linux"))
            assert await shell(host, "sha256sum </data/file; sha256sum </root/file", "vm2") == f"{known}\n{known}"
            assert await shell(host, "cat /sys/block/vda/serial", "vm2") == "new-0"

    run(scenario())


@pytest.mark.parametrize("frozen", [True, False])
def test_file_systems_are_frozen_until_they_are_thawed(bench, run, frozen):
    """What a snapshot without a freeze of its own finds is clean when somebody else has frozen the guest."""

    async def scenario():
        async with bench.host() as host:
            definition = await cloned(host, bench, formats=("qcow2", "qcow2"))
            await shell(host, "echo here >/data/file; sync")
            data, over = definition.disks[1], bench.path("over")
            await host.create_overlay(over, data.path, "qcow2")
            if frozen:
                await host.freeze_vm("vm1")
                with pytest.raises(HostError):  # the agent does nothing else now
                    await host.guest_exec("vm1", ["true"])
            await host.snapshot_vm("vm1", {data.disk_id: over}, freeze=False)
            await host.thaw_vm("vm1")
            assert await shell(host, "echo there >/data/file; sync; cat /data/file") == "there"
            await host.stop_vm("vm1", force=True)
            assert journal_needs_recovery(data.path) is not frozen

    run(scenario())


def test_a_guest_that_is_reset_boots_with_what_it_has_written(bench, run):
    changes = []

    async def scenario():
        async with bench.host() as host:
            host.watch_vms(lambda *change: changes.append(change))
            await cloned(host, bench)
            boot = await shell(host, "echo kept >/data/file; sync; cat /proc/sys/kernel/random/boot_id")
            await host.reset_vm("vm1")
            after = await shell(host, "cat /data/file /proc/sys/kernel/random/boot_id")
            assert after.splitlines()[0] == "kept"
            assert after.splitlines()[1] != boot
            assert host.vm_state("vm1") == "up"
            assert changes == []

    run(scenario())


def test_a_guest_without_an_agent(bench, run):
    changes = []

    async def scenario():
        async with bench.host() as host:
            host.watch_vms(lambda *change: changes.append(change))
            definition = await cloned(host, bench, agent=False)
            long = "x" * 20000
            status, out, err = await host.guest_exec("vm1", ["sh", "-c", f"echo {long}; echo 'err \\' >&2; exit 7"])
            assert (status, out, err) == (7, long.encode() + b"\n", b"err \\\n")
            plan = (
                BackupDisk(
                    disk_id="disk-vda", scratch=bench.path("scratch"), from_checkpoint=None, to_checkpoint="cp1"
                ),
            )
            with pytest.raises(HostError, match="frozen"):
                await host.start_backup("vm1", "b1", plan, require_consistency=True)
            with pytest.raises(HostError, match="has no guest agent") as refused:
                await host.freeze_vm("vm1")
            assert refused.value.code == 19
            await host.start_backup("vm1", "b1", plan, require_consistency=False)
            await host.stop_backup("vm1", "b1")
            await host.stop_vm("vm1", force=False)
            assert dict(await host.bitmaps(definition.disks[0].path)) == {"cp1": ("auto",)}
            assert changes == []  # it was asked for
            assert not journal_needs_recovery(definition.disks[0].path)  # it powered off by itself

    run(scenario())


def test_a_power_off_inside_the_guest_is_told(bench, run):
    changes = []

    async def scenario():
        async with bench.host() as host:
            host.watch_vms(lambda *change: changes.append(change))
            definition = await cloned(host, bench)
            await host.console_exec("vm1", ["sh", "-c", "(sleep 0.3; poweroff) >/dev/null 2>&1 &"])
            while not changes:
                await asyncio.sleep(0.02)
            assert changes == [("vm1", "down", "guest-shutdown")]
            # its disks are not the untouched copies any more, so it boots
            await host.start_vm(definition)
            await host.wait_guest("vm1")
            assert "GUEST-READY" in (bench.directory / "host1/vms/vm1/console.log").read_text()

    run(scenario())


def test_a_guest_shut_down_by_its_agent_starts_again_with_its_data(bench, run):
    async def scenario():
        async with bench.host() as host:
            definition = await cloned(host, bench)
            await shell(host, "echo kept >/root/file")  # no sync: the shutdown must write it
            await host.stop_vm("vm1", force=False)
            await host.start_vm(definition)
            assert await shell(host, "cat /root/file") == "kept"

    run(scenario())


def test_a_broken_first_disk_does_not_boot(bench, run):
    async def scenario():
        async with bench.host() as host:
            disk = bench.disk()
            await host.create_volume(disk.path, "qcow2", SIZES[0])
            await host.start_vm(bench.definition(disk, guest="linux"))
            with pytest.raises(HostError, match="GUEST-BROKEN"):
                await host.wait_guest("vm1")
            with pytest.raises(HostError, match="GUEST-BROKEN"):
                await host.guest_exec("vm1", ["true"])

    run(scenario())


def test_a_disk_is_plugged_into_a_guest(bench, run):
    async def scenario():
        async with bench.host() as host:
            await cloned(host, bench)
            extra = bench.disk("vdc")
            await host.create_volume(extra.path, "qcow2", 16 * MIB)
            await host.attach_disk("vm1", extra)
            await shell(host, "for n in $(seq 100); do [ -b /dev/vdc ] && break; usleep 50000; done; mke2fs /dev/vdc")
            await host.block_io("vm1", "vdc", "read 0 4k")
            await host.detach_disk("vm1", extra.disk_id)
            await shell(host, "[ ! -b /dev/vdc ]")

    run(scenario())


def test_a_dead_agent_does_not_stop_a_backup_without_consistency(bench, run):
    async def scenario():
        async with bench.host() as host:
            await cloned(host, bench)
            status, _, _ = await host.console_exec("vm1", ["sh", "-c", "kill -STOP $(pidof qemu-ga)"])
            assert status == 0
            plan = BackupDisk(
                disk_id="disk-vda", scratch=bench.path("scratch"), from_checkpoint=None, to_checkpoint="cp1"
            )
            await host.start_backup("vm1", "b1", (plan,), require_consistency=False)
            await host.stop_backup("vm1", "b1")

    run(scenario())


@pytest.fixture
def small_mount(bench):
    """A file system of 2 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder = bench.path("small")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=True, timeout=90)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True, timeout=90)


def test_a_full_scratch_disk_pauses_the_vm(bench, run, small_mount):
    changes = []

    async def scenario():
        async with bench.host() as host:
            host.watch_vms(lambda *change: changes.append(change))
            await cloned(host, bench)
            await shell(host, "dd if=/dev/zero of=/root/file bs=1M count=8 2>/dev/null; sync")
            plan = BackupDisk(
                disk_id="disk-vda", scratch=small_mount / "scratch", from_checkpoint=None, to_checkpoint="cp1"
            )
            await host.start_backup("vm1", "b1", (plan,), require_consistency=False)
            write = "(dd if=/dev/urandom of=/root/file bs=1M count=8 conv=notrunc; sync) >/dev/null 2>&1 &"
            await host.console_exec("vm1", ["sh", "-c", write])
            while not changes:
                await asyncio.sleep(0.02)
            assert changes == [("vm1", "paused", "no-space")]
            assert host.vm_state("vm1") == "paused"
            await host.stop_backup("vm1", "b1")
            await host.resume_vm("vm1")
            assert host.vm_state("vm1") == "up"
            await shell(host, "sync")

    run(scenario())
