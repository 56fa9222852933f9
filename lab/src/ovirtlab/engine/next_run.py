# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of a VM that runs: some count at once, the others wait until it has gone down."""

from __future__ import annotations

import dataclasses
from typing import Any

from ovirtlab.engine.entities.vms import Vm

_AT_ONCE = ("name", "description", "comment", "os_type", "delete_protected", "affinity", "allowed_hosts")
_LATER = (
    "bios_type", "boot_devices", "boot_menu", "cores", "custom_properties", "level", "machine", "memory", "os_cmdline",
    "os_initrd", "os_kernel", "sockets", "threads", "vm_type",
)  # fmt: skip
_KEPT_AT_ONCE = frozenset(
    {"cpu_profile", "high_availability", "initialization", "large_icon", "migration", "migration_downtime",
     "placement_policy", "quota", "small_icon", "tunnel_migration"}
)  # fmt: skip


def preview(vm: Vm) -> Vm:
    """The VM as it will be when it runs the next time; a copy that may be changed."""
    changes = {name: value for name, value in vm.next_run.items() if name != "kept"}
    kept = {**vm.kept, **vm.next_run.get("kept", {})}
    return dataclasses.replace(vm, **changes, kept=kept, custom_properties=dict(vm.custom_properties))


def plan(vm: Vm, changed: Vm) -> None:
    """Make a running VM like the changed copy of it, as far as that is possible now; the rest waits."""
    for name in _AT_ONCE:
        setattr(vm, name, getattr(changed, name))
    for name in _KEPT_AT_ONCE & changed.kept.keys():
        vm.kept[name] = changed.kept[name]
    waiting: dict[str, Any] = {
        name: getattr(changed, name) for name in _LATER if getattr(changed, name) != getattr(vm, name)
    }
    kept = {name: value for name, value in changed.kept.items() if vm.kept.get(name) != value}
    vm.next_run = waiting | ({"kept": kept} if kept else {})


def apply(vm: Vm) -> None:
    """Take over what has waited, now that the VM is down."""
    if not vm.next_run:
        return
    vm.kept |= vm.next_run.pop("kept", {})
    for name, value in vm.next_run.items():
        setattr(vm, name, value)
    vm.next_run = {}
    vm.generation += 1
