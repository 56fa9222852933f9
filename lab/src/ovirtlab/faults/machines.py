# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of VMs and of whole hosts."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Annotated

from ovirtlab.engine import faults, running, seed
from ovirtlab.engine.entities import HostEntity
from ovirtlab.engine.jobs import Cause
from ovirtlab.faults.base import Fault, FaultError, Lab, Undo

log = logging.getLogger(__name__)

NOT_RESPONDING, DETECTED = 12, 13  # codes of VDS_FAILURE and VDS_DETECTED
VmName = Annotated[str, "Name or id of a VM."]
HostName = Annotated[str, "Name of a host."]


@dataclass(frozen=True, kw_only=True)
class VmKill(Fault):
    """A VM's QEMU dies; bitmaps that were stored before are inconsistent, others are gone."""

    name = "vm-kill"
    mended = "The VM is started, if it is down and nothing holds it."
    vm: VmName

    async def do(self, lab: Lab) -> Undo:
        vm, host = lab.running(self.vm)
        await host.crash_vm(vm.id)
        return _starts(lab, vm.id)


@dataclass(frozen=True, kw_only=True)
class VmPowerOff(Fault):
    """A guest powers itself off, unasked by the engine; its bitmaps are stored, a running backup loses its exports."""

    name = "vm-power-off"
    mended = VmKill.mended
    vm: VmName

    async def do(self, lab: Lab) -> Undo:
        vm, host = lab.running(self.vm)
        await host.power_off_inside(vm.id)
        return _starts(lab, vm.id)


@dataclass(frozen=True, kw_only=True)
class HostKill(Fault):
    """A host loses its power: all QEMU, qemu-nbd and the imageio daemon end at once, the host is non responsive."""

    name = "host-kill"
    mended = "The daemon runs and the host is up; its VMs stay down until somebody starts them."
    host: HostName

    async def do(self, lab: Lab) -> Undo:
        record, host, daemon = lab.record(self.host), lab.host(self.host), lab.parts().imageio[self.host]
        unreachable(lab, record)
        await asyncio.gather(asyncio.to_thread(daemon.kill), host.lose_power())

        async def undo() -> None:
            await asyncio.to_thread(daemon.restart)
            reachable(lab, record)

        return undo


@dataclass(frozen=True, kw_only=True)
class DiskSlow(Fault):
    """A disk of a running VM is slow for its guest."""

    name = "disk-slow"
    mended = "The disk has no limits."
    vm: VmName
    target: Annotated[str, "Disk as the guest sees it: vda, vdb, sda."]
    rate: Annotated[int, "Bytes a second, 0 for no limit."] = 0
    iops: Annotated[int, "Operations a second, 0 for no limit."] = 0

    async def do(self, lab: Lab) -> Undo:
        if not self.rate and not self.iops:
            raise FaultError("disk-slow needs a rate or iops; without them nothing is slow")
        vm, host = lab.running(self.vm)
        await self._limit(lab, rate=self.rate, iops=self.iops)

        async def undo() -> None:
            if host.vm_state(vm.id) != "down":  # a machine that was started again has no limits
                await self._limit(lab, rate=0, iops=0)

        return undo

    async def _limit(self, lab: Lab, *, rate: int, iops: int) -> None:
        vm, host = lab.running(self.vm)
        unlimited = {"bps_rd": 0, "bps_wr": 0, "iops_rd": 0, "iops_wr": 0}
        # a guest's device is found by its id, a backend without a device by its own name; they are named alike
        device = {("device" if vm.guest == "none" else "id"): f"dev-{self.target}"}
        await host.qmp(vm.id, "block_set_io_throttle", {**device, "bps": rate, "iops": iops, **unlimited})


def unreachable(lab: Lab, record: HostEntity) -> None:
    """The engine has lost a host."""
    record.status = "non_responsive"
    text = f"Host {record.name} is non responsive."
    lab.engine.state.events.add(NOT_RESPONDING, "error", text, host=record.id, cluster=record.cluster_id)


def reachable(lab: Lab, record: HostEntity) -> None:
    """The engine has found a host again."""
    record.status = "up"
    text = f"Status of host {record.name} was set to Up."
    lab.engine.state.events.add(DETECTED, "normal", text, host=record.id, cluster=record.cluster_id)


def _starts(lab: Lab, vm_id: str) -> Undo:
    async def undo() -> None:
        context = lab.engine.context
        vm = context.state.vms.get(vm_id)
        if vm is None or vm.status != "down":
            return
        try:
            running.check_start(context, vm)
            lock = running.take_vm(context, vm, action="Cannot run VM")
        except faults.Fault as refusal:
            log.warning("VM %s stays down: %s", vm.name, refusal.detail)
            return
        cause = Cause(context.state.users[seed.ADMIN_ID], "fault-clear")
        await running.start(context, vm, cause=cause, lock=lock)

    return undo


FAULTS: tuple[type[Fault], ...] = (VmKill, VmPowerOff, HostKill, DiskSlow)
