# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs that move between two real hosts while they run, and those that stay because something is in the way."""

import asyncio
import contextlib
import socket
from contextlib import asynccontextmanager

import pytest
from lab.tests.test_host.test_live_backup import MIB, backed_up, dirty, exported, raises, started

from ovirtlab.host.api import BackupDisk, HostError, MigrationLimits
from ovirtlab.host.migration import migrate

QUICK = MigrationLimits(stall=30.0)
SLOW = MigrationLimits(bandwidth=1 * MIB, stall=30.0)  # a guest takes a minute or so with it


@asynccontextmanager
async def pair(bench):
    async with bench.host("one") as one, bench.host("two") as two:
        yield one, two


async def move(one, two, *, limits=QUICK, vm_id="vm1") -> list[int]:
    """Migrate; return the percentages that were told."""
    told: list[int] = []
    await migrate(vm_id, one, two, limits=limits, report=told.append)
    return told


@asynccontextmanager
async def moving(one, two, *, vm_id="vm1"):
    """A migration that takes its time, from the moment memory flows."""
    told: list[int] = []
    task = asyncio.create_task(migrate(vm_id, one, two, limits=SLOW, report=told.append))
    try:
        while not any(told):
            assert not task.done(), task.exception()
            await asyncio.sleep(0.02)
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, HostError):
            await task


async def guest(host, bench, *, agent=True):
    disk = bench.disk()
    clone = await host.make_guest_disks((disk,), (256 * MIB,), agent)
    definition = bench.definition(disk, guest="linux", agent=agent, clone=clone)
    await host.start_vm(definition)
    return disk


async def shell(host, line) -> str:
    status, out, err = await host.guest_exec("vm1", ["sh", "-c", line])
    assert status == 0, err
    return out.decode().strip()


async def full(host, bench, disk, name, *, since=None) -> str:
    """A backup that makes checkpoint `name`; return the URL, the backup runs."""
    if since:
        await host.redefine_checkpoints("vm1", {since: [disk.disk_id]})
    plan = (backed_up(disk, bench, since=since, to=name),)
    return (await host.start_backup("vm1", f"b-{name}", plan, require_consistency=False))[disk.disk_id]


def test_what_was_written_before_and_after_is_in_the_next_incremental(bench, run):
    """The bitmap moves with the disk: nothing is lost and nothing is added, there and back again."""
    disk = bench.disk()

    async def scenario():
        async with pair(bench) as (one, two):
            await started(one, bench, disk)
            await one.block_io("vm1", "vda", "write -P 0x11 0 1M")
            await full(one, bench, disk, "cp1")
            await one.stop_backup("vm1", "b-cp1")
            await one.block_io("vm1", "vda", "write -P 0x22 10M 64k")
            assert (await move(one, two))[-1] == 100
            assert (one.vm_state("vm1"), two.vm_state("vm1")) == ("down", "up")
            await two.block_io("vm1", "vda", "write -P 0x33 20M 128k")

            plan = (backed_up(disk, bench, since="cp1", to="cp2"),)
            await raises(103, two.start_backup("vm1", "b2", plan, require_consistency=False))
            url = await full(two, bench, disk, "cp2", since="cp1")
            assert dirty(url, "qemu:dirty-bitmap:backup-vda") == [(10 * MIB, 65536), (20 * MIB, 131072)]
            content = exported(url, bench.path("content"))
            assert content[10 * MIB : 10 * MIB + 65536] == b"\x22" * 65536
            assert content[20 * MIB : 20 * MIB + 131072] == b"\x33" * 131072
            await two.stop_backup("vm1", "b-cp2")

            await two.block_io("vm1", "vda", "write -P 0x44 30M 64k")
            await move(two, one)
            await one.block_io("vm1", "vda", "write -P 0x55 40M 64k")
            url = await full(one, bench, disk, "cp3", since="cp2")
            assert dirty(url, "qemu:dirty-bitmap:backup-vda") == [(30 * MIB, 65536), (40 * MIB, 65536)]
            await one.stop_backup("vm1", "b-cp3")
            await one.stop_vm("vm1", force=False)
            assert set(await one.bitmaps(disk.path)) == {"cp1", "cp2", "cp3"}
            assert all(flags == ("auto",) for flags in (await one.bitmaps(disk.path)).values())

    run(scenario())


def test_a_chain_of_snapshots_moves_and_is_merged_at_the_other_host(bench, run):
    disk = bench.disk()

    async def scenario():
        async with pair(bench) as (one, two):
            await started(one, bench, disk)
            await full(one, bench, disk, "cp1")
            await one.stop_backup("vm1", "b-cp1")
            await one.block_io("vm1", "vda", "write -P 1 0 64k")
            await one.create_overlay(bench.path("top.qcow2"), disk.path, "qcow2")
            await one.snapshot_vm("vm1", {disk.disk_id: bench.path("top.qcow2")})
            await one.block_io("vm1", "vda", "write -P 2 1M 64k")
            await move(one, two)
            await two.block_io("vm1", "vda", "write -P 3 2M 64k")
            await two.merge_live("vm1", disk.disk_id, top=bench.path("top.qcow2"), base=disk.path)
            url = await full(two, bench, disk, "cp2", since="cp1")
            assert dirty(url, "qemu:dirty-bitmap:backup-vda") == [(0, 65536), (MIB, 65536), (2 * MIB, 65536)]
            await two.stop_backup("vm1", "b-cp2")
            await two.stop_vm("vm1", force=False)

    run(scenario())


def test_watchers_are_told_nothing_of_a_vm_that_moves(bench, run):
    disk = bench.disk()
    changes = []

    async def scenario():
        async with pair(bench) as (one, two):
            for host in (one, two):
                host.watch_vms(lambda *change: changes.append(change))
            await started(one, bench, disk)
            await move(one, two)
            assert changes == []
            await two.crash_vm("vm1")
            assert [(vm, state) for vm, state, _ in changes] == [("vm1", "down")]

    run(scenario())


def test_a_guest_goes_on_where_it_was(bench, run):
    """Its programs run through, its memory and what it has not written yet are there, its agent answers."""

    async def scenario():
        async with pair(bench) as (one, two):
            await guest(one, bench)
            count = "n=0; while :; do n=$((n+1)); echo $n >/tmp/count; usleep 20000; done"
            await shell(one, f"echo kept >/root/unsynced; ({count}) >/dev/null 2>&1 & echo $! >/tmp/pid")
            before = int(await shell(one, "cat /tmp/count || echo 0"))
            told = await move(one, two)
            assert told[-1] == 100
            counted = f'[ "$(cat /tmp/count)" -gt {before + 5} ] 2>/dev/null'
            await shell(two, f"until {counted}; do usleep 20000; done; kill $(cat /tmp/pid)")
            assert await shell(two, "cat /root/unsynced") == "kept"
            assert (await two.console_exec("vm1", ["cat", "/root/unsynced"]))[1] == b"kept\n"
            plan = BackupDisk(disk_id="disk-vda", scratch=bench.path("s"), from_checkpoint=None, to_checkpoint="cp1")
            await two.start_backup("vm1", "b1", (plan,), require_consistency=True)
            await two.stop_backup("vm1", "b1")
            await two.stop_vm("vm1", force=False)

    run(scenario())


def test_disks_plugged_and_unplugged_before_stand_in_their_slots(bench, run):
    second, third = bench.disk("vdb"), bench.disk("vdc")

    async def scenario():
        async with pair(bench) as (one, two):
            await guest(one, bench)
            for disk in (second, third):
                await one.create_volume(disk.path, disk.format, 16 * MIB)
                await one.attach_disk("vm1", disk)
            await shell(one, "for n in $(seq 200); do [ -b /dev/vdc ] && break; usleep 50000; done; [ -b /dev/vdc ]")
            await one.detach_disk("vm1", second.disk_id)
            await move(one, two)
            await shell(two, "mke2fs -q /dev/vdc && [ ! -b /dev/vdb ]")
            extra = bench.disk("vdd")
            await two.create_volume(extra.path, extra.format, 16 * MIB)
            await two.attach_disk("vm1", extra)
            await shell(two, "for n in $(seq 200); do [ -b /dev/vdb ] && break; usleep 50000; done; [ -b /dev/vdb ]")
            await two.stop_vm("vm1", force=True)

    run(scenario())


def test_a_vm_that_is_backed_up_does_not_move(bench, run):
    disk = bench.disk()

    async def scenario():
        async with pair(bench) as (one, two):
            await started(one, bench, disk)
            await full(one, bench, disk, "cp1")
            await raises(68, move(one, two))
            await one.stop_backup("vm1", "b-cp1")
            assert two.vm_state("vm1") == "down"
            await move(one, two)

    run(scenario())


def test_while_it_moves_nothing_else_is_done_to_it(bench, run):
    async def scenario():
        async with pair(bench) as (one, two):
            disk = await guest(one, bench)
            async with moving(one, two):
                plan = (backed_up(disk, bench, to="cp1"),)
                await raises(68, one.start_backup("vm1", "b1", plan, require_consistency=False))
                await raises(68, one.describe_vm("vm1"))
                assert two.vm_state("vm1") == "down"
            assert await shell(one, "echo here") == "here"
            await one.start_backup("vm1", "b1", plan, require_consistency=False)
            await one.stop_backup("vm1", "b1")

    run(scenario())


async def still_at(one, two, bench, disk) -> None:
    """The VM runs on at the first host, writes, and can be backed up and moved again; nothing is left at the other."""
    assert (one.vm_state("vm1"), two.vm_state("vm1")) == ("up", "down")
    assert await shell(one, "echo x >/root/after; sync; cat /root/after") == "x"
    url = await full(one, bench, disk, "after")
    assert len(exported(url, bench.path("after"))) == 256 * MIB
    await one.stop_backup("vm1", "b-after")


def test_a_cancelled_migration_leaves_the_vm_where_it_was(bench, run):
    async def scenario():
        async with pair(bench) as (one, two):
            disk = await guest(one, bench)
            with pytest.raises(HostError, match="not being migrated"):
                await one.cancel_migration("vm1")
            async with moving(one, two) as task:
                await one.cancel_migration("vm1")
                with pytest.raises(HostError, match="was not migrated"):
                    await task
            await still_at(one, two, bench, disk)
            await move(one, two)
            assert two.vm_state("vm1") == "up"

    run(scenario(), 150)


def test_the_other_host_dies_on_the_way(bench, run):
    async def scenario():
        async with pair(bench) as (one, two):
            disk = await guest(one, bench)
            async with moving(one, two) as task:
                await two.lose_power()
                with pytest.raises(HostError):
                    await task
            await still_at(one, two, bench, disk)

    run(scenario(), 150)


def test_a_vm_that_did_not_arrive_is_taken_back(bench, run):
    """All memory was sent and the VM has stopped, but the other QEMU is gone: the bitmaps too are the first one's."""
    disk = bench.disk()

    async def scenario():
        async with pair(bench) as (one, two):
            await started(one, bench, disk)
            await full(one, bench, disk, "cp1")
            await one.stop_backup("vm1", "b-cp1")
            await one.block_io("vm1", "vda", "write -P 2 1M 64k")
            arrival = two.take_over_vm

            async def die_first(*args, **kwargs):
                await two.lose_power()
                await arrival(*args, **kwargs)

            two.take_over_vm = die_first
            with pytest.raises(HostError):
                await move(one, two)
            two.take_over_vm = arrival
            await one.block_io("vm1", "vda", "write -P 3 2M 64k")
            url = await full(one, bench, disk, "cp2", since="cp1")
            assert dirty(url, "qemu:dirty-bitmap:backup-vda") == [(MIB, 65536), (2 * MIB, 65536)]
            await one.stop_backup("vm1", "b-cp2")
            await move(one, two)
            await two.stop_vm("vm1", force=False)
            assert dict(await one.bitmaps(disk.path)) == {"cp1": ("auto",), "cp2": ("auto",)}

    run(scenario())


def test_nothing_listens_at_the_other_host(bench, run):
    async def scenario():
        async with pair(bench) as (one, two):
            disk = await guest(one, bench)
            with socket.create_server(("127.0.0.1", 0)) as deaf:

                async def prepare(definition):
                    return f"tcp:127.0.0.1:{deaf.getsockname()[1]}"

                two.prepare_vm = prepare
                with pytest.raises(HostError, match="no progress for 2 s"):
                    await move(one, two, limits=MigrationLimits(stall=2.0))
            await still_at(one, two, bench, disk)

    run(scenario(), 150)


def test_the_vm_itself_dies_on_the_way(bench, run):
    changes = []

    async def scenario():
        async with pair(bench) as (one, two):
            one.watch_vms(lambda *change: changes.append(change))
            await guest(one, bench)
            async with moving(one, two) as task:
                await one.crash_vm("vm1")
                with pytest.raises(HostError):
                    await task
            assert (one.vm_state("vm1"), two.vm_state("vm1")) == ("down", "down")
            assert [(vm, state) for vm, state, _ in changes] == [("vm1", "down")]

    run(scenario())


def test_a_vm_that_runs_there_already_is_not_taken(bench, run):
    disk, other = bench.disk(), bench.disk("vdb")

    async def scenario():
        async with pair(bench) as (one, two):
            await started(one, bench, disk)
            await started(two, bench, other)
            with pytest.raises(HostError, match="is here already"):
                await move(one, two)
            assert (one.vm_state("vm1"), two.vm_state("vm1")) == ("up", "up")
            await one.block_io("vm1", "vda", "write -P 1 0 64k")

    run(scenario())
