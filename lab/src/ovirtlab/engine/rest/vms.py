# SPDX-License-Identifier: GPL-3.0-or-later
"""`/vms`: shown, listed, stopped, changed and removed."""

from __future__ import annotations

from typing import Any, cast

from ovirtlab.engine import machines, running
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities import Vm
from ovirtlab.engine.faults import conflict, invalid, malformed
from ovirtlab.engine.ovf import write as write_ovf
from ovirtlab.engine.rest import initialization, search_keys
from ovirtlab.engine.rest.bodies import Body
from ovirtlab.engine.rest.documents import Collection, Entity, Items, Value, link_to
from ovirtlab.engine.rest.kept import keep
from ovirtlab.engine.rest.listing import Kind
from ovirtlab.engine.rest.routing import Call, Done, Routes
from ovirtlab.engine.rest.shapes import address, cause_of, version, vm_of

routes = Routes()

LINKS = (
    "affinitylabels", "applications", "backups", "cdroms", "checkpoints", "diskattachments", "graphicsconsoles",
    "hostdevices", "nics", "numanodes", "permissions", "reporteddevices", "snapshots", "statistics", "tags",
    "watchdogs",
)  # fmt: skip


@routes.get("vms")
async def list_vms(call: Call) -> Collection:
    return kind(call.context).listing(call, call.context.state.vms.values())


@routes.get("vms/{vm}")
async def get_vm(call: Call) -> Entity:
    return show(call, vm_of(call))


@routes.put("vms/{vm}")
async def update_vm(call: Call) -> Entity:
    vm = vm_of(call)
    call.require("edit_vm_properties", ("vm", vm.id))
    if vm.image_locked:
        raise conflict(f"Cannot edit VM: {running.VM_LOCKED}")
    change(call.context, vm, call.body)
    machines.tell(call.context, vm, cause_of(call), 35, f"VM {vm.name} configuration was updated by {call.user.login}.")
    return show(call, vm)


@routes.delete("vms/{vm}")
async def remove_vm(call: Call) -> Done:
    vm = vm_of(call)
    call.require("delete_vm", ("vm", vm.id))
    detach_only = call.flag("detach_only") or bool(call.body.flag("vm", "disks", "detach_only"))
    machines.check_removal(call.context, vm, with_disks=not detach_only)
    work = machines.remove(call.context, vm, cause=cause_of(call), with_disks=not detach_only)
    return Done(work=call.context.background.spawn(work, name=f"remove VM {vm.name}"))


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
    running.check_stop(context, vm, verb="reboot", force=call.body.flag("force") or False)
    context.background.spawn(running.reboot(context, vm, cause=cause_of(call)), name=f"reboot VM {vm.name}")
    return Done()


@routes.action("vms/{vm}/suspend")
async def suspend_vm(call: Call) -> Done:
    """Refused always: the lab keeps no memory of VMs on its domains."""
    vm = vm_of(call)
    call.require("hibernate_vm", ("vm", vm.id))
    if vm.status not in running.ON:
        raise conflict("Cannot hibernate VM. VM is not running.")
    raise conflict("Cannot hibernate VM. Suspend is not supported by the cluster's hosts.")


async def _stop(call: Call, *, verb: str, power_off: bool) -> Done:
    context, vm = call.context, vm_of(call)
    call.require("stop_vm" if power_off else "shut_down_vm", ("vm", vm.id))
    if vm.status == "down":
        what = "Stop VM" if power_off else "Shutdown VM"
        text = f"VM {vm.name} is already Down, {what} was skipped. User: {call.user.login}."
        machines.tell(context, vm, cause_of(call), 254, text)
        return Done()
    running.check_stop(context, vm, verb=verb, force=call.body.flag("force") or False)
    work = context.background.spawn(
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
    fields: dict[str, Value] = {
        "name": vm.name,
        "description": vm.description,
        "comment": vm.comment,
        "bios": Entity("bios", {"boot_menu": Entity("boot_menu", {"enabled": False}), "type": vm.bios_type}),
        "cpu": _cpu(vm),
        "creation_time": vm.creation_time,
        "custom_compatibility_version": version(vm.level) if vm.level else None,
        "custom_properties": _custom_properties(vm),
        "delete_protected": vm.delete_protected,
        "initialization": _initialization(call, vm),
        "memory": vm.memory,
        "memory_policy": Entity("memory_policy", {"guaranteed": vm.memory, "max": vm.memory * 4}),
        "next_run_configuration_exists": False,
        "origin": vm.origin,
        "os": _os(vm),
        "run_once": vm.once is not None,
        "start_paused": False,
        "start_time": vm.start_time if vm.host_id else None,
        "stateless": False,
        "status": vm.status,
        "status_detail": vm.status_detail or None,
        "stop_reason": vm.stop_reason,
        "stop_time": vm.stop_time,
        "storage_error_resume_behaviour": "auto_resume",
        "time_zone": Entity("time_zone", {"name": "Etc/GMT"}),
        "type": vm.vm_type,
        "cluster": link_to("cluster", vm.cluster_id),
        "host": link_to("host", vm.host_id),
        "original_template": link_to("template", vm.template_id),
        "template": link_to("template", vm.template_id),
        **_KEPT_DEFAULTS,
        **{name: value for name, value in vm.kept.items() if name in _KEPT},
    }
    return Entity("vm", fields, id=vm.id, href=address("vms", vm.id), links=LINKS)


def _cpu(vm: Vm) -> Entity:
    topology = Entity("topology", {"cores": vm.cores, "sockets": vm.sockets, "threads": vm.threads})
    return Entity("cpu", {"architecture": "x86_64", "topology": topology})


def _os(vm: Vm) -> Entity:
    boot = Entity("boot", {"devices": Items("device", ["hd"])})
    return Entity(
        "os",
        {
            "boot": boot,
            "type": vm.os_type,
            "kernel": vm.os_kernel or None,
            "initrd": vm.os_initrd or None,
            "cmdline": vm.os_cmdline or None,
        },
    )


def _custom_properties(vm: Vm) -> Items | None:
    if not vm.custom_properties:
        return None
    pairs = vm.custom_properties.items()
    return Items(
        "custom_property", [Entity("custom_property", {"name": name, "value": value}) for name, value in pairs]
    )


def _initialization(call: Call, vm: Vm) -> Entity | None:
    """How the guest is set up at its first start; with `all_content` also the OVF, unless that is withheld."""
    own = initialization.show(vm)
    withheld = vm.image_locked or any(disk.status == "locked" for disk in call.context.state.disks_of(vm))
    if not call.flag("all_content") or withheld:
        return own or (Entity("initialization") if call.flag("all_content") else None)
    configuration = Entity("configuration", {"data": write_ovf(call.context.state, vm), "type": "ovf"})
    return Entity("initialization", {**(own.fields if own else {}), "configuration": configuration})


def change(context: Context, vm: Vm, body: Body) -> None:
    """Take over the fields of a VM that a request names."""
    name = body.text("name")
    if name is not None:
        machines.check_name(context, name, action="Cannot edit VM", besides=vm.id)
        vm.name = name
    for attribute, path in _TEXTS.items():
        text = body.text(*path)
        if text is not None:
            setattr(vm, attribute, text)
    for attribute, path in _NUMBERS.items():
        number = body.integer(*path)
        if number is not None:
            setattr(vm, attribute, number)
    keep(context.state, vm.kept, body, _KEPT)
    initialization.keep_own(context.state, vm, body)
    _place(context, vm, body)
    protected = body.flag("delete_protected")
    vm.delete_protected = vm.delete_protected if protected is None else protected
    if "custom_properties" in body:
        properties = body.list("custom_properties", "custom_property")
        vm.custom_properties = {entry.text("name") or "": entry.text("value") or "" for entry in properties}
    vm.generation += 1


def _place(context: Context, vm: Vm, body: Body) -> None:
    """Take over where a VM may run and whether it may leave; only hosts that there are."""
    policy = body.child("placement_policy")
    if policy is None:
        return
    word = policy.text("affinity")
    if word is not None and word not in _AFFINITIES:
        raise malformed(f"Invalid value '{word}' for affinity: one of {', '.join(_AFFINITIES)} is expected.")
    vm.affinity = cast(Any, word) or vm.affinity
    if "hosts" in policy:
        vm.allowed_hosts = find_hosts(context, policy)


def find_hosts(context: Context, policy: Body) -> tuple[str, ...]:
    """The ids of the hosts that a placement policy names by id or name; unknown ones are refused."""
    found = []
    for item in policy.list("hosts", "host"):
        key, name = item.id, item.text("name")
        hosts = context.state.hosts.values()
        host = next((one.id for one in hosts if key == one.id or (not key and name == one.name)), None)
        if host is None:
            raise invalid(f"The host {key or name} does not exist.")
        found.append(host)
    return tuple(found)


_AFFINITIES = ("migratable", "user_migratable", "pinned")
_KEPT = (
    "auto_pinning_policy", "console", "cpu_pinning_policy", "cpu_shares", "custom_cpu_model", "display",
    "high_availability", "io", "large_icon", "lease", "memory_policy", "migration", "migration_downtime",
    "multi_queues_enabled", "placement_policy", "rng_device", "serial_number", "small_icon", "soundcard_enabled", "sso",
    "start_paused", "stateless", "storage_error_resume_behaviour", "time_zone", "tpm_enabled", "tunnel_migration",
    "usb", "use_latest_template_version", "virtio_scsi", "virtio_scsi_multi_queues_enabled",
)  # fmt: skip
_KEPT_DEFAULTS: dict[str, Value] = {
    "console": Entity("console", {"enabled": False}),
    "high_availability": Entity("high_availability", {"enabled": False, "priority": 0}),
    "placement_policy": Entity("placement_policy", {"affinity": "migratable"}),
    "usb": Entity("usb", {"enabled": False}),
    "use_latest_template_version": False,
}

_TEXTS = {
    "description": ("description",),
    "comment": ("comment",),
    "bios_type": ("bios", "type"),
    "os_type": ("os", "type"),
    "os_kernel": ("os", "kernel"),
    "os_initrd": ("os", "initrd"),
    "os_cmdline": ("os", "cmdline"),
    "vm_type": ("type",),
    "machine": ("custom_emulated_machine",),
}
_NUMBERS = {
    "memory": ("memory",),
    "cores": ("cpu", "topology", "cores"),
    "sockets": ("cpu", "topology", "sockets"),
    "threads": ("cpu", "topology", "threads"),
}
