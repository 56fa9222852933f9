# SPDX-License-Identifier: GPL-3.0-or-later
"""Templates made from VMs, and VMs made from templates; in the lab both get whole copies of the disks."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ovirtlab.engine import disk_copies, disks, jobs
from ovirtlab.engine.context import Context
from ovirtlab.engine.disks import DiskSpec
from ovirtlab.engine.entities.disks import Disk, DiskAttachment, DiskBackup, DiskFormat
from ovirtlab.engine.entities.vms import Template, Vm
from ovirtlab.engine.faults import NotFound, conflict
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.locks import Lock, releasing
from ovirtlab.engine.snapshots import rules
from ovirtlab.engine.state import BLANK

ADD = "Cannot add Template"
ADD_VM = "Cannot add VM"
REMOVE = "Cannot remove Template"
SETTINGS = (
    "bios_type", "boot_devices", "boot_menu", "cores", "custom_properties", "kept", "level", "machine", "os_cmdline",
    "os_initrd", "os_kernel", "os_type", "sockets", "threads", "vm_type",
)  # fmt: skip

Copies = list[tuple[Disk, Disk, DiskAttachment]]  # (source, copy, how the copy hangs)


@dataclass(frozen=True)
class Wish:
    """How a copy of a disk is to differ from it."""

    domain_id: str = ""
    alias: str = ""
    format: DiskFormat | None = None
    sparse: bool | None = None
    backup: DiskBackup | None = None


@dataclass(frozen=True, kw_only=True)
class Making:
    """From which VM a template is made, the lock that it is under, and who asked for that."""

    source: Vm
    lock: Lock
    cause: Cause


Wishes: TypeAlias = Mapping[str, Wish]  # by the id of the disk that is copied


def lock_source(context: Context, vm: Vm) -> Lock:
    """Refuse a VM that is not down or whose disks are busy, else return the lock that `fill_template` releases."""
    why = "Template is being created from this VM."
    lock = context.state.locks.take(shared=[("vm", vm.id)], why=why, action=ADD)
    with releasing(lock):
        if vm.status != "down":
            raise conflict(f"{ADD}. VM is locked or still running, try again once VM is in the Down state.")
        rules.check_idle(context, vm, ADD)
        images = [(disk.alias, disk.status) for disk in context.state.disks_of(vm) if not disk.shareable]
        rules.check_legal(ADD, images)
        rules.check_unlocked(ADD, images)
    return lock


def settings_of(vm: Vm) -> dict[str, Any]:
    """What VMs made from a template of this VM begin with, by attribute."""
    return {name: copy.copy(getattr(vm, name)) for name in SETTINGS}


def register(context: Context, vm: Vm, template: Template, *, wishes: Wishes) -> Copies:
    """Put a template of a checked VM into the state, locked until `fill_template`."""
    template.settings = settings_of(vm)
    template.memory, template.status, template.creation_time = vm.memory, "locked", context.clock.now()
    copies = _plan(context, vm.attachments, owner="", wishes=wishes)
    template.attachments = {copy.id: attachment for _, copy, attachment in copies}
    nics = [dataclasses.replace(nic, id=context.state.new_id(), vm_id=template.id, mac="") for nic in vm.nics.values()]
    template.nics = {nic.id: nic for nic in nics}
    context.state.templates[template.id] = template
    return copies


async def fill_template(context: Context, template: Template, copies: Copies, making: Making) -> None:
    """Copy the disks of a VM, which is image_locked meanwhile; a template of which one fails is forgotten."""
    source, cause = making.source, making.cause
    state, name = context.state, f"Template {template.name} from VM {source.name}"
    tell(context, cause, template, 48, f"Creation of {name} was initiated by {cause.name}.")
    source.status = "image_locked"
    with making.lock, jobs.job(state, f"Creating Template {template.name}", cause=cause):
        try:
            complete = await _copy_all(context, copies, cause)
        finally:
            source.status = "down"
    if complete:
        template.status = "ok"
        tell(context, cause, template, 51, f"Creation of {name} has been completed.")
        return
    state.templates.pop(template.id, None)
    tell(context, cause, template, 52, f"Failed to complete creation of {name}.", failed=True)


def plan_disks(context: Context, vm: Vm, template: Template, *, wishes: Wishes, clone: bool) -> Copies:
    """Register copies of a template's disks for a VM that is about to be made.

    Those of a VM that is no clone are layers over the template's in an engine: qcow2, and on the same domain.
    """
    unknown = wishes.keys() - template.attachments.keys()
    if unknown and (clone or template.id != BLANK):
        raise NotFound(unknown.pop())
    if clone:
        return _plan(context, template.attachments, owner=vm.id, wishes=wishes)
    layers = {}
    for disk_id in template.attachments:
        wish, disk = wishes.get(disk_id, Wish()), context.state.disks[disk_id]
        if disk_id in wishes and (wish.format or disk.format) != "cow":
            raise conflict(f"{ADD_VM}. Thin provisioned template disks can not be defined as Raw.")
        if wish.domain_id not in ("", *disk.domain_ids):
            raise conflict(f"{ADD_VM}. The selected Storage Domain does not contain the VM Template.")
        layers[disk_id] = dataclasses.replace(wish, format="cow", sparse=True)
    return _plan(context, template.attachments, owner=vm.id, wishes=layers)


async def fill_vm(context: Context, vm: Vm, template: Template, copies: Copies, *, cause: Cause) -> None:
    """Hang the copies on the new VM and make them; it is locked meanwhile, and loses a disk that fails."""
    vm.status = "image_locked"
    for _, _, attachment in copies:
        context.state.attach(attachment)
    with jobs.job(context.state, f"Copying disks of Template {template.name} to VM {vm.name}", cause=cause):
        await _copy_all(context, copies, cause)
    for disk_id in [disk_id for disk_id in vm.attachments if disk_id not in context.state.disks]:
        context.state.detach(vm.id, disk_id)
    vm.status = "down"


def check_removal(context: Context, template: Template) -> None:
    """Refuse Blank, a template that is being made, and one that VMs or other versions are based on."""
    if template.id == BLANK:
        raise conflict(f"{REMOVE}. The Blank Template cannot be removed.")
    if template.status != "ok":
        raise conflict(f"{REMOVE}. The Template is locked. Please try again later.")
    users = [vm.name for vm in context.state.vms.values() if vm.template_id == template.id]
    if users:
        raise conflict(f"{REMOVE}. Template is being used by the following VMs: {', '.join(users)}.")
    if any(item.base_id == template.id and item is not template for item in context.state.templates.values()):
        raise conflict(f"{REMOVE}. The Template has other versions.")


async def remove(context: Context, template: Template, *, cause: Cause) -> None:
    """Delete a template with its disks."""
    template.status = "locked"
    tell(context, cause, template, 50, f"Removal of Template {template.name} was initiated by {cause.name}.")
    doomed = [context.state.disks[disk_id] for disk_id in template.attachments]
    with jobs.job(context.state, f"Removing Template {template.name} from system", cause=cause):
        for disk in doomed:
            await disks.delete(context, disk, cause=cause)
    context.state.templates.pop(template.id, None)
    tell(context, cause, template, 251, f"Removal of Template {template.name} has been completed.")


def _plan(context: Context, attached: dict[str, DiskAttachment], *, owner: str, wishes: Wishes) -> Copies:
    specs = []
    for attachment in attached.values():
        source = context.state.disks[attachment.disk_id]
        specs.append((attachment, source, _wanted(source, wishes.get(source.id, Wish()))))
    for _, _, spec in specs:
        disks.check_new(context, spec, action=ADD_VM if owner else ADD)
    copies: Copies = []
    for attachment, source, spec in specs:
        sink = disks.register(context, spec)
        copies.append((source, sink, dataclasses.replace(attachment, disk_id=sink.id, vm_id=owner, target="")))
    return copies


def _wanted(source: Disk, wish: Wish) -> DiskSpec:
    spec = disk_copies.spec_of_copy(source)
    return dataclasses.replace(
        spec,
        storage_domain_id=wish.domain_id or spec.storage_domain_id,
        alias=wish.alias or spec.alias,
        format=wish.format or spec.format,
        sparse=spec.sparse if wish.sparse is None else wish.sparse,
        backup=wish.backup or spec.backup,
    )


async def _copy_all(context: Context, copies: Copies, cause: Cause) -> bool:
    for source, sink, _ in copies:
        await disk_copies.copy(context, source, sink, cause=cause)
    return all(sink.id in context.state.disks for _, sink, _ in copies)


def tell(context: Context, cause: Cause, template: Template, code: int, text: str, *, failed: bool = False) -> None:
    """An event about a template."""
    context.state.events.add(
        code,
        "error" if failed else "normal",
        text,
        correlation_id=cause.correlation_id,
        template=template.id,
        user=cause.user.id,
    )
