# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs and disks as the engine speaks of them, in the terms of machines and their block layer, and back."""

from __future__ import annotations

from collections.abc import Mapping

from ovirtlab.host.api import BackingVolume, BackupDisk, VmDefinition, VmDisk
from ovirtlab.host.live_backup import DiskPlan
from ovirtlab.machine.errors import HostError
from ovirtlab.machine.nodes import DiskNode, Layer
from ovirtlab.machine.qemu import Machine


async def describe(machine: Machine, vm_id: str) -> VmDefinition:
    """A running machine as another host has to start it to take it over: its disks of now, each in its slot."""
    boot = machine.spec.boot
    return VmDefinition(
        vm_id=vm_id,
        name=machine.spec.name,
        memory_mib=machine.spec.memory_mib,
        disks=tuple([await _described(machine, disk) for disk in machine.disks.values()]),
        guest="none" if boot is None else "linux",
        agent=boot is not None and boot.agent,
    )


async def _described(machine: Machine, disk: DiskNode) -> VmDisk:
    slot = ""
    if machine.spec.boot is not None:
        place = {"path": f"/machine/peripheral/{disk.device}", "property": "addr"}
        # QEMU tells slot and function in one number, and takes them as `slot.function` in hexadecimal digits.
        slot = f"{int(await machine.execute('qom-get', place)) >> 3:x}.0"
    return VmDisk(
        disk_id=disk.serial,
        path=disk.path,
        format=disk.format,  # type: ignore[arg-type]
        target=disk.target,
        read_only=disk.read_only,
        backing=tuple(BackingVolume(path=layer.path, format=layer.format) for layer in disk.backing),  # type: ignore[arg-type]
        slot=slot,
    )


async def virtual_sizes(machine: Machine) -> Mapping[str, int]:
    """Bytes of every open node by its name."""
    nodes = await machine.execute("query-named-block-nodes", {"flat": True})
    return {node["node-name"]: node["image"]["virtual-size"] for node in nodes}


def plan(disk: BackupDisk, node: DiskNode, sizes: Mapping[str, int]) -> DiskPlan:
    """A disk of a backup."""
    return DiskPlan(
        target=node.target,
        nodes=tuple(layer.node for layer in node.chain),
        scratch=disk.scratch,
        size=sizes[node.node],
        from_checkpoint=disk.from_checkpoint,
        to_checkpoint=disk.to_checkpoint,
    )


def node(disk: VmDisk) -> DiskNode:
    """A disk of a machine."""
    backing = tuple(
        Layer(path=volume.path, format=volume.format, node=f"{disk.target}-below-{number}")
        for number, volume in enumerate(disk.backing)
    )
    return DiskNode(
        path=disk.path,
        format=disk.format,
        target=disk.target,
        serial=disk.disk_id,
        read_only=disk.read_only,
        backing=backing,
        slot=disk.slot,
    )


def disk_of(machine: Machine, disk_id: str) -> DiskNode:
    """The disk of a machine with this id; `HostError` when it has none."""
    for disk in machine.disks.values():
        if disk.serial == disk_id:
            return disk
    raise HostError(f"VM {machine.spec.name} has no disk {disk_id}")
