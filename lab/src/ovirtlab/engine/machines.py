# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs made and removed: from fields, from the configuration in an OVF, with and without their disks."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ovirtlab.engine import disks, jobs, networks
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.disks import DiskAttachment
from ovirtlab.engine.entities.networks import Nic
from ovirtlab.engine.entities.people import Permission
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.events import Severity
from ovirtlab.engine.faults import Conflict, conflict, invalid
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.ovf_reader import OvfNic, OvfVm
from ovirtlab.engine.running import VM_LOCKED
from ovirtlab.engine.snapshots import rules

_REMOVE = "Cannot remove VM"
_NAME = re.compile(r"([^\W\d_]|[0-9._-])*")


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """How an OVF becomes a VM: under which name and id, in which cluster, with its networks mapped or dropped."""

    cluster_id: str
    name: str = ""
    regenerate_ids: bool = False
    profiles: Mapping[tuple[str, str], str] = dataclasses.field(default_factory=dict)  # (network, profile) -> id
    reassign_bad_macs: bool = False


def check_characters(name: str, *, action: str) -> None:
    """Refuse a name of a VM or a template with anything but letters of any alphabet, numbers and `-_.`."""
    if not _NAME.fullmatch(name):
        raise invalid(
            f"{action.replace('Cannot', 'Can not')}. The given name contains special characters. Only lower-case and "
            "upper-case letters, numbers, '_', '-', '.' are allowed."
        )


def check_name(context: Context, name: str, *, action: str = "Cannot add VM", besides: str = "") -> None:
    """Refuse an empty name and one that another VM has."""
    if not name:
        raise invalid(f"{action}. The VM name must not be empty.")
    check_characters(name, action=action)
    if any(vm.name == name and vm.id != besides for vm in context.state.vms.values()):
        raise conflict(f"{action}. The VM name is already in use, please choose a unique name and try again.")


def add(context: Context, vm: Vm, *, cause: Cause) -> Vm:
    """Put a VM made from fields into the state, after the checks of name and id."""
    check_name(context, vm.name)
    if vm.id in context.state.vms:
        raise invalid("Cannot add VM. VM with the given Id already exists in the system.")
    vm.creation_time = context.clock.now()
    context.state.vms[vm.id] = vm
    with jobs.job(context.state, f"Creating VM {vm.name} in Cluster {_cluster(context, vm)}", cause=cause):
        tell(context, vm, cause, 34, f"VM {vm.name} was created by {cause.name}.")
    tell(context, vm, cause, 53, f"VM {vm.name} creation has been completed.")
    return vm


def import_vm(context: Context, source: OvfVm, options: ImportOptions, *, cause: Cause) -> Vm:
    """Make a VM from an OVF, locked until `finish_import`; conflicts of id, name and addresses are refused."""
    state = context.state
    name = options.name or source.name
    vm_id = state.new_id() if options.regenerate_ids or not source.id else source.id
    if vm_id in state.vms:
        raise conflict("Cannot import VM. VM with the same identifier already exists.")
    check_name(context, name, action="Cannot import VM")
    vm = describe(source, id=vm_id, name=name, cluster_id=options.cluster_id)
    vm.status, vm.creation_time = "image_locked", context.clock.now()
    nics = read_nics(context, vm, source.nics, options)
    state.vms[vm.id] = vm
    vm.nics = {nic.id: nic for nic in nics}
    _attach_known(context, vm, source, cause)
    return vm


def describe(source: OvfVm, *, id: str, name: str, cluster_id: str) -> Vm:
    """The record of a VM as an OVF has it, without disks and NICs."""
    return Vm(
        id=id,
        name=name,
        cluster_id=cluster_id,
        memory=source.memory,
        description=source.description,
        comment=source.comment,
        sockets=source.sockets,
        cores=source.cores,
        threads=source.threads,
        os_type=source.os_type or "other_linux",
        os_kernel=source.os_kernel,
        os_initrd=source.os_initrd,
        os_cmdline=source.os_cmdline,
        bios_type=source.bios_type,
        vm_type=source.vm_type,
        machine=source.machine,
        level=source.level,
        delete_protected=source.delete_protected,
        custom_properties=dict(source.custom_properties),
    )


def read_nics(context: Context, vm: Vm, sources: tuple[OvfNic, ...], options: ImportOptions) -> list[Nic]:
    """The NICs of an OVF as they hang on a VM made from it."""
    nics = []
    taken: set[str] = set()
    for source in sources:
        nic_id = context.state.new_id() if options.regenerate_ids or not source.id else source.id
        mac = _import_mac(context, source, options, taken)
        taken.add(mac)
        wanted = (source.network, source.profile)
        profile = options.profiles.get(wanted) or networks.find_profile(
            context.state, network=source.network, profile=source.profile
        )
        nics.append(
            Nic(
                id=nic_id,
                vm_id=vm.id,
                name=source.name,
                mac=mac,
                interface=source.interface,
                vnic_profile_id=profile,
                plugged=source.plugged,
                linked=source.linked,
            )
        )
    return nics


def _import_mac(context: Context, source: OvfNic, options: ImportOptions, taken: set[str]) -> str:
    if options.regenerate_ids or not source.mac:
        return networks.allocate_mac(context.state, besides=taken)
    try:
        return networks.check_mac(context.state, source.mac)
    except Conflict:
        if options.reassign_bad_macs:
            return networks.allocate_mac(context.state, besides=taken)
        raise


def _attach_known(context: Context, vm: Vm, source: OvfVm, cause: Cause) -> None:
    """Attach the disks of the OVF that exist by id and are free; name the others in an event, as the engine does."""
    state, failed = context.state, []
    for wanted in source.disks:
        disk = state.disks.get(wanted.id)
        taken = disk is None or (not disk.shareable and next(state.vms_of_disk(disk.id), None) is not None)
        if taken:
            failed.append(wanted.alias)
            continue
        state.attach(
            DiskAttachment(
                disk_id=wanted.id,
                vm_id=vm.id,
                interface=wanted.interface,
                bootable=wanted.bootable,
                active=wanted.active,
                read_only=wanted.read_only,
                pass_discard=wanted.pass_discard,
            )
        )
    if failed:
        text = (
            f"VM {vm.name} has been imported from the given configuration but the following disk(s) failed to attach: "
            f"{', '.join(failed)}."
        )
        tell(context, vm, cause, 175, text, severity="warning")


async def finish_import(context: Context, vm: Vm, *, cause: Cause) -> None:
    """Unlock an imported VM after the time the engine takes for it."""
    with jobs.job(context.state, f"Importing VM {vm.name} to Cluster {_cluster(context, vm)}", cause=cause):
        await context.clock.sleep(context.state.settings.vm_import)
        vm.status = "down"
    text = f"VM {vm.name} has been successfully imported from the given configuration."
    tell(context, vm, cause, 174, text)


def check_removal(context: Context, vm: Vm, *, with_disks: bool) -> None:
    """Refuse to remove a VM that runs, is protected or busy, or has a disk that is; `with_disks` when these go, too."""
    holder = context.state.locks.holder([("vm", vm.id)])
    if holder is not None:
        raise conflict(holder.refusal(_REMOVE))
    if vm.delete_protected:
        raise conflict(f"{_REMOVE}. Delete protection is enabled. In order to delete, disable Delete protection first.")
    if not with_disks and any(disk.volumes for disk in context.state.disks_of(vm)):
        raise conflict(f"{_REMOVE} with detaching disks, snapshots exist.")
    if vm.status == "suspended":
        raise conflict("Cannot remove VM that its state is not down.\n-Please stop the VM first.")
    if vm.status != "down" and not vm.image_locked:
        raise conflict(f"{_REMOVE}. VM is running.")
    rules.check_idle(context, vm, _REMOVE)
    own = [disk for disk in context.state.disks_of(vm) if not disk.shareable]
    rules.check_unlocked(_REMOVE, [(disk.alias, disk.status) for disk in own])
    if vm.image_locked:
        raise conflict(f"{_REMOVE}: {VM_LOCKED}")
    if with_disks:
        rules.check_not_elsewhere(context, _REMOVE, vm.attachments)
    rules.check_no_backup(context, vm, _REMOVE)


async def remove(context: Context, vm: Vm, *, cause: Cause, with_disks: bool) -> None:
    """Forget a VM; its disks are deleted, or left floating, and shareable ones always stay."""
    vm.status = "image_locked"
    doomed = [disk for disk in context.state.disks_of(vm) if with_disks and not disk.shareable]
    with jobs.job(context.state, f"Removing VM {vm.name} from system", cause=cause):
        for disk_id in list(vm.attachments):
            context.state.detach(vm.id, disk_id)
        for disk in doomed:
            await disks.delete(context, disk, cause=cause)
        forget(context, vm)
    tell(context, vm, cause, 113, f"VM {vm.name} was successfully removed by {cause.name}.")


def forget(context: Context, vm: Vm) -> None:
    """Drop a VM with all that lies below it; its disks are not looked at."""
    state = context.state
    state.vms.pop(vm.id, None)
    state.forget_stored(f"vms/{vm.id}")
    for group in state.affinity_groups.values():
        group.vms.pop(vm.id, None)
    for label in state.affinity_labels.values():
        label.vms.pop(vm.id, None)
    for table in (state.checkpoints, state.snapshots):
        for key in [key for key, record in table.items() if record.vm_id == vm.id]:
            del table[key]
    for key in [key for key, permission in state.permissions.items() if permission.on == ("vm", vm.id)]:
        del state.permissions[key]


def grant(context: Context, user_id: str, role_id: str, *, on: tuple[str, str], group_id: str = "") -> Permission:
    """Give a user, or with a `group_id` a group, a role on an object."""
    permission = Permission(id=context.state.new_id(), user_id=user_id, group_id=group_id, role_id=role_id, on=on)
    context.state.permissions[permission.id] = permission
    return permission


def tell(context: Context, vm: Vm, cause: Cause, code: int, text: str, *, severity: Severity = "normal") -> None:
    """An event about a VM."""
    context.state.events.add(
        code,
        severity,
        text,
        correlation_id=cause.correlation_id,
        vm=vm.id,
        cluster=vm.cluster_id,
        user=cause.user.id,
    )


def _cluster(context: Context, vm: Vm) -> str:
    return context.state.clusters[vm.cluster_id].name
