# SPDX-License-Identifier: GPL-3.0-or-later
"""`POST /vms/{vm}/start`: with its own settings, or once with others."""

from __future__ import annotations

from ovirtlab.engine import running
from ovirtlab.engine.entities.vms import RunOnce, Vm
from ovirtlab.engine.faults import Conflict
from ovirtlab.engine.rest import initialization
from ovirtlab.engine.rest.bodies import Body
from ovirtlab.engine.rest.documents import link_to
from ovirtlab.engine.rest.routing import Call, Done, Routes
from ovirtlab.engine.rest.shapes import cause_of, vm_of
from ovirtlab.engine.rest.vm_properties import find_hosts

routes = Routes()

_KINDS = {"use_cloud_init": "cloud_init", "use_sysprep": "sysprep", "use_ignition": "ignition"}


@routes.action("vms/{vm}/start")
async def start_vm(call: Call) -> Done:
    """Answers when the host has been asked; a `vm` in the body has settings that count for this run only."""
    context, vm = call.context, vm_of(call)
    call.require("run_vm", ("vm", vm.id))
    if vm.status == "paused":
        await running.resume(context, vm, cause=cause_of(call))
        return Done({"vm": link_to("vm", vm.id)})
    once = _run_once(call, vm)
    body = call.body.child("vm") or Body()
    hosts = find_hosts(context, body.child("placement_policy") or Body())
    wanted = hosts[0] if hosts else ""
    running.check_start(context, vm)
    running.choose_host(context, vm, wanted=wanted)
    lock = running.take_vm(context, vm, action="Cannot run VM")
    vm.once = once
    work = running.start(context, vm, cause=cause_of(call), lock=lock, wanted_host=wanted)
    context.background.undertake(work, name=f"start VM {vm.name}")
    vm.status = "wait_for_launch"
    return Done({"vm": link_to("vm", vm.id)})


def _run_once(call: Call, vm: Vm) -> RunOnce | None:
    """The settings for this run; None for a start with the VM's own."""
    kind = _kind(call.body)
    body = call.body.child("vm")
    if body is None:
        return None
    given = initialization.read(call.context.state, body)
    return RunOnce(
        os_type=body.text("os", "type") or "",
        os_kernel=body.text("os", "kernel") or "",
        os_initrd=body.text("os", "initrd") or "",
        os_cmdline=body.text("os", "cmdline") or "",
        initialization_type=kind,
        initialization=given or vm.kept.get("initialization"),
    )


def _kind(body: Body) -> str:
    """By what the guest shall be set up: one way at most; `none` when all that were named are switched off."""
    named = {name: body.flag(name) for name in _KINDS if name in body}
    chosen = [_KINDS[name] for name, wanted in named.items() if wanted]
    if len(chosen) > 1:
        raise Conflict("", reason="Cannot use multiple initialization tags simultaneously when running VM.")
    return chosen[0] if chosen else "none" if named else ""
