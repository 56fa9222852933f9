# SPDX-License-Identifier: GPL-3.0-or-later
"""`/vms/{vm}/graphicsconsoles`: by which protocols a VM's screen could be seen; the lab's guests have none."""

from __future__ import annotations

import secrets

from ovirtlab.engine.entities.vms import CONSOLES, Vm
from ovirtlab.engine.faults import NotFound, conflict, incomplete, malformed
from ovirtlab.engine.rest.documents import Collection, Entity, Value, link_to
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import address, vm_of

routes = Routes()


@routes.get("vms/{vm}/graphicsconsoles")
async def list_consoles(call: Call) -> Collection:
    """With `current` those of the running VM, which have an address; otherwise those it is configured with."""
    vm = vm_of(call)
    current = call.flag("current")
    shown = [_show(call, vm, name, current=current) for name in vm.consoles if vm.host_id or not current]
    return Collection("graphics_consoles", "graphics_console", shown)


@routes.get("vms/{vm}/graphicsconsoles/{console}")
async def get_console(call: Call) -> Entity:
    vm = vm_of(call)
    return _show(call, vm, _protocol(call, vm), current=call.flag("current"))


@routes.post("vms/{vm}/graphicsconsoles")
async def add_console(call: Call) -> Created:
    vm, protocol = vm_of(call), call.body.text("protocol")
    call.require("edit_vm_properties", ("vm", vm.id))
    if not protocol:
        raise incomplete("GraphicsConsole", "protocol", "add")
    if protocol not in CONSOLES:
        raise malformed(f"The value '{protocol}' isn't a valid graphics type.")
    if protocol in vm.consoles:
        raise conflict("Cannot add Graphics Device. Only one graphics device of each type is allowed.")
    vm.consoles.append(protocol)
    return Created(lambda: _show(call, vm, protocol))


@routes.delete("vms/{vm}/graphicsconsoles/{console}")
async def remove_console(call: Call) -> Done:
    vm = vm_of(call)
    call.require("edit_vm_properties", ("vm", vm.id))
    vm.consoles.remove(_protocol(call, vm))
    return Done()


@routes.action("vms/{vm}/graphicsconsoles/{console}/ticket")
async def console_ticket(call: Call) -> Done:
    """A password for the console, made up when none is given."""
    vm = vm_of(call)
    _protocol(call, vm)
    return open_console(call, vm)


def open_console(call: Call, vm: Vm) -> Done:
    """The password, and for how long it can be used."""
    call.require("connect_to_vm", ("vm", vm.id))
    if not vm.host_id:
        raise conflict("Cannot set VM ticket. VM is not running.")
    value = call.body.text("ticket", "value") or secrets.token_urlsafe(9)
    seconds = call.body.integer("ticket", "expiry") or call.context.state.settings.console_ticket_lifetime
    return Done({"ticket": Entity("ticket", {"expiry": seconds, "value": value})})


def _show(call: Call, vm: Vm, protocol: str, *, current: bool = False) -> Entity:
    key = protocol.encode().hex()
    host = call.context.state.hosts.get(vm.host_id) if current else None
    fields: dict[str, Value] = {
        "address": host.address if host else None,
        "port": 5900 + CONSOLES.index(protocol) if host else None,
        "protocol": protocol,
        "vm": link_to("vm", vm.id),
    }
    return Entity("graphics_console", fields, id=key, href=address("vms", vm.id, "graphicsconsoles", key))


def _protocol(call: Call, vm: Vm) -> str:
    for protocol in vm.consoles:
        if protocol.encode().hex() == call.segments["console"]:
            return protocol
    raise NotFound(call.path)
