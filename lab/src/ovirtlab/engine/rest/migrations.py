# SPDX-License-Identifier: GPL-3.0-or-later
"""`/vms/{vm}/migrate` and `cancelmigration`."""

from __future__ import annotations

from ovirtlab.engine import migrations
from ovirtlab.engine.faults import NotFound
from ovirtlab.engine.migrations import MigrationRequest
from ovirtlab.engine.rest.routing import Call, Done, Routes
from ovirtlab.engine.rest.shapes import cause_of, vm_of

routes = Routes()


@routes.action("vms/{vm}/migrate")
async def migrate_vm(call: Call) -> Done:
    """To the host named, or to any other of the cluster; answered when the migration has begun."""
    context, vm = call.context, vm_of(call)
    call.require("migrate_vm", ("vm", vm.id))
    request = MigrationRequest(
        host_id=_named(call, "host"), cluster_id=_named(call, "cluster"), force=call.body.flag("force") or False
    )
    move = migrations.begin(context, vm, request, cause=cause_of(call))
    context.background.undertake(migrations.run(context, move), name=f"migration of VM {vm.name}")
    return Done()


@routes.action("vms/{vm}/cancelmigration")
async def cancel_migration(call: Call) -> Done:
    vm = vm_of(call)
    call.require("migrate_vm", ("vm", vm.id))
    await migrations.cancel(call.context, vm, cause=cause_of(call))
    return Done()


def _named(call: Call, kind: str) -> str:
    """The id of an object that the request names by id or name; empty when it names none."""
    body = call.body.child(kind)
    if body is None:
        return ""
    key, name = body.id, body.text("name")
    if key is not None:
        return key
    table = call.context.state.hosts if kind == "host" else call.context.state.clusters
    for item in table.values():
        if item.name == name:
            return item.id
    raise NotFound(name or "")
