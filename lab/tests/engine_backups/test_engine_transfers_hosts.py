# SPDX-License-Identifier: GPL-3.0-or-later
"""Which host serves a transfer, and backups and transfers on hosts without processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ovirtlab.engine.background import Background
from ovirtlab.engine.backups import commands as backups
from ovirtlab.engine.backups.rules import BackupRequest
from ovirtlab.engine.clock import Clock
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.disks import Disk, DiskAttachment
from ovirtlab.engine.entities.infrastructure import Cluster, DataCenter, HostEntity, StorageDomain
from ovirtlab.engine.entities.people import User
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import BadRequest
from ovirtlab.engine.records import Backup, ImageTransfer, Origin
from ovirtlab.engine.state import State
from ovirtlab.engine.transfers import commands as transfers
from ovirtlab.engine.transfers import polling
from ovirtlab.engine.transfers.rules import TransferRequest
from ovirtlab.host.api import VmDefinition, VmDisk
from ovirtlab.host.memory import MemoryHost, Storage

FIRST, SECOND = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
ORIGIN = Origin(user_id="u", user_name="admin@internal-authz")


@dataclass
class Place:
    """Two hosts, one VM with one disk."""

    context: Context
    hosts: dict[str, MemoryHost]
    vm: Vm
    disk: Disk

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)

    async def start_vm(self, host_id: str) -> None:
        disk = VmDisk(disk_id=self.disk.id, path=self.disk.path, format="qcow2", target="sda")
        definition = VmDefinition(vm_id=self.vm.id, name=self.vm.name, memory_mib=64, disks=(disk,))
        await self.hosts[host_id].start_vm(definition)
        self.vm.status, self.vm.host_id = "up", host_id

    async def backup(self, **fields: Any) -> Backup:
        request = BackupRequest(vm_id=self.vm.id, disk_ids=(self.disk.id,), origin=ORIGIN, **fields)
        backup = await backups.start(self.context, request)
        await self.until(lambda: backup.phase in ("ready", "failed"))
        return backup

    async def transfer(self, **fields: Any) -> ImageTransfer:
        request = TransferRequest(
            disk_id=self.disk.id, **{"direction": "download", "format": "raw", "origin": ORIGIN, **fields}
        )
        transfer = await transfers.start(self.context, request)
        await self.until(lambda: transfer.phase != "initializing")
        return transfer

    async def end(self, transfer: ImageTransfer) -> None:
        transfers.finalize(self.context, transfer)
        await self.until(lambda: transfer.phase == "finished_success")


@asynccontextmanager
async def place(folder: Path) -> AsyncIterator[Place]:
    clock = Clock(200)
    state = State(clock, seed=7)
    storage = Storage()
    hosts = {key: MemoryHost(name=f"host-{key[-1]}", id=key, storage=storage) for key in (FIRST, SECOND)}
    state.data_centers["dc"] = DataCenter(id="dc", name="Default")
    state.clusters["cl"] = Cluster(id="cl", name="Default", data_center_id="dc")
    state.storage_domains["sd"] = StorageDomain(id="sd", name="store", data_center_id="dc", path=folder)
    state.users["u"] = User(id="u", name="admin", domain="internal", password="")
    for key, host in hosts.items():
        state.hosts[key] = HostEntity(
            id=key, name=host.name, address="127.0.0.1", hw_id=host.hw_id, cluster_id="cl", imageio_port=1
        )
    path = folder / "images/d/i"
    disk = Disk(id="d", image_id="i", alias="disk", provisioned_size=4096, storage_domain_id="sd", path=path)
    vm = Vm(id="v", name="web", cluster_id="cl", memory=1 << 27)
    state.disks["d"], state.vms["v"] = disk, vm
    state.attach(DiskAttachment(disk_id="d", vm_id="v"))
    await hosts[FIRST].create_volume(path, "qcow2", 4096)
    background = Background(clock)
    context = Context(
        state=state, hosts=hosts, clock=clock, background=background, directory=folder, base_url="https://e", ca_pem=""
    )
    try:
        yield Place(context, hosts, vm, disk)
    finally:
        await background.stop()


def test_host_of_a_plain_disk(tmp_path: Path) -> None:
    """The wanted one when it is up, else one that is."""

    async def check() -> None:
        async with place(tmp_path) as here:
            for wanted, status, expected in [
                ("", "up", FIRST),
                (SECOND, "up", SECOND),
                (SECOND, "maintenance", FIRST),
                ("no-such-host", "up", FIRST),
            ]:
                here.context.state.hosts[SECOND].status = status
                transfer = await here.transfer(host_id=wanted)
                assert transfer.host_id == expected
                assert transfer.id in here.hosts[expected].servers
                await here.end(transfer)
                assert not here.hosts[expected].servers

    asyncio.run(check())


def test_live_backup_is_read_at_the_host_of_the_vm(tmp_path: Path) -> None:
    async def check() -> None:
        async with place(tmp_path) as here:
            await here.start_vm(SECOND)
            backup = await here.backup()
            assert backup.host_id == SECOND
            transfer = await here.transfer(backup_id=backup.id, host_id=FIRST)
            assert transfer.host_id == SECOND
            assert not here.hosts[SECOND].servers  # the VM's own QEMU serves it
            ticket = here.hosts[SECOND].tickets[transfer.ticket_id]
            assert ticket["url"] == f"nbd:unix:/run/vdsm/backup/{backup.id}:exportname=sda"
            await here.end(transfer)
            await backups.finalize(here.context, backup)
            await here.until(lambda: backup.phase == "succeeded")

    asyncio.run(check())


def test_cold_backup_is_read_at_any_host(tmp_path: Path) -> None:
    async def check() -> None:
        async with place(tmp_path) as here:
            first = await here.backup()
            await backups.finalize(here.context, first)
            await here.until(lambda: first.phase == "succeeded")
            second = await here.backup(from_checkpoint_id=first.to_checkpoint_id)
            transfer = await here.transfer(backup_id=second.id, host_id=SECOND)
            assert transfer.host_id == SECOND
            assert here.hosts[SECOND].tickets[transfer.ticket_id]["dirty"] is True
            await here.end(transfer)

    asyncio.run(check())


def test_busy_ticket_is_tried_again(tmp_path: Path) -> None:
    async def check() -> None:
        async with place(tmp_path) as here:
            transfer = await here.transfer()
            here.hosts[FIRST].busy_tickets.add(transfer.ticket_id)
            transfers.finalize(here.context, transfer)
            await asyncio.sleep(0.2)
            assert transfer.phase == "finalizing_success"
            assert transfer.id in here.hosts[FIRST].servers
            here.hosts[FIRST].busy_tickets.clear()
            await here.until(lambda: transfer.phase == "finished_success")

    asyncio.run(check())


def test_download_is_ended_on_the_second_look(tmp_path: Path) -> None:
    """All bytes are sent, but the last answer may still be under way when the engine sees it for the first time."""

    async def check() -> None:
        async with place(tmp_path) as here:
            here.context.state.settings.poll_first = 1e9  # only the polls made here
            transfer = await here.transfer()
            ticket = here.hosts[FIRST].tickets[transfer.ticket_id]
            phases = []
            for active in (True, False, False):
                ticket.update(active=active, transferred=4096)
                await polling.advance(here.context, transfer)
                phases.append(transfer.phase)
            assert phases == ["transferring", "transferring", "finalizing_success"]

    asyncio.run(check())


def test_all_checkpoints_are_redefined_below_level_4_6(tmp_path: Path) -> None:
    """So one broken bitmap anywhere in the chain fails the next backup there, and only its own base from 4.6 on."""

    async def check() -> None:
        async with place(tmp_path) as here:
            await here.start_vm(FIRST)
            ids = []
            for _ in range(2):
                backup = await here.backup()
                await backups.finalize(here.context, backup)
                await here.until(lambda: backup.phase == "succeeded")  # noqa: B023 - awaited in the same round
                ids.append(backup.to_checkpoint_id)
            here.hosts[FIRST].storage.bitmaps[here.disk.path][ids[0]] = ("in-use",)
            third = await here.backup(from_checkpoint_id=ids[1])
            assert third.phase == "ready"
            await backups.finalize(here.context, third)
            await here.until(lambda: third.phase == "succeeded")
            here.context.state.clusters["cl"].level = (4, 5)
            with pytest.raises(BadRequest):
                await here.backup(from_checkpoint_id=ids[1])
            assert not here.context.state.checkpoints

    asyncio.run(check())
