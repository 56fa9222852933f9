# SPDX-License-Identifier: GPL-3.0-or-later
"""The REST interface of the engine: documents, routes and one module of handlers for each kind of object.

How to write a handler (see `routing`, `documents`, `bodies`):

    routes = Routes()

    @routes.get("vms/{vm}/backups")
    async def list_backups(call: Call) -> Collection:
        vm = call.context.state.vm(call.id("vm"))            # NotFound -> 404, malformed GUID -> 400
        return Collection("backups", "backup", [show(backup) for backup in ...])

    @routes.post("vms/{vm}/backups")
    async def add_backup(call: Call) -> Created:
        disks = [disk.id for disk in call.body.list("disks", "disk")]
        call.require("backup_disk", ("disk", disks[0]))      # Forbidden -> 403
        task = call.context.background.undertake(start(...), name="backup ...")
        return Created(lambda: show(backup), work=task)      # 202 now; with `Expect: 201-created` after the work

    @routes.action("vms/{vm}/backups/{backup}/finalize")
    async def finalize(call: Call) -> Done: ...              # POST, answered with <action>

    @routes.delete("vms/{vm}/checkpoints/{checkpoint}")
    async def remove(call: Call) -> Done: ...

Refusals are raised as `ovirtlab.engine.faults`. An entity is `Entity("backup", fields={...}, id=..., href=...)`: the
fields in any order (None leaves one out), as str, int, bool, datetime, Entity or Items; the renderers of XML and JSON
put them in the engine's order and form.

Loops that live as long as the engine begin in `ovirtlab.engine.upkeep`; they and longer acts run in
`context.background`.
"""
