# SPDX-License-Identifier: GPL-3.0-or-later
"""Small acts on a VM: file systems held still, the reset button, addresses put in order, a ticket for the console."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from ovirtlab.engine import machines
from ovirtlab.engine.faults import BadRequest, conflict, incomplete, invalid
from ovirtlab.engine.rest.consoles import open_console
from ovirtlab.engine.rest.routing import Call, Done, Routes
from ovirtlab.engine.rest.shapes import cause_of, vm_of
from ovirtlab.engine.snapshots.rules import wrong_status
from ovirtlab.host.api import Host, HostError

routes = Routes()

_RUNNING = frozenset({"up", "powering_up", "paused", "migrating", "reboot_in_progress", "not_responding"})
_SILENT_AGENT = 19  # VDSM's number for it
_SILENT = "Guest agent non responsive"
_NUMBER = re.compile(r"(\d+)$")


@routes.action("vms/{vm}/freezefilesystems")
async def freeze(call: Call) -> Done:
    """By the guest's agent; until they are thawed nothing is written to them."""
    return await _order(call, "freeze", "frozen", 10767, lambda host, vm_id: host.freeze_vm(vm_id))


@routes.action("vms/{vm}/thawfilesystems")
async def thaw(call: Call) -> Done:
    return await _order(call, "thaw", "thawed", 10768, lambda host, vm_id: host.thaw_vm(vm_id))


async def _order(call: Call, verb: str, done: str, code: int, order: Callable[[Host, str], Awaitable[None]]) -> Done:
    """Have the agent do something; a failure has the code after the one after the success's, and so has its event."""
    context, vm = call.context, vm_of(call)
    call.require("configure_vm_storage", ("vm", vm.id))
    if vm.status != "up":
        raise wrong_status(vm, f"Cannot {verb} VM")
    cause, host = cause_of(call), context.state.hosts[vm.host_id]
    try:
        await order(context.host_of(vm), vm.id)
    except HostError as error:
        where = f"(Host: {host.name}, User: {cause.name})"
        text = f"Failed to {verb} guest filesystems on {vm.name} {where}."
        machines.tell(context, vm, cause, code + 2, text, severity="warning")
        unable = f"Unable to {verb} guest filesystems"
        raise invalid(_SILENT if error.code == _SILENT_AGENT else unable) from error
    machines.tell(context, vm, cause, code, f"Guest filesystems on VM {vm.name} have been {done} successfully.")
    return Done()


@routes.action("vms/{vm}/reset")
async def reset(call: Call) -> Done:
    """The reset button: unlike a reboot it asks nobody in the guest, and the VM stays where it is."""
    context, vm = call.context, vm_of(call)
    call.require("reset_vm", ("vm", vm.id))
    if vm.status not in _RUNNING:
        raise wrong_status(vm, "Cannot reset VM")
    cause = cause_of(call)
    try:
        await context.host_of(vm).reset_vm(vm.id)
    except HostError as error:
        text = f"Failed to reset VM {vm.name} (User: {cause.name})."
        machines.tell(context, vm, cause, 222, text, severity="error")
        raise invalid("General command validation failure.") from error
    machines.tell(context, vm, cause, 221, f"VM {vm.name} is resetting. Reset by: {cause.name}")
    return Done()


@routes.action("vms/{vm}/reordermacaddresses")
async def reorder(call: Call) -> Done:
    """Give the addresses of a VM that has not run yet to its NICs by their names: the least to the first."""
    vm = vm_of(call)
    call.require("create_vm", ("vm", vm.id))
    if vm.start_time is None:
        macs = sorted(nic.mac for nic in vm.nics.values())
        for nic, mac in zip(sorted(vm.nics.values(), key=lambda nic: _by_number(nic.name)), macs, strict=True):
            nic.mac = mac
    return Done()


def _by_number(name: str) -> tuple[str, int]:
    """So that nic10 stands after nic9."""
    found = _NUMBER.search(name)
    return (name[: found.start()], int(found[1])) if found else (name, -1)


@routes.action("vms/{vm}/ticket")
async def ticket(call: Call) -> Done:
    """A password for the console that the VM has, as for one that is named."""
    return open_console(call, vm_of(call))


@routes.action("vms/{vm}/logon")
async def log_on(call: Call) -> Done:
    """Takes oVirt's own agent, which no guest of the lab has, as no guest of these days does."""
    vm = vm_of(call)
    call.require("connect_to_vm", ("vm", vm.id))
    raise invalid(_SILENT)


@routes.action("vms/{vm}/detach")
async def detach(call: Call) -> Done:
    """From its pool; the lab has none."""
    vm = vm_of(call)
    call.require("edit_vm_properties", ("vm", vm.id))
    raise conflict("Cannot detach VM from pool. VM is not attached to the VM-Pool.")


@routes.action("vms/{vm}/maintenance")
async def maintain(call: Call) -> Done:
    """Of the VM that an engine runs in, which the lab's is not."""
    vm_of(call)
    if "maintenance_enabled" not in call.body:
        raise incomplete("Action", "maintenanceEnabled", "maintenance")
    text = "Moving to maintenance mode is currently only available for the VM containing the hosted engine."
    raise BadRequest(text)
