# SPDX-License-Identifier: GPL-3.0-or-later
"""`/disks/{disk}/copy`, `move`, `sparsify` and `reduce`: answered when the work has begun and the disk is locked."""

from __future__ import annotations

from ovirtlab.engine import disk_copies, template_disks
from ovirtlab.engine.entities.disks import Disk
from ovirtlab.engine.entities.vms import Template
from ovirtlab.engine.faults import NotFound, conflict, incomplete, invalid
from ovirtlab.engine.rest.routing import Call, Done, Routes
from ovirtlab.engine.rest.shapes import cause_of

routes = Routes()

COPY = "Cannot copy Virtual Disk"
MOVE = "Cannot move Virtual Disk"
SPARSIFY = "Cannot sparsify Virtual Disk"
REDUCE = "Cannot reduce Virtual Disk"


@routes.action("disks/{disk}/copy")
async def copy_disk(call: Call) -> Done:
    """A floating disk with the same content; the body names its domain and may name its alias.

    The disk of a template is the same disk on the other domain.
    """
    context, disk = call.context, _disk(call)
    call.require("configure_disk_storage", ("disk", disk.id))
    disk_copies.check(context, disk, action=COPY)
    domain_id = _domain(call)
    call.require("create_disk", ("storage_domain", domain_id))
    template = template_disks.owner(context.state, disk)
    if template is not None:
        return _copy_for_template(call, disk, template, domain_id)
    alias = call.body.text("disk", "alias") or call.body.text("disk", "name") or ""
    sink = disk_copies.register_copy(context, disk, alias=alias, domain_id=domain_id)
    disk.status = "locked"
    work = disk_copies.copy(context, disk, sink, cause=cause_of(call))
    context.background.undertake(work, name=f"copy disk {disk.alias}")
    return Done()


def _copy_for_template(call: Call, disk: Disk, template: Template, domain_id: str) -> Done:
    template_disks.check_copy(call.context, disk, template, domain_id)
    disk.status = "locked"
    work = template_disks.copy(call.context, disk, domain_id, cause=cause_of(call))
    call.context.background.undertake(work, name=f"copy disk {disk.alias}")
    return Done()


@routes.action("disks/{disk}/move")
async def move_disk(call: Call) -> Done:
    """To another domain; only disks that no running VM uses are moved in the lab."""
    context, disk = call.context, _disk(call)
    call.require("configure_disk_storage", ("disk", disk.id))
    disk_copies.check(context, disk, action=MOVE)
    template_disks.check_move(context.state, disk)
    domain_id = _domain(call)
    if domain_id == disk.storage_domain_id:
        raise conflict(f"{MOVE}. Source and target domains must both be different.")
    disk_copies.check_domain(context, domain_id, action=MOVE)
    disk.status = "locked"
    work = disk_copies.move(context, disk, domain_id=domain_id, cause=cause_of(call))
    context.background.undertake(work, name=f"move disk {disk.alias}")
    return Done()


@routes.action("disks/{disk}/sparsify")
async def sparsify_disk(call: Call) -> Done:
    context, disk = call.context, _disk(call)
    call.require("sparsify_disk", ("disk", disk.id))
    disk_copies.check(context, disk, action=SPARSIFY)
    if not disk.sparse:
        raise conflict(f"{SPARSIFY}. Preallocated disks cannot be sparsified.")
    disk.status = "locked"
    work = disk_copies.sparsify(context, disk, cause=cause_of(call))
    context.background.undertake(work, name=f"sparsify disk {disk.alias}")
    return Done()


@routes.action("disks/{disk}/reduce")
async def reduce_disk(call: Call) -> Done:
    """Only block domains can be given space back this way, and the lab has file domains."""
    disk = _disk(call)
    call.require("reduce_disk", ("disk", disk.id))
    raise conflict(f"{REDUCE}. The operation is supported only for disks on block Storage Domains.")


@routes.action("disks/{disk}/refreshlun")
async def refresh_lun(call: Call) -> Done:
    """Of direct LUNs only, of which the lab has none."""
    if call.body.ref("host") is None and call.body.text("host", "name") is None:
        raise incomplete("Action", "host.id|name", "refreshLun")
    raise invalid("Cannot sync Virtual Disk. The specified disk does not exist.")


def _disk(call: Call) -> Disk:
    return call.context.state.disk(call.id("disk"))


def _domain(call: Call) -> str:
    """The domain an action names by id or name."""
    key, name = call.body.ref("storage_domain"), call.body.text("storage_domain", "name")
    if key is None and name is None:
        raise incomplete("Action", "storageDomain.id|name", "copy/move")
    for domain in call.context.state.storage_domains.values():
        if domain.id == key or (key is None and domain.name == name):
            return domain.id
    raise NotFound(key or name or "")
