# SPDX-License-Identifier: GPL-3.0-or-later
"""`/vms/{vm}/clone`."""

from __future__ import annotations

from ovirtlab.engine import clones
from ovirtlab.engine.clones import CloneRequest
from ovirtlab.engine.faults import incomplete
from ovirtlab.engine.rest.disks import find_domain
from ovirtlab.engine.rest.new_vms import give_to_creator
from ovirtlab.engine.rest.routing import Call, Done, Routes
from ovirtlab.engine.rest.shapes import cause_of, vm_of

routes = Routes()


@routes.action("vms/{vm}/clone")
async def clone_vm(call: Call) -> Done:
    """Of a VM that is down or runs; with `discard_snapshots=false` and all snapshots only of one that is down."""
    context, body, vm = call.context, call.body, vm_of(call)
    name = body.text("vm", "name")
    if name is None:
        raise incomplete("Action", "vm.name", "doClone")
    call.require("create_vm", ("vm", vm.id))
    request = CloneRequest(
        name=name,
        domain_id=find_domain(context, body) if "storage_domain" in body else "",
        with_snapshots=body.flag("discard_snapshots") is False,
    )
    cloning = clones.begin(context, vm, request, cause=cause_of(call))
    give_to_creator(call, cloning.vm)
    context.background.undertake(clones.run(context, cloning), name=f"clone {name} of VM {vm.name}")
    return Done()
