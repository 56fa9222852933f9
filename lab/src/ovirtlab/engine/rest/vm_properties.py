# SPDX-License-Identifier: GPL-3.0-or-later
"""What a VM is set to: read from requests and shown; most of it is kept for clients and has no effect in the lab."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ovirtlab.engine import machines
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import invalid, malformed
from ovirtlab.engine.policies import Stored
from ovirtlab.engine.rest import initialization
from ovirtlab.engine.rest.bodies import Body
from ovirtlab.engine.rest.defaults import profiles_of
from ovirtlab.engine.rest.documents import Constant, Entity, Items, Value, constants
from ovirtlab.engine.rest.kept import keep, merged, reference
from ovirtlab.engine.rest.shapes import version
from ovirtlab.engine.state import State

_AFFINITIES = ("migratable", "user_migratable", "pinned")
_BOOT_DEVICES = ("hd", "cdrom", "network")
_KEPT = (
    "auto_pinning_policy", "console", "cpu_pinning_policy", "cpu_profile", "cpu_shares", "custom_cpu_model", "display",
    "high_availability", "instance_type", "io", "large_icon", "lease", "memory_policy", "migration",
    "migration_downtime", "multi_queues_enabled", "numa_tune_mode", "placement_policy", "quota", "rng_device",
    "serial_number", "small_icon", "soundcard_enabled", "sso", "start_paused", "stateless",
    "storage_error_resume_behaviour", "time_zone", "tpm_enabled", "tunnel_migration", "usb",
    "use_latest_template_version", "virtio_scsi", "virtio_scsi_multi_queues", "virtio_scsi_multi_queues_enabled",
)  # fmt: skip
_OF_INSTANCE_TYPES = ("high_availability", "io", "migration", "migration_downtime")
_KEPT_OF_CPU = ("cpu_tune", "mode")
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
_FLAGS = {"delete_protected": ("delete_protected",), "boot_menu": ("bios", "boot_menu", "enabled")}


_INHERITED = dict.fromkeys(("auto_converge", "compressed", "encrypted"), "inherit")
_DISPLAY: dict[str, Value] = {
    "copy_paste_enabled": True,
    "disconnect_action": "LOCK_SCREEN",
    "file_transfer_enabled": True,
    "monitors": 1,
    "smartcard_enabled": False,
    "type": "vnc",
}
# what nobody has chosen; some of it an engine tells only of VMs where it means something
_USUAL: dict[str, Value] = {
    "console": Constant(Entity("console", {"enabled": False})),
    "cpu_pinning_policy": "none",
    "cpu_shares": 0,
    "display": Constant(Entity("display", _DISPLAY)),
    "high_availability": Constant(Entity("high_availability", {"enabled": False, "priority": 0})),
    "io": Constant(Entity("io", {"threads": 0})),
    "migration": Constant(Entity("migration", _INHERITED)),
    "migration_downtime": -1,
    "multi_queues_enabled": True,
    "rng_device": Constant(Entity("rng_device", {"source": "urandom"})),
    "soundcard_enabled": False,
    "sso": Constant(Entity("sso", {"methods": Items("method", [Entity("method", id="guest_agent")])})),
    "start_paused": False,
    "stateless": False,
    "storage_error_resume_behaviour": "auto_resume",
    "time_zone": Constant(Entity("time_zone", {"name": "Etc/GMT"})),
    "tpm_enabled": False,
    "usb": Constant(Entity("usb", {"enabled": False})),
    "virtio_scsi": Constant(Entity("virtio_scsi", {"enabled": True})),
    "virtio_scsi_multi_queues_enabled": False,
}


def change(context: Context, vm: Vm, body: Body) -> None:
    """Take over the properties of a VM that a request names."""
    name = body.text("name")
    if name is not None:
        machines.check_name(context, name, action="Cannot edit VM", besides=vm.id)
        vm.name = name
    for attribute, path in _TEXTS.items():
        _set(vm, attribute, body.text(*path))
    for attribute, path in _NUMBERS.items():
        _set(vm, attribute, body.integer(*path))
    for attribute, path in _FLAGS.items():
        _set(vm, attribute, body.flag(*path))
    keep(context.state, vm.kept, body, _KEPT)
    _keep_cpu(context.state, vm, body.child("cpu") or Body())
    initialization.keep_own(context.state, vm, body)
    _set(vm, "boot_devices", _boot_devices(body))
    _place(context, vm, body)
    _follow_instance_type(context.state, vm)
    if "custom_compatibility_version" in body:
        vm.level = _level(body)
    if "custom_properties" in body:
        properties = body.list("custom_properties", "custom_property")
        vm.custom_properties = {entry.text("name") or "": entry.text("value") or "" for entry in properties}


def give_sound(state: State, vm: Vm, *, from_scratch: bool) -> None:
    """A new VM has the sound card of its instance type, or from scratch what its operating system can do with."""
    kind = _instance_type(state, vm)
    if kind is not None:
        vm.kept["soundcard_enabled"] = kind.kept.get("soundcard_enabled", "false")
    elif from_scratch:
        vm.kept["soundcard_enabled"] = "true"


def _instance_type(state: State, vm: Vm) -> Stored | None:
    link = vm.kept.get("instance_type")
    return state.stored["instance_type"].get(link.id or "") if isinstance(link, Entity) else None


def _follow_instance_type(state: State, vm: Vm) -> None:
    """What an instance type says of a VM counts more than what a request does."""
    kind = _instance_type(state, vm)
    if kind is None:
        return
    vm.memory = int(kind.kept.get("memory", vm.memory))
    topology = _inner(_inner(kind.kept, "cpu"), "topology")
    for part in ("cores", "sockets", "threads"):
        _set(vm, part, int(str(topology[part])) if topology.get(part) is not None else None)
    vm.kept |= {name: kind.kept[name] for name in _OF_INSTANCE_TYPES if name in kind.kept}
    policy = vm.kept.get("memory_policy")
    if isinstance(policy, Entity):
        guaranteed = _inner(kind.kept, "memory_policy").get("guaranteed", vm.memory)
        vm.kept["memory_policy"] = Entity("memory_policy", {**policy.fields, "guaranteed": guaranteed})


def _inner(fields: Mapping[str, Value], name: str) -> Mapping[str, Value]:
    found = fields.get(name)
    return found.fields if isinstance(found, Entity) else {}


def _set(vm: Vm, attribute: str, value: object) -> None:
    if value is not None:
        setattr(vm, attribute, value)


def _keep_cpu(state: State, vm: Vm, body: Body) -> None:
    kept: dict[str, Any] = {}
    keep(state, kept, body, _KEPT_OF_CPU)
    if kept:
        vm.kept["cpu"] = merged(vm.kept.get("cpu"), Entity("cpu", kept))


def _boot_devices(body: Body) -> tuple[str, ...] | None:
    """The order in which devices are tried; an empty list changes nothing, as in an engine."""
    boot = (body.child("os") or Body()).child("boot") or Body()
    found = tuple(item.value for item in boot.list("devices", "device"))
    for word in found:
        if word not in _BOOT_DEVICES:
            raise malformed(f"Invalid value '{word}' for device: one of {', '.join(_BOOT_DEVICES)} is expected.")
    return found or None


def _level(body: Body) -> tuple[int, int] | None:
    """A level of the VM's own; none, when the request has an empty one."""
    major, minor = (body.integer("custom_compatibility_version", name) for name in ("major", "minor"))
    return None if major is None or minor is None or major < 0 else (major, minor)


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


def shown(state: State, vm: Vm) -> dict[str, Value]:
    """The properties as the API has them, those of a new VM where nothing else was chosen."""
    fields: dict[str, Value] = {
        **_USUAL,
        "bios": _bios(vm.bios_type, menu=vm.boot_menu),
        "cpu": _cpu(vm.cores, vm.sockets, vm.threads),
        "cpu_profile": _cpu_profile(state, vm),
        "custom_compatibility_version": version(vm.level, tag="custom_compatibility_version") if vm.level else None,
        "custom_emulated_machine": vm.machine or None,
        "custom_properties": _custom_properties(vm),
        "delete_protected": vm.delete_protected,
        "memory": vm.memory,
        "memory_policy": _memory_policy(vm.memory),
        "os": _os(vm),
        "placement_policy": _placement(vm.affinity),
        "type": vm.vm_type,
    }
    chosen = {name: merged(fields.get(name), vm.kept[name]) for name in (*_KEPT, "cpu") if name in vm.kept}
    return fields | chosen


@constants
def _bios(kind: str, *, menu: bool) -> Constant:
    return Constant(Entity("bios", {"boot_menu": Entity("boot_menu", {"enabled": menu}), "type": kind}))


@constants
def _cpu(cores: int, sockets: int, threads: int) -> Constant:
    topology = Entity("topology", {"cores": cores, "sockets": sockets, "threads": threads})
    return Constant(Entity("cpu", {"architecture": "x86_64", "topology": topology}))


def _cpu_profile(state: State, vm: Vm) -> Entity | None:
    there = profiles_of(state, "cpu_profile", vm.cluster_id)
    return reference(state, "cpu_profile", there[0]) if there else None


@constants
def _memory_policy(memory: int) -> Constant:
    return Constant(Entity("memory_policy", {"ballooning": True, "guaranteed": memory, "max": memory * 4}))


@constants
def _placement(affinity: str) -> Constant:
    return Constant(Entity("placement_policy", {"affinity": affinity}))


@constants
def _boot(devices: tuple[str, ...]) -> Constant:
    return Constant(Entity("boot", {"devices": Items("device", devices)}))


def _os(vm: Vm) -> Entity:
    fields: dict[str, Value] = {
        "boot": _boot(vm.boot_devices),
        "type": vm.os_type,
        "kernel": vm.os_kernel or None,
        "initrd": vm.os_initrd or None,
        "cmdline": vm.os_cmdline or None,
    }
    return Entity("os", fields)


def _custom_properties(vm: Vm) -> Items | None:
    if not vm.custom_properties:
        return None
    pairs = vm.custom_properties.items()
    return Items(
        "custom_property", [Entity("custom_property", {"name": name, "value": value}) for name, value in pairs]
    )
