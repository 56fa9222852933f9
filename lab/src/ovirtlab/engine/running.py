# SPDX-License-Identifier: GPL-3.0-or-later
"""Running VMs: start, shutdown, power off, and what the hosts tell about them unasked."""

from __future__ import annotations

import logging

from ovirtlab.engine import hibernation, jobs, next_run, scheduling
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.disks import DiskAttachment
from ovirtlab.engine.entities.infrastructure import HostEntity
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.events import Severity
from ovirtlab.engine.faults import conflict
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.locks import Lock
from ovirtlab.engine.snapshots import rules, volumes
from ovirtlab.host.api import HostError, VmDefinition, VmDisk, VmState

log = logging.getLogger(__name__)

RUN = "Cannot run VM"
VM_LOCKED = "VM is locked. Please try again in a few minutes."
ON = frozenset(
    {
        "up",
        "powering_up",
        "wait_for_launch",
        "paused",
        "powering_down",
        "reboot_in_progress",
        "migrating",
        "saving_state",
        "restoring_state",
    }
)
_ON_ITS_WAY = frozenset(
    {"migrating", "wait_for_launch", "powering_up", "powering_down", "saving_state", "restoring_state"}
)
_PREFIXES = {"virtio": "vd", "ide": "hd"}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
# what VDSM says of the end of a VM, by its reason
_BY_ENGINE = "Admin shut down from the engine"
_BY_GUEST = "User shut down from within the guest"
_CRASHED = "Lost connection with qemu process"


def check_start(context: Context, vm: Vm) -> None:
    """Refuse a VM that runs or is busy, or has a disk that is; what its images are worth the host finds out."""
    holder = context.state.locks.holder([("vm", vm.id)])
    if holder is not None:
        raise conflict(holder.refusal(RUN))
    if vm.image_locked:
        raise conflict(f"{RUN}: {VM_LOCKED}")
    rules.check_idle(context, vm, RUN)
    if vm.status in ON or vm.status == "unknown":
        raise rules.wrong_status(vm, RUN)
    plugged = [disk for disk in context.state.disks_of(vm) if vm.attachments[disk.id].active]
    rules.check_unlocked(RUN, [(disk.alias, disk.status) for disk in plugged])


def take_vm(context: Context, vm: Vm, *, action: str) -> Lock:
    """The exclusive lock of a VM for the time of one act."""
    return context.state.locks.take(exclusive=[("vm", vm.id)], why=VM_LOCKED, action=action)


def choose_host(context: Context, vm: Vm, *, wanted: str = "") -> HostEntity:
    """The host a VM will run on: the wanted one, its own when that is up, else one of its cluster.

    A VM with hosts of its own runs on no other; where it may run is up to its affinity groups, too.
    """
    fit = [host for host in context.state.hosts.values() if host.status == "up" and host.cluster_id == vm.cluster_id]
    only = (wanted,) if wanted else vm.allowed_hosts
    home = [host for host in fit if not only or host.id in only]
    home.sort(key=lambda host: host.id != vm.home_host_id)
    fit = scheduling.order(context.state, vm, home)
    if not fit:
        raise conflict("Cannot run VM. There is no host that satisfies current scheduling constraints.")
    return fit[0]


def definition(context: Context, vm: Vm) -> VmDefinition:
    """The VM as its host starts it; gives disks without a device name one on the way."""
    _name_devices(vm)
    ordered = sorted(vm.hung, key=lambda attachment: not attachment.bootable)
    disks = tuple(_vm_disk(context, attachment) for attachment in ordered if attachment.active)
    return VmDefinition(
        vm_id=vm.id,
        name=vm.name,
        memory_mib=vm.memory >> 20,
        disks=disks,
        guest=vm.guest if disks else "none",
        agent=vm.agent,
        clone=vm.clone,
    )


def _name_devices(vm: Vm) -> None:
    """First free name for each active disk without one; disks of a running VM keep theirs."""
    used = {attachment.target for attachment in vm.hung if attachment.active}
    for attachment in sorted(vm.hung, key=lambda attachment: not attachment.bootable):
        if attachment.active and not attachment.target:
            prefix = _PREFIXES.get(attachment.interface, "sd")
            attachment.target = next(f"{prefix}{letter}" for letter in _LETTERS if f"{prefix}{letter}" not in used)
            used.add(attachment.target)


def _vm_disk(context: Context, attachment: DiskAttachment) -> VmDisk:
    disk = context.state.disks[attachment.disk_id]
    if attachment.snapshot_id:
        frozen = context.state.snapshots[attachment.snapshot_id].volumes[disk.id]
        return VmDisk(
            disk_id=disk.id,
            path=disk.path.with_name(frozen.image_id),
            format=volumes.format_on_host(frozen.format),
            target=attachment.target,
            backing=volumes.backing(context.state, disk, frozen.image_id),
            transient=True,
        )
    return VmDisk(
        disk_id=disk.id,
        path=disk.path,
        format=disk.volume_format,
        target=attachment.target,
        read_only=attachment.read_only,
        backing=volumes.backing(context.state, disk),
    )


async def start(context: Context, vm: Vm, *, cause: Cause, lock: Lock, wanted_host: str = "") -> None:
    """Bring a VM up; on failure it is down again, with an event. Releases the lock."""
    host = choose_host(context, vm, wanted=wanted_host)
    vm.status, vm.host_id = "wait_for_launch", host.id
    if vm.suspended is None:
        for attachment in vm.hung:
            attachment.target = ""
    vm.start_time, vm.stop_reason, vm.status_detail = context.clock.now(), "", ""
    _event(context, vm, cause, 153, f"VM {vm.name} was started by {cause.name} (Host: {host.name}).")
    with lock, jobs.job(context.state, f"Launching VM {vm.name}", cause=cause):
        try:
            _check_volumes(context, vm)
            await context.hosts[host.id].start_vm(vm.suspended or definition(context, vm))
        except HostError as error:
            _failed(context, vm, cause, error)
            return
        vm.clone = ""
        if vm.status == "wait_for_launch":
            vm.status = "restoring_state" if vm.suspended else "powering_up"
        await hibernation.forget(context, vm)
    await context.clock.sleep(context.state.settings.vm_start)
    if vm.status in ("powering_up", "restoring_state"):
        vm.status = "up"
        _event(context, vm, cause, 32, f"VM {vm.name} started on Host {host.name}")


def _check_volumes(context: Context, vm: Vm) -> None:
    """What a host does when it prepares the disks of a VM: it takes no volume that is marked illegal on the storage."""
    for disk in context.state.disks_of(vm):
        if disk.status == "illegal" and vm.attachments[disk.id].active:
            raise HostError(f"Bad volume specification (volume {disk.image_id} of disk {disk.id} is illegal)")


def _failed(context: Context, vm: Vm, cause: Cause, error: HostError) -> None:
    log.warning("VM %s cannot be started: %s", vm.name, error)
    if vm.suspended is None:
        went_down(context, vm)
    else:
        vm.status, vm.host_id = "suspended", ""
    _event(context, vm, cause, 119, f"VM {vm.name} is down with error. Exit message: {error}.", severity="error")
    _event(context, vm, cause, 54, f"Failed to run VM {vm.name} (User: {cause.name}).", severity="error")


async def resume(context: Context, vm: Vm, *, cause: Cause) -> None:
    """Let a paused VM go on."""
    try:
        await context.host_of(vm).resume_vm(vm.id)
    except HostError as error:
        raise conflict(f"Cannot run VM. {error}") from error
    vm.status, vm.status_detail = "up", ""
    host = context.state.hosts[vm.host_id].name
    _event(context, vm, cause, 40, f"VM {vm.name} was resumed by {cause.name} (Host: {host}).")


def check_stop(context: Context, vm: Vm, *, verb: str, force: bool) -> None:
    """Refuse to stop a VM that is backed up, unless forced, and one that does not run. No lock stands against it."""
    _check_backup(context, vm, f"Cannot {verb} VM", force=force)
    if vm.status not in ON or not vm.host_id:
        raise conflict(f"Cannot {verb} VM. VM is not running.")


def check_reboot(context: Context, vm: Vm, *, force: bool) -> None:
    """Refuse to reboot a VM that is backed up, unless forced, and one that is not up."""
    _check_backup(context, vm, "Cannot restart VM", force=force)
    if vm.status not in ("up", "powering_up"):
        raise rules.wrong_status(vm, "Cannot restart VM")


def _check_backup(context: Context, vm: Vm, action: str, *, force: bool) -> None:
    """A hybrid backup does not need the VM's own QEMU."""
    backups = [backup for backup in context.state.backups.values() if backup.vm_id == vm.id and not backup.has_ended]
    if not force and any(backup.kind != "hybrid" for backup in backups):
        raise conflict(f"{action}. The VM is during a backup operation.")


async def stop(context: Context, vm: Vm, *, cause: Cause, force: bool) -> None:
    """Shut a VM down, or take its power when forced."""
    host = context.state.hosts[vm.host_id]
    if force:
        text = f"VM {vm.name} powered off by {cause.name} (Host: {host.name})."
        _event(context, vm, cause, 33, text)
    else:
        text = f"VM shutdown initiated by {cause.name} on VM {vm.name} (Host: {host.name})."
        _event(context, vm, cause, 73, text)
    before, vm.status = vm.status, "powering_down"
    with jobs.job(context.state, f"{'Stopping' if force else 'Shutting down'} VM {vm.name}", cause=cause):
        try:
            await context.hosts[host.id].stop_vm(vm.id, force=force)
        except HostError as error:
            log.warning("VM %s cannot be stopped: %s", vm.name, error)
            vm.status = before
            return
    if vm.host_id:
        went_down(context, vm)
        if not force:
            _event(context, vm, cause, 61, f"VM {vm.name} is down. Exit message: {_BY_ENGINE}")


async def reboot(context: Context, vm: Vm, *, cause: Cause) -> None:
    """Shut a VM down and start it again where it was."""
    await stop(context, vm, cause=cause, force=False)
    if vm.status == "down":
        await start(context, vm, cause=cause, lock=take_vm(context, vm, action="Cannot run VM"))


def went_down(context: Context, vm: Vm) -> None:
    """Record that a VM runs no more."""
    vm.status, vm.host_id, vm.once = "down", "", None
    next_run.apply(vm)
    vm.stop_time = context.clock.now()


def watch(context: Context) -> None:
    """Follow what the hosts tell of VMs that change by themselves."""
    for host_id, host in context.hosts.items():
        host.watch_vms(lambda vm_id, state, reason, at=host_id: changed(context, at, vm_id, state=state, reason=reason))  # type: ignore[misc]


def take_over(context: Context) -> None:
    """Believe the hosts about VMs after the engine was away; what becomes of one that is on its way, its act tells."""
    for vm in context.state.vms.values():
        if vm.host_id and vm.status not in _ON_ITS_WAY and not _is_lost(context, vm.host_id):
            believe(context, vm)


def believe(context: Context, vm: Vm) -> None:
    """Take over what the host says of a VM that it runs, or ran."""
    state = context.hosts[vm.host_id].vm_state(vm.id)
    if state == "down":
        _down_by_itself(context, vm, "")
    else:
        vm.status = state


def _is_lost(context: Context, host_id: str) -> bool:
    return context.state.hosts[host_id].status == "non_responsive"


def changed(context: Context, host_id: str, vm_id: str, *, state: VmState, reason: str) -> None:
    """Take over a state that a host reports; one that is lost is not heard, and one the VM has left tells old news."""
    vm = context.state.vms.get(vm_id)
    if vm is None or vm.host_id != host_id or _is_lost(context, host_id):
        return
    log.info("Host %s reports VM %s %s: %s", host_id, vm.name, state, reason)
    if state == "down" and vm.status != "powering_down":
        _down_by_itself(context, vm, reason)
    elif state == "paused" and vm.status != "paused":
        vm.status, vm.status_detail = "paused", reason
        _paused(context, vm, reason)
    elif state == "up" and vm.status == "paused":
        vm.status, vm.status_detail = "up", ""
        _event(context, vm, None, 196, f"VM {vm.name} has recovered from paused back to up.")


def _down_by_itself(context: Context, vm: Vm, reason: str) -> None:
    broken = reason not in ("", "shutdown", "guest-shutdown", "host-qmp-quit")
    went_down(context, vm)
    vm.stop_reason = reason
    if broken:
        text = f"VM {vm.name} is down with error. Exit message: {_CRASHED}."
        _event(context, vm, None, 119, text, severity="error")
    else:
        _event(context, vm, None, 61, f"VM {vm.name} is down. Exit message: {_BY_GUEST}")


def _paused(context: Context, vm: Vm, reason: str) -> None:
    _event(context, vm, None, 1025, f"VM {vm.name} has been paused.")
    if "space" in reason.lower():
        text = f"VM {vm.name} has been paused due to no Storage space error."
        _event(context, vm, None, 138, text, severity="error")
    elif "i/o" in reason.lower() or "io-error" in reason:
        text = f"VM {vm.name} has been paused due to storage I/O problem."
        _event(context, vm, None, 145, text, severity="error")


def _event(
    context: Context, vm: Vm, cause: Cause | None, code: int, text: str, *, severity: Severity = "normal"
) -> None:
    context.state.events.add(
        code,
        severity,
        text,
        correlation_id=cause.correlation_id if cause else "",
        vm=vm.id,
        host=vm.host_id,
        cluster=vm.cluster_id,
        user=cause.user.id if cause else "",
    )
