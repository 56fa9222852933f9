# SPDX-License-Identifier: GPL-3.0-or-later
"""The first start of an environment: its volumes are made and its VMs brought up."""

from __future__ import annotations

import asyncio

from ovirtlab.engine import running
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.seed import ADMIN_ID
from ovirtlab.host.api import Host


async def make_volumes(context: Context) -> None:
    """Make the volumes of all disks that are locked since the state was filled, and unlock them.

    Guests come one after the other, as the second of a kind is copied from what the first one's boot left behind.
    """
    guests = [vm for vm in context.state.vms.values() if vm.guest == "linux" and vm.attachments]
    plain = [vm for vm in context.state.vms.values() if vm not in guests]
    for vm in guests:
        await _install(context, vm)
    await asyncio.gather(*(_make_empty(context, vm) for vm in plain))
    for disk in context.state.disks.values():
        disk.status = "ok"


async def start_vms(context: Context, names: frozenset[str]) -> None:
    """Start the VMs of these names and wait until they are up; the first that fails raises."""
    cause = Cause(context.state.users[ADMIN_ID], "lab-start")
    chosen = [vm for vm in context.state.vms.values() if vm.name in names]
    await asyncio.gather(*(_start(context, vm, cause) for vm in chosen))


async def _start(context: Context, vm: Vm, cause: Cause) -> None:
    lock = running.take_vm(context, vm, action="Cannot run VM")
    await running.start(context, vm, cause=cause, lock=lock)
    if vm.status != "up":
        raise NotStarted(vm.name)


class NotStarted(Exception):
    """A VM of the environment did not come up; the log has the host's error."""

    def __init__(self, name: str) -> None:
        super().__init__(f"The VM {name} could not be started; the engine's log says why.")


async def _install(context: Context, vm: Vm) -> None:
    disks = running.definition(context, vm).disks
    sizes = tuple(context.state.disks[disk.disk_id].provisioned_size for disk in disks)
    for disk in disks:
        disk.path.parent.mkdir(parents=True, exist_ok=True)
    vm.clone = await _home(context, vm).make_guest_disks(disks, sizes, vm.agent, memory_mib=vm.memory >> 20)


async def _make_empty(context: Context, vm: Vm) -> None:
    for disk in context.state.disks_of(vm):
        disk.path.parent.mkdir(parents=True, exist_ok=True)
        await _home(context, vm).create_volume(disk.path, disk.volume_format, disk.provisioned_size)


def _home(context: Context, vm: Vm) -> Host:
    return context.hosts[vm.home_host_id]
