# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of VMs and of whole hosts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated

from ovirtlab.engine import reach
from ovirtlab.faults.base import Fault, FaultError, Lab, Undo
from ovirtlab.faults.recovery import run_again

VmName = Annotated[str, "Name or id of a VM."]
HostName = Annotated[str, "Name of a host."]


@dataclass(frozen=True, kw_only=True)
class VmKill(Fault):
    """A VM's QEMU dies; bitmaps that were stored before are inconsistent, others are gone."""

    name = "vm-kill"
    mended = "A live backup that has lost the VM is ended, and the VM runs again."
    lasting = "bitmaps that the VM had not stored are gone, and stored ones inconsistent; a full backup is needed"
    vm: VmName

    async def do(self, lab: Lab) -> Undo:
        vm, host = lab.running(self.vm)
        await host.crash_vm(vm.id)
        return lambda: run_again(lab, [vm.id])


@dataclass(frozen=True, kw_only=True)
class VmPowerOff(Fault):
    """A guest powers itself off, unasked by the engine; its bitmaps are stored, a running backup loses its exports."""

    name = "vm-power-off"
    mended = VmKill.mended
    vm: VmName

    async def do(self, lab: Lab) -> Undo:
        vm, host = lab.running(self.vm)
        await host.power_off_inside(vm.id)
        return lambda: run_again(lab, [vm.id])


@dataclass(frozen=True, kw_only=True)
class HostKill(Fault):
    """A host loses its power: all QEMU, qemu-nbd and the imageio daemon end at once, the host is non responsive."""

    name = "host-kill"
    mended = "The daemon runs, the host is up, live backups that lost their VM are ended, and the VMs run again."
    lasting = VmKill.lasting
    host: HostName

    async def do(self, lab: Lab) -> Undo:
        record, host, daemon = lab.record(self.host), lab.host(self.host), lab.parts().imageio[self.host]
        vms = [vm.id for vm in lab.engine.state.vms.values() if vm.host_id == record.id]
        find = lab.lose(self.host)
        await asyncio.gather(asyncio.to_thread(daemon.kill), host.lose_power())
        reach.fence(lab.engine.context, record)

        async def undo() -> str:
            await asyncio.to_thread(daemon.revive)
            find()
            return await run_again(lab, vms)

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

        async def undo() -> str:
            if host.vm_state(vm.id) != "down":  # a machine that was started again has no limits
                await self._limit(lab, rate=0, iops=0)
            return ""

        return undo

    async def _limit(self, lab: Lab, *, rate: int, iops: int) -> None:
        vm, host = lab.running(self.vm)
        unlimited = {"bps_rd": 0, "bps_wr": 0, "iops_rd": 0, "iops_wr": 0}
        # a guest's device is found by its id, a backend without a device by its own name; they are named alike
        device = {("device" if vm.guest == "none" else "id"): f"dev-{self.target}"}
        await host.qmp(vm.id, "block_set_io_throttle", {**device, "bps": rate, "iops": iops, **unlimited})


FAULTS: tuple[type[Fault], ...] = (VmKill, VmPowerOff, HostKill, DiskSlow)
