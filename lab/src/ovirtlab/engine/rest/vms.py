# SPDX-License-Identifier: GPL-3.0-or-later
"""`/vms`: shown, listed, stopped, changed and removed."""

from __future__ import annotations

from ovirtlab.engine import hibernation, machines, next_run, running
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import conflict
from ovirtlab.engine.ovf import write as write_ovf
from ovirtlab.engine.rest import initialization, search_keys
from ovirtlab.engine.rest.documents import Collection, Entity, Value, link_to
from ovirtlab.engine.rest.listing import Kind
from ovirtlab.engine.rest.routing import Call, Done, Routes
from ovirtlab.engine.rest.shapes import address, cause_of, vm_of
from ovirtlab.engine.rest.vm_properties import change, shown

routes = Routes()

LINKS = (
    "affinitylabels", "applications", "backups", "cdroms", "checkpoints", "diskattachments", "graphicsconsoles",
    "hostdevices", "katelloerrata", "mediateddevices", "nics", "numanodes", "permissions", "reporteddevices",
    "sessions", "snapshots", "statistics", "tags", "watchdogs",
)  # fmt: skip


@routes.get("vms")
async def list_vms(call: Call) -> Collection:
    return kind(call.context).listing(call, call.context.state.vms.values())


@routes.get("vms/{vm}")
async def get_vm(call: Call) -> Entity:
    """As it is; with `next_run` as it will be when it has gone down and runs again."""
    vm = vm_of(call)
    return show(call, next_run.preview(vm) if call.flag("next_run") else vm)


@routes.put("vms/{vm}")
async def update_vm(call: Call) -> Entity:
    """Of a VM that runs some properties change at once; the others wait until it goes down."""
    vm = vm_of(call)
    call.require("edit_vm_properties", ("vm", vm.id))
    if vm.image_locked:
        raise conflict(f"Cannot edit VM: {running.VM_LOCKED}")
    wanted = next_run.preview(vm)
    change(call.context, wanted, call.body)
    next_run.plan(vm, wanted)
    if vm.status == "down":
        next_run.apply(vm)
    vm.generation += 1
    machines.tell(call.context, vm, cause_of(call), 35, f"VM {vm.name} configuration was updated by {call.user.login}.")
    return show(call, next_run.preview(vm) if call.flag("next_run") else vm)


@routes.delete("vms/{vm}")
async def remove_vm(call: Call) -> Done:
    vm = vm_of(call)
    call.require("delete_vm", ("vm", vm.id))
    detach_only = call.flag("detach_only") or bool(call.body.flag("vm", "disks", "detach_only"))
    machines.check_removal(call.context, vm, with_disks=not detach_only)
    work = machines.remove(call.context, vm, cause=cause_of(call), with_disks=not detach_only)
    return Done(work=call.context.background.undertake(work, name=f"remove VM {vm.name}"))


@routes.action("vms/{vm}/stop")
async def stop_vm(call: Call) -> Done:
    return await _stop(call, verb="stop", power_off=True)


@routes.action("vms/{vm}/shutdown")
async def shutdown_vm(call: Call) -> Done:
    return await _stop(call, verb="shutdown", power_off=False)


@routes.action("vms/{vm}/reboot")
async def reboot_vm(call: Call) -> Done:
    """A reboot is a shutdown and a start on the lab's hosts."""
    context, vm = call.context, vm_of(call)
    call.require("reboot_vm", ("vm", vm.id))
    running.check_reboot(context, vm, force=call.body.flag("force") or False)
    context.background.undertake(running.reboot(context, vm, cause=cause_of(call)), name=f"reboot VM {vm.name}")
    return Done()


@routes.action("vms/{vm}/suspend")
async def suspend_vm(call: Call) -> Done:
    """Answers when the memory begins to be written; the client polls the status."""
    context, vm = call.context, vm_of(call)
    call.require("hibernate_vm", ("vm", vm.id))
    hibernation.check(context, vm)
    lock = running.take_vm(context, vm, action=hibernation.CANNOT)
    vm.status = "saving_state"
    work = hibernation.suspend(context, vm, cause=cause_of(call), lock=lock)
    context.background.undertake(work, name=f"suspend VM {vm.name}")
    return Done()


async def _stop(call: Call, *, verb: str, power_off: bool) -> Done:
    context, vm = call.context, vm_of(call)
    call.require("stop_vm" if power_off else "shut_down_vm", ("vm", vm.id))
    if vm.status == "down":
        what = "Stop VM" if power_off else "Shutdown VM"
        text = f"VM {vm.name} is already Down, {what} was skipped. User: {call.user.login}."
        machines.tell(context, vm, cause_of(call), 254, text)
        return Done()
    if vm.status == "suspended" and power_off:
        clearing = hibernation.power_off(context, vm, cause=cause_of(call))
        return Done(work=context.background.undertake(clearing, name=f"{verb} suspended VM {vm.name}"))
    running.check_stop(context, vm, verb=verb, force=call.body.flag("force") or False)
    work = context.background.undertake(
        running.stop(context, vm, cause=cause_of(call), force=power_off), name=f"{verb} VM {vm.name}"
    )
    return Done(work=work if power_off else None)


def kind(context: Context) -> Kind[Vm]:
    """How VMs are listed and found."""
    return Kind(
        tag="vms", member="vm", show=show, place=lambda vm: ("vm", vm.id), words=search_keys.of_vms(context.state)
    )


def show(call: Call, vm: Vm) -> Entity:
    """A VM as the API has it; with `all_content` also its OVF, unless that is withheld."""
    fields = {**describe(call, vm), "initialization": _initialization(call, vm)}
    return Entity("vm", fields, id=vm.id, href=address("vms", vm.id), links=LINKS)


def describe(call: Call, vm: Vm) -> dict[str, Value]:
    """What there is to tell of a VM, as it is now or was in a snapshot."""
    return {
        "name": vm.name,
        "description": vm.description,
        "comment": vm.comment,
        "creation_time": vm.creation_time,
        "has_illegal_images": True if _has_illegal(call, vm) else None,
        "initialization": initialization.show(vm),
        "next_run_configuration_exists": bool(vm.next_run),
        "origin": vm.origin,
        "run_once": vm.once is not None,
        "start_time": vm.start_time if vm.host_id else None,
        "status": vm.status,
        "status_detail": vm.status_detail or None,
        "stop_reason": vm.stop_reason,
        "stop_time": vm.stop_time,
        "cluster": link_to("cluster", vm.cluster_id),
        "host": link_to("host", vm.host_id),
        "original_template": link_to("template", vm.template_id),
        "template": link_to("template", vm.template_id),
        **shown(call.context.state, vm),
        "use_latest_template_version": _follows_template(vm),
    }


def _has_illegal(call: Call, vm: Vm) -> bool:
    return any(disk.status == "illegal" for disk in call.context.state.disks_of(vm))


def _follows_template(vm: Vm) -> Value:
    """Told of stateless VMs only, for which it means something."""
    if vm.kept.get("stateless") != "true":
        return None
    follows: Value = vm.kept.get("use_latest_template_version", False)
    return follows


def _initialization(call: Call, vm: Vm) -> Entity | None:
    """How the guest is set up at its first start; with `all_content` also the OVF, unless that is withheld."""
    own = initialization.show(vm)
    withheld = vm.image_locked or any(disk.status == "locked" for disk in call.context.state.disks_of(vm))
    if not call.flag("all_content") or withheld:
        return own or (Entity("initialization") if call.flag("all_content") else None)
    configuration = Entity("configuration", {"data": write_ovf(call.context.state, vm), "type": "ovf"})
    return Entity("initialization", {**(own.fields if own else {}), "configuration": configuration})
