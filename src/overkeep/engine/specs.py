# SPDX-License-Identifier: GPL-3.0-or-later
"""From the plan of a restore to what the port is asked to make."""

from __future__ import annotations

from overkeep.engine.api import AttachSpec, DiskSpec, NicSpec, VmSpec
from overkeep.model.restore import DiskRestore, RestorePlan


def disk_spec(disk: DiskRestore, *, description: str) -> DiskSpec:
    """Return the disk to be made; `description` is the mark by which a repeat knows it as ours."""
    return DiskSpec(
        id=disk.id,
        name=disk.name,
        size=disk.size,
        format=disk.format,
        sparse=disk.sparse,
        tracks_changes=disk.tracks_changes,
        storage_domain_id=disk.storage_domain_id,
        description=description,
    )


def vm_spec(plan: RestorePlan, *, ovf: str, description: str) -> VmSpec:
    """Return the VM to be made of the kept `ovf`; `description` is the mark by which a repeat knows it as ours."""
    return VmSpec(
        name=plan.vm_name,
        ovf=ovf,
        cluster_id=plan.cluster_id,
        description=description,
        disks=tuple(AttachSpec(disk_id=d.id, interface=d.interface, bootable=d.bootable) for d in plan.disks),
        nics=tuple(
            NicSpec(name=n.name, interface=n.interface, vnic_profile_id=n.vnic_profile_id, mac=n.mac) for n in plan.nics
        ),
    )
