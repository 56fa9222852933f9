# SPDX-License-Identifier: GPL-3.0-or-later
"""`/disks/{disk}/disksnapshots` and `/storagedomains/{domain}/disksnapshots`: the volumes of disks."""

from __future__ import annotations

from collections.abc import Iterator

from ovirtlab.engine import disks
from ovirtlab.engine.entities.disks import Disk
from ovirtlab.engine.faults import NotFound, invalid
from ovirtlab.engine.rest.documents import API, Collection, Entity, Items, Value, link_to
from ovirtlab.engine.rest.routing import Call, Done, Routes
from ovirtlab.engine.rest.shapes import address, cause_of, check_seen
from ovirtlab.engine.snapshots import merging, rules, volumes
from ovirtlab.engine.snapshots.volumes import DiskSnapshot

routes = Routes()


@routes.get("disks/{disk}/disksnapshots")
async def list_of_disk(call: Call) -> Collection:
    """The frozen volumes of a disk; with `include_active` the active one as well. Disks here have no template."""
    disk = call.context.state.disk(call.id("disk"))
    check_seen(call, ("disk", disk.id))
    found = volumes.chain(call.context.state, disk)
    wanted = found if call.flag("include_active") else found[:-1]
    return Collection("disk_snapshots", "disk_snapshot", [show(call, item) for item in wanted])


@routes.get("disks/{disk}/disksnapshots/{image}")
async def get_of_disk(call: Call) -> Entity:
    disk = call.context.state.disk(call.id("disk"))
    check_seen(call, ("disk", disk.id))
    found = volumes.find(call.context.state, disk, call.id("image"))
    if found is None:
        raise NotFound(call.path)
    return show(call, found)


@routes.get("storagedomains/{domain}/disksnapshots")
async def list_of_domain(call: Call) -> Collection:
    """The volumes of a domain that snapshots have frozen."""
    found = [item for item in _of_domain(call) if item.snapshot is not None]
    return Collection("disk_snapshots", "disk_snapshot", [show(call, item) for item in found])


@routes.get("storagedomains/{domain}/disksnapshots/{image}")
async def get_of_domain(call: Call) -> Entity:
    return show(call, _find(call))


@routes.delete("storagedomains/{domain}/disksnapshots/{image}")
async def remove(call: Call) -> Done:
    """Merge one disk of a snapshot away; the snapshot stays with its other disks."""
    context, found = call.context, _find(call)
    if found.snapshot is None:
        raise invalid(f"{rules.REMOVE_DISK}. The following disk snapshot(s) is active: {found.volume.image_id}.")
    vm = context.state.vms[found.snapshot.vm_id]
    call.require(rules.PERMIT, ("vm", vm.id))
    removal = merging.begin_disk(context, vm, found.snapshot, found.disk, cause=cause_of(call))
    context.background.undertake(
        merging.run(context, removal), name=f"removal of disk snapshot {found.volume.image_id}"
    )
    return Done()


def show(call: Call, item: DiskSnapshot) -> Entity:
    """A volume of a disk; `parent` is the one below it."""
    disk, image_id = item.disk, item.volume.image_id
    domain = disk.storage_domain_id
    snapshot = item.snapshot
    vm_id = snapshot.vm_id if snapshot else next((vm.id for vm in call.context.state.vms_of_disk(disk.id)), "")
    parent = link_to("parent", item.parent_id, href=f"storagedomains/{domain}/disksnapshots/{item.parent_id}")
    described = snapshot.id if snapshot else vm_id
    fields: dict[str, Value] = {
        "name": disk.alias,
        "description": snapshot.description if snapshot else "Active VM",
        "actual_size": disks.size_of_volume(item.path),
        "alias": disk.alias,
        "content_type": disk.content_type,
        "format": item.volume.format,
        "image_id": image_id,
        "propagate_errors": disk.propagate_errors,
        "provisioned_size": item.volume.size,
        "shareable": disk.shareable,
        "sparse": item.volume.sparse,
        "status": item.status,
        "storage_type": "image",
        "wipe_after_delete": disk.wipe_after_delete,
        "storage_domains": Items("storage_domain", [link_to("storage_domain", domain)]),
        "disk": link_to("disk", disk.id),
        "parent": parent,
        "snapshot": link_to("snapshot", described if vm_id else "", href=f"vms/{vm_id}/snapshots/{described}"),
    }
    return Entity(
        "disk_snapshot", fields, id=image_id, href=address("storagedomains", domain, "disksnapshots", image_id)
    )


def _of_domain(call: Call) -> Iterator[DiskSnapshot]:
    domain = call.id("domain")
    if domain not in call.context.state.storage_domains:
        raise NotFound(f"{API}/{call.path}")
    for disk in call.context.state.disks.values():
        if disk.storage_domain_id == domain and _sees(call, disk):
            yield from volumes.chain(call.context.state, disk)


def _sees(call: Call, disk: Disk) -> bool:
    try:
        check_seen(call, ("disk", disk.id))
    except NotFound:
        return False
    return True


def _find(call: Call) -> DiskSnapshot:
    wanted = call.id("image")
    for item in _of_domain(call):
        if item.volume.image_id == wanted:
            return item
    raise NotFound(call.path)
