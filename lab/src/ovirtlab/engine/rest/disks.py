# SPDX-License-Identifier: GPL-3.0-or-later
"""`/disks`: shown, listed, made, changed, converted and deleted."""

from __future__ import annotations

from typing import Any, cast

from ovirtlab.engine import disks, template_disks
from ovirtlab.engine.context import Context
from ovirtlab.engine.disks import DiskSpec
from ovirtlab.engine.entities.disks import Disk, DiskBackup, DiskFormat
from ovirtlab.engine.entities.vms import Template
from ovirtlab.engine.faults import Conflict, NotFound, incomplete, invalid, malformed
from ovirtlab.engine.rest import search_keys
from ovirtlab.engine.rest.bodies import Body, read_guid
from ovirtlab.engine.rest.defaults import profiles_of
from ovirtlab.engine.rest.documents import Collection, Entity, Items, Value, link_to
from ovirtlab.engine.rest.kept import keep, reference
from ovirtlab.engine.rest.listing import Kind
from ovirtlab.engine.rest.routing import Answer, Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import address, cause_of, check_seen
from ovirtlab.engine.snapshots import rules
from ovirtlab.engine.state import State

routes = Routes()

_KEPT = ("quota", "sgio")
RAW_INCREMENTAL = f"{disks.EDIT}. Incremental backup is not supported for RAW format disks."


@routes.get("disks")
async def list_disks(call: Call) -> Collection:
    return kind(call.context).listing(call, call.context.state.disks.values())


@routes.get("disks/{disk}")
async def get_disk(call: Call) -> Entity:
    disk = call.context.state.disk(call.id("disk"))
    check_seen(call, ("disk", disk.id))
    return show(call, disk)


@routes.get("storagedomains/{domain}/disks")
async def list_disks_of_domain(call: Call) -> Collection:
    domain = call.id("domain")
    mine = [disk for disk in call.context.state.disks.values() if domain in disk.domain_ids]
    return kind(call.context).listing(call, mine)


@routes.get("datacenters/{data_center}/storagedomains/{domain}/disks")
async def list_disks_of_attached_domain(call: Call) -> Answer:
    return await list_disks_of_domain(call)


@routes.post("disks")
async def add_disk(call: Call) -> Created:
    context = call.context
    spec = read_spec(call, call.body, disk_id=call.body.id or "", default_alias="")
    disks.check_new(context, spec)
    disk = disks.register(context, spec)
    work = disks.make(context, disk, cause=cause_of(call))
    task = context.background.undertake(work, name=f"add disk {disk.alias}")
    return Created(lambda: show(call, disk), work=task)


@routes.put("disks/{disk}")
async def update_disk(call: Call) -> Entity:
    disk = call.context.state.disk(call.id("disk"))
    call.require("edit_disk_properties", ("disk", disk.id))
    await change(call, disk, call.body)
    return show(call, disk)


@routes.get("storagedomains/{domain}/disks/{disk}")
async def get_disk_of_domain(call: Call) -> Answer:
    _check_place(call)
    return await get_disk(call)


@routes.delete("storagedomains/{domain}/disks/{disk}")
async def remove_disk_of_domain(call: Call) -> Answer:
    """Only the copy of this domain, when the disk is a template's that other domains have, too."""
    _check_place(call)
    return await remove_disk(call)


@routes.delete("disks/{disk}")
async def remove_disk(call: Call) -> Done:
    state, disk = call.context.state, call.context.state.disk(call.id("disk"))
    call.require("delete_disk", ("disk", disk.id))
    template = template_disks.owner(state, disk)
    if template is not None:
        return _remove_copy(call, disk, template, call.id("domain") if "domain" in call.segments else "")
    disks.check_removal(call.context, disk)
    work = disks.delete(call.context, disk, cause=cause_of(call))
    return Done(work=call.context.background.undertake(work, name=f"remove disk {disk.alias}"))


def _remove_copy(call: Call, disk: Disk, template: Template, domain_id: str) -> Done:
    disks.check_free(call.context, disk, disks.REMOVE)
    template_disks.check_removal(call.context.state, disk, template, domain_id)
    disk.status = "locked"
    work = template_disks.remove(call.context, disk, domain_id, cause=cause_of(call))
    return Done(work=call.context.background.undertake(work, name=f"remove a copy of disk {disk.alias}"))


@routes.action("disks/{disk}/convert")
async def convert_disk(call: Call) -> Done:
    """Change format, allocation and incremental backup of a disk that no running VM uses."""
    disk = call.context.state.disk(call.id("disk"))
    call.require("edit_disk_properties", ("disk", disk.id))
    disks.check_removal(call.context, disk)
    if disk.volumes:
        raise Conflict("[Cannot convert Virtual Disk. The disk has snapshots.]")
    body = call.body.child("disk") or Body()
    sparse = body.flag("sparse")
    spec = DiskSpec(
        alias=disk.alias,
        size=disk.provisioned_size,
        format=read_format(body.text("format") or disk.format),
        storage_domain_id=disk.storage_domain_id,
        sparse=disk.sparse if sparse is None else sparse,
        backup=read_backup(body.text("backup") or disk.backup),
    )
    disks.check_new(call.context, spec)
    work = disks.convert(call.context, disk, spec, cause=cause_of(call))
    call.context.background.undertake(work, name=f"convert disk {disk.alias}")
    return Done()


def _check_place(call: Call) -> None:
    if call.id("domain") not in call.context.state.disk(call.id("disk")).domain_ids:
        raise NotFound(call.path)


def read_spec(call: Call, body: Body, *, disk_id: str, default_alias: str) -> DiskSpec:
    """A disk to be made; the domain is named by id or name, and the user must be allowed to make disks there."""
    size = body.integer("provisioned_size")
    text = body.text("format")
    if size is None or text is None:
        raise incomplete("Disk", "provisionedSize, format", "add")
    domain_id = find_domain(call.context, body)
    call.require("create_disk", ("storage_domain", domain_id))
    disk_format = read_format(text)
    sparse = body.flag("sparse")
    image_id = body.text("image_id")
    return DiskSpec(
        alias=body.text("alias") or body.text("name") or default_alias,
        size=size,
        format=disk_format,
        storage_domain_id=domain_id,
        id=disk_id,
        image_id=read_guid(image_id) if image_id else "",
        description=body.text("description") or "",
        sparse=True if sparse is None else sparse,
        backup=read_backup(body.text("backup") or "none"),
        content_type=body.text("content_type") or "data",
        shareable=body.flag("shareable") or False,
        wipe_after_delete=body.flag("wipe_after_delete") or False,
        propagate_errors=body.flag("propagate_errors") or False,
        profile_id=_chosen_profile(call.context.state, body, domain_id),
        kept=_kept(call.context.state, body),
    )


def _kept(state: State, body: Body) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    keep(state, kept, body, _KEPT)
    return kept


def find_domain(context: Context, body: Body) -> str:
    """The storage domain a disk is asked for on."""
    domains = context.state.storage_domains
    wanted = body.list("storage_domains", "storage_domain") or [body.child("storage_domain") or Body()]
    domain_id, name = wanted[0].id, wanted[0].text("name")
    if domain_id is None and name is None:
        raise incomplete("Disk", "storageDomains.id|name", "add")
    if domain_id is not None and domain_id in domains:
        return domain_id
    for domain in domains.values():
        if domain_id is None and domain.name == name:
            return domain.id
    raise invalid(f"{disks.ADD}. Storage Domain doesn't exist.")


async def change(call: Call, disk: Disk, body: Body) -> None:
    """Take over what a request changes of a disk; a larger size extends it."""
    disks.check_free(call.context, disk, disks.EDIT)
    for vm in call.context.state.vms_of_disk(disk.id):
        rules.check_settled(call.context, vm, disks.EDIT)
    backup = body.text("backup")
    if backup is not None:
        if read_backup(backup) == "incremental" and disk.format == "raw":
            raise invalid(RAW_INCREMENTAL)
        disk.backup = read_backup(backup)
    alias = body.text("alias") or body.text("name")
    disk.alias = alias or disk.alias
    description = body.text("description")
    disk.description = disk.description if description is None else description
    _check_shareable(disk, body.flag("shareable"))
    for name in ("wipe_after_delete", "propagate_errors", "shareable"):
        value = body.flag(name)
        if value is not None:
            setattr(disk, name, value)
    keep(call.context.state, disk.kept, body, _KEPT)
    disk.profile_id = _chosen_profile(call.context.state, body, disk.storage_domain_id) or disk.profile_id
    size = body.integer("provisioned_size")
    if size is not None and size != disk.provisioned_size:
        disks.check_extend(call.context, disk, size)
        disk.status = "locked"
        work = disks.extend(call.context, disk, size, cause=cause_of(call))
        call.context.background.undertake(work, name=f"extend disk {disk.alias}")


def _check_shareable(disk: Disk, shareable: bool | None) -> None:
    if shareable and disk.format == "cow":
        raise Conflict(f"[{disks.EDIT}. The disk's volume format is not supported for shareable disk.]")


def _chosen_profile(state: State, body: Body, domain_id: str) -> str:
    """The disk profile that a request names; it must be one of the disk's domain."""
    key = body.ref("disk_profile") or ""
    if key and key not in profiles_of(state, "disk_profile", domain_id):
        raise invalid(f"{disks.EDIT}. The disk profile does not belong to the disk's storage domain.")
    return key


def kind(context: Context) -> Kind[Disk]:
    """How disks are listed and found."""
    return Kind(
        tag="disks",
        member="disk",
        show=show,
        place=lambda disk: ("disk", disk.id),
        words=search_keys.of_disks(context.state),
    )


def show(call: Call, disk: Disk, *, backup_mode: str | None = None) -> Entity:
    """A disk as the API has it; `backup_mode` belongs to the disks of a backup."""
    disk.actual_size = disks.size_on_storage(disk)
    fields: dict[str, Value] = {
        "name": disk.alias,
        "description": disk.description,
        "alias": disk.alias,
        "actual_size": disk.actual_size,
        "backup": disk.backup,
        "backup_mode": backup_mode,
        "content_type": disk.content_type,
        "format": disk.format,
        "image_id": disk.image_id,
        "propagate_errors": disk.propagate_errors,
        "provisioned_size": disk.provisioned_size,
        "qcow_version": "qcow2_v3" if disk.format == "cow" else None,
        "shareable": disk.shareable,
        "sparse": disk.sparse,
        "status": disk.status,
        "storage_type": "image",
        "total_size": disk.actual_size,
        "wipe_after_delete": disk.wipe_after_delete,
        "storage_domains": Items("storage_domain", [link_to("storage_domain", key) for key in disk.domain_ids]),
        "vms": _vms(call, disk),
        "disk_profile": _profile(call.context.state, disk),
        **disk.kept,
    }
    links = ("disksnapshots", "permissions", "statistics")
    return Entity("disk", fields, id=disk.id, href=address("disks", disk.id), links=links)


def _profile(state: State, disk: Disk) -> Entity | None:
    """That which was chosen on the disk's domain, else the first there is."""
    there = profiles_of(state, "disk_profile", disk.storage_domain_id)
    chosen = disk.profile_id if disk.profile_id in there else next(iter(there), "")
    return reference(state, "disk_profile", chosen)


def _vms(call: Call, disk: Disk) -> Items | None:
    if not call.flag("all_content"):
        return None
    return Items("vm", [link_to("vm", vm.id) for vm in call.context.state.vms_of_disk(disk.id)])


def read_format(text: str) -> DiskFormat:
    """The format of a volume as clients name it."""
    if text not in ("cow", "raw"):
        raise malformed(f"The value '{text}' isn't a valid disk format, it must be one of 'cow', 'raw'.")
    return cast(DiskFormat, text)


def read_backup(text: str) -> DiskBackup:
    if text not in ("none", "incremental"):
        raise malformed(f"The value '{text}' isn't a valid disk backup, it must be one of 'incremental', 'none'.")
    return cast(DiskBackup, text)
