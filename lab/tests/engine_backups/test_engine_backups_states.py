# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backup goes through, what it holds meanwhile, and how it fails."""

from __future__ import annotations

import threading
from typing import Any

import ovirtsdk4 as sdk
import pytest
from ovirtsdk4 import types

from ovirtlab.engine import checkpoints, upkeep
from ovirtlab.engine.backups import commands, phases
from ovirtlab.engine.context import Context
from ovirtlab.engine.records import Backup


def refused(act: Any, status: int, text: str) -> None:
    with pytest.raises(sdk.Error) as caught:
        act()
    assert caught.value.code == status, str(caught.value)
    assert text in str(caught.value)


def add(world: Any, vm: Any, *disks: Any, query: dict[str, str] | None = None, **fields: Any) -> types.Backup:
    backup = types.Backup(disks=[types.Disk(id=disk.id) for disk in disks], **fields)
    return world.backups(vm).add(backup, query=query)


def test_what_a_live_backup_holds(world: Any) -> None:
    """VM and disks are locked from the first moment to the last, scratch disks are listed meanwhile."""
    disk = world.add_disk()
    vm = world.add_vm(disk)
    backup = add(world, vm, disk, id=world.state.new_id(), description="words")
    assert backup.phase.value == "initializing"
    assert backup.to_checkpoint_id is None
    assert backup.description == "words"
    assert disk.status == "locked"
    ready = world.wait_backup(vm, backup.id, "ready")
    assert ready.to_checkpoint_id
    assert ready.modification_date > ready.creation_date
    scratch = [d for d in world.state.disks.values() if d.content_type == "backup_scratch"]
    assert [d.alias for d in scratch] == [f"VM {vm.name} backup {backup.id} scratch disk for {disk.alias}"]
    assert (scratch[0].status, scratch[0].description) == ("locked", f"Backup {backup.id} scratch disk")
    assert scratch[0].path.exists()
    refused(lambda: add(world, vm, disk), 409, "[Cannot backup VM. The VM is during a backup operation.]")
    holder = world.state.locks.holder([("vm", vm.id)])
    assert holder.why == "The VM is during a backup operation."
    world.finalize_backup(vm, ready)
    assert disk.status == "ok"
    assert list(world.state.disks) == [disk.id]
    assert not scratch[0].path.parent.exists()
    assert world.state.locks.holder([("vm", vm.id), ("disk", disk.id)]) is None
    assert world.codes() == [10790, 10799, 10805, 10794, 10793]
    told = [event.description for event in world.state.events]
    assert told[0] == f"Backup {backup.id} for VM {vm.name} started (User: admin@internal-authz)."
    assert all(backup.id in text for text in told)
    found = world.system.events_service().list(search=backup.id)
    assert [event.code for event in found] == [10793, 10794, 10805, 10799, 10790]


def test_raw_disks_make_no_checkpoint(world: Any) -> None:
    disk = world.add_disk(fmt="raw")
    vm = world.add_vm(disk)
    backup = world.start_backup(vm, disk)
    assert backup.phase.value == "ready"
    assert backup.to_checkpoint_id is None
    world.finalize_backup(vm, backup)
    assert not world.checkpoints(vm).list()


def test_requests_that_are_refused(world: Any) -> None:
    disk = world.add_disk()
    vm = world.add_vm(disk, up=False)
    refused(lambda: add(world, vm), 400, "Backup [disks] required for add")
    refused(lambda: add(world, vm, disk, id="x"), 400, "Invalid UUID string: x")
    refused(lambda: world.backups(vm).backup_service(world.state.new_id()).get(), 404, "")
    refused(lambda: world.system.vms_service().vm_service("x").backups_service().list(), 404, "")
    unknown = world.system.vms_service().vm_service(world.state.new_id()).backups_service()
    refused(unknown.list, 404, "")
    with world.log_in("other@internal") as connection:
        service = connection.system_service().vms_service().vm_service(vm.id).backups_service()
        asked = types.Backup(disks=[types.Disk(id=disk.id)])
        refused(lambda: service.add(asked), 403, "User is not authorized to perform this action.")
    assert not world.state.backups
    assert disk.status == "ok"


def test_hybrid_backups_are_for_newer_levels_without_legacy(world: Any) -> None:
    world.state.settings.use_hybrid_backup = True
    disk = world.add_disk()
    vm = world.add_vm(disk)
    for query, level in (({"legacy": "true"}, (4, 7)), ({}, (4, 6))):
        world.state.clusters["cl"].level = level
        backup = add(world, vm, disk, query=query)
        assert world.state.backups[backup.id].kind == "live"
        world.finalize_backup(vm, world.wait_backup(vm, backup.id, "ready"))
    world.state.clusters["cl"].level = (4, 7)
    assert world.state.backups[add(world, vm, disk).id].kind == "hybrid"


def test_finalize_is_refused(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a transfer runs, while the backup is being finalized, and when it is over."""
    released = threading.Event()
    monkeypatch.setitem(phases._STEPS, "finalizing", held_until(released, phases._STEPS["finalizing"]))
    disk = world.add_disk()
    vm = world.add_vm(disk)
    backup = world.start_backup(vm, disk)
    service = world.backups(vm).backup_service(backup.id)
    transfer = world.start_transfer(disk=types.Disk(id=disk.id), backup=types.Backup(id=backup.id))
    refused(service.finalize, 409, "There is an active image transfer for VM backup")
    assert disk.status == "locked"
    world.finalize_transfer(transfer)
    assert disk.status == "ok"  # the end of a transfer unlocks its disk, whatever the backup thinks of it
    aside = {"disk": types.Disk(id=disk.id)}
    refused(lambda: world.start_transfer(**aside), 409, "Cannot transfer Virtual Disk: Disk is locked. Please try")
    service.finalize()
    refused(service.finalize, 400, "is already in 'FINALIZING' phase, no need to stop the backup again")
    released.set()
    world.wait_backup(vm, backup.id, "succeeded")
    refused(service.finalize, 400, "is already in 'SUCCEEDED' phase, no need to stop the backup again")


def held_until(event: threading.Event, step: phases.Step) -> phases.Step:
    """A step that does nothing, at as many polls as may be, before the event."""

    async def held(context: Context, backup: Backup) -> None:
        if event.is_set():
            await step(context, backup)

    return held


@pytest.mark.parametrize(("up", "status"), [(True, "up"), (False, "down")], ids=["live", "cold"])
def test_the_statuses_from_the_beginning_to_the_end(world: Any, monkeypatch: Any, *, up: bool, status: str) -> None:
    """Disks that are backed up are locked all the time, others and the VM are as they were."""
    begun, released = threading.Event(), threading.Event()
    first = "creating_scratch_disks" if up else "adding_bitmaps"
    for event, step in ((begun, first), (released, "finalizing")):
        monkeypatch.setitem(phases._STEPS, step, held_until(event, phases._STEPS[step]))
    disk, other = world.add_disk(), world.add_disk()
    vm = world.add_vm(disk, other, up=up)
    service = world.backups(vm)
    api = world.system.vms_service().vm_service(vm.id)

    def seen(backup_id: str) -> tuple[str, ...]:
        disks = world.system.disks_service()
        statuses = [disks.disk_service(item.id).get().status for item in (disk, other)]
        phase = service.backup_service(backup_id).get().phase
        return tuple(item.value for item in (phase, api.get().status, *statuses))

    backup = add(world, vm, disk)
    assert seen(backup.id) == ("initializing", status, "locked", "ok")
    begun.set()
    world.wait_backup(vm, backup.id, "ready")
    assert seen(backup.id) == ("ready", status, "locked", "ok")
    service.backup_service(backup.id).finalize()
    assert seen(backup.id) == ("finalizing", status, "locked", "ok")
    released.set()
    world.wait_backup(vm, backup.id, "succeeded")
    assert seen(backup.id) == ("succeeded", status, "ok", "ok")


def test_a_cold_backup_names_its_checkpoint_before_it_is_ready(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    released, waiting = threading.Event(), "waiting_for_bitmaps"
    monkeypatch.setitem(phases._STEPS, waiting, held_until(released, phases._STEPS[waiting]))
    disk = world.add_disk()
    vm = world.add_vm(disk, up=False)
    backup = add(world, vm, disk)
    world.until(lambda: world.state.backups[backup.id].phase == waiting)
    shown = world.backups(vm).backup_service(backup.id).get()
    assert (shown.phase.value, shown.to_checkpoint_id) == ("initializing", world.checkpoints(vm).list()[0].id)
    released.set()
    assert world.wait_backup(vm, backup.id, "ready").to_checkpoint_id == shown.to_checkpoint_id


def test_a_scratch_disk_without_a_volume_is_illegal_until_the_backup_has_failed(world: Any, monkeypatch: Any) -> None:
    released = threading.Event()
    monkeypatch.setitem(phases._STEPS, "finalizing_failure", held_until(released, phases._STEPS["finalizing_failure"]))
    disk = world.add_disk()
    vm = world.add_vm(disk)
    world.host.broken = frozenset({"create_volume"})
    backup = add(world, vm, disk)
    world.until(lambda: world.state.backups[backup.id].phase == "finalizing_failure")
    found = world.system.disks_service().list()
    assert {(item.content_type.value, item.status.value) for item in found if item.id != disk.id} == {
        ("backup_scratch", "illegal")
    }
    released.set()
    assert world.wait_backup(vm, backup.id, "failed").phase.value == "failed"
    assert (list(world.state.disks), disk.status) == ([disk.id], "ok")


def test_finalize_too_early_fails_the_backup(world: Any) -> None:
    disk = world.add_disk()
    vm = world.add_vm(disk, up=False)
    world.state.settings.poll_first = 20
    backup = add(world, vm, disk)
    refused(world.backups(vm).backup_service(backup.id).finalize, 400, "premature backup stop was initiated")
    assert world.wait_backup(vm, backup.id, "failed").phase.value == "failed"
    assert not world.checkpoints(vm).list()
    assert disk.status == "ok"


def test_vm_that_dies_during_a_backup(world: Any) -> None:
    """The engine does not notice: the backup stays ready and locked until it is finalized, and fails then."""
    disk = world.add_disk()
    vm = world.add_vm(disk)
    backup = world.start_backup(vm, disk)
    world.call(world.host.crash_vm, vm.id)
    assert vm.status == "down"
    service = world.backups(vm).backup_service(backup.id)
    assert service.get().phase.value == "ready"
    assert disk.status == "locked"
    refused(service.finalize, 400, 'Fault detail is "[]"')
    assert world.wait_backup(vm, backup.id, "failed").phase.value == "failed"
    assert not world.checkpoints(vm).list()
    assert disk.status == "ok"
    assert list(world.state.disks) == [disk.id]
    assert world.codes()[-2:] == [10795, 10792]


def test_broken_bitmap_takes_the_whole_chain(world: Any) -> None:
    """After a crash of the VM an increment fails without a word, every checkpoint is gone, and a full backup works.

    The disks are free at once, but the backup is there, and until the engine has looked at it no other may begin.
    """
    disk = world.add_disk()
    vm = world.add_vm(disk)
    for _ in range(2):
        last = world.finalize_backup(vm, world.start_backup(vm, disk))
    world.call(world.host.crash_vm, vm.id)
    world.start_vm(vm)
    key, since = world.state.new_id(), last.to_checkpoint_id
    world.state.settings.poll_first = 40
    refused(lambda: add(world, vm, disk, id=key, from_checkpoint_id=since), 400, 'Fault detail is "[]"')
    assert not world.checkpoints(vm).list()
    assert disk.status == "ok"
    assert world.backups(vm).backup_service(key).get().phase.value == "initializing"
    refused(lambda: add(world, vm, disk), 409, "The VM is during a backup operation.")
    assert world.wait_backup(vm, key, "failed").phase.value == "failed"
    assert world.codes()[-3:] == [10791, 10790, 10792]
    refused(lambda: add(world, vm, disk, from_checkpoint_id=last.to_checkpoint_id), 400, "doesn't exist")
    world.state.settings.poll_first = 1
    world.finalize_backup(vm, world.start_backup(vm, disk))


def test_checkpoints_stay_when_their_host_does_not_answer(world: Any) -> None:
    """Then nobody knows whether they are broken; the order fails in the same way."""
    disk = world.add_disk()
    vm = world.add_vm(disk)
    last = world.finalize_backup(vm, world.start_backup(vm, disk))
    key, since = world.state.new_id(), last.to_checkpoint_id
    world.host.broken = frozenset({"redefine_checkpoints", "list_checkpoints"})
    refused(lambda: add(world, vm, disk, id=key, from_checkpoint_id=since), 400, 'Fault detail is "[]"')
    assert world.wait_backup(vm, key, "failed").phase.value == "failed"
    assert [item.id for item in world.checkpoints(vm).list()] == [since]
    world.host.broken = frozenset()
    world.finalize_backup(vm, world.start_backup(vm, disk, from_checkpoint_id=since))


@pytest.mark.parametrize("verb", ["create_volume", "start_backup"])
def test_host_that_cannot_start_a_backup(world: Any, verb: str) -> None:
    disk = world.add_disk()
    vm = world.add_vm(disk)
    world.host.broken = frozenset({verb})
    assert world.start_backup(vm, disk).phase.value == "failed"
    assert not world.checkpoints(vm).list()
    assert disk.status == "ok"
    assert list(world.state.disks) == [disk.id]
    assert world.codes()[-1] == 10792
    world.host.broken = frozenset()
    world.finalize_backup(vm, world.start_backup(vm, disk))


def test_cold_backup_without_bitmap_fails(world: Any) -> None:
    disk = world.add_disk()
    vm = world.add_vm(disk, up=False)
    world.host.broken = frozenset({"add_bitmap"})
    assert world.start_backup(vm, disk).phase.value == "failed"
    assert not world.checkpoints(vm).list()


def test_engine_restart_abandons_backups(world: Any) -> None:
    """Running backups are marked failed; disks stay locked until an administrator clears up."""
    disk = world.add_disk()
    vm = world.add_vm(disk)
    backup = world.start_backup(vm, disk)
    world.restart_engine()
    assert world.backups(vm).backup_service(backup.id).get().phase.value == "failed"
    assert world.codes()[-1] == 10814
    refused(lambda: add(world, vm, disk), 409, f"The following disks are locked: {disk.alias}.")
    world.call(commands.clear_leftovers, world.context, vm.id)
    world.finalize_backup(vm, world.start_backup(vm, disk))


def test_finished_backups_vanish(world: Any) -> None:
    disk = world.add_disk()
    vm = world.add_vm(disk)
    backup = world.finalize_backup(vm, world.start_backup(vm, disk))
    upkeep.forget_finished(world.context)
    service = world.backups(vm).backup_service(backup.id)
    assert service.get().phase.value == "succeeded"
    world.state.settings.succeeded_backup_cleanup = 0
    upkeep.forget_finished(world.context)
    refused(service.get, 404, "")


def test_new_disk_is_read_whole_in_an_increment(world: Any) -> None:
    old, new = world.add_disk(), world.add_disk()
    vm = world.add_vm(old, new)
    full = world.finalize_backup(vm, world.start_backup(vm, old))
    second = world.start_backup(vm, old, new, from_checkpoint_id=full.to_checkpoint_id)
    disks = world.backups(vm).backup_service(second.id).disks_service().list()
    assert {disk.id: disk.backup_mode.value for disk in disks} == {old.id: "incremental", new.id: "full"}
    dirty = {}
    for disk in (old, new):
        transfer = world.start_transfer(disk=types.Disk(id=disk.id), backup=types.Backup(id=second.id))
        dirty[disk.id] = world.ticket(transfer)["dirty"]
        world.finalize_transfer(transfer)
    assert dirty == {old.id: True, new.id: False}
    world.finalize_backup(vm, second)


def chain_of_three(world: Any, vm: Any, disk: Any) -> list[str]:
    return [world.finalize_backup(vm, world.start_backup(vm, disk)).to_checkpoint_id for _ in range(3)]


@pytest.mark.parametrize("up", [True, False])
def test_checkpoints_are_removed_with_their_bitmaps(world: Any, up: bool) -> None:
    """Any may go; its child is hung on its parent. Through the VM when it runs, else in the volume."""
    disk = world.add_disk()
    vm = world.add_vm(disk)
    ids = chain_of_three(world, vm, disk)
    if not up:
        world.stop_vm(vm)
    service = world.checkpoints(vm)
    assert [checkpoint.id for checkpoint in service.list()] == ids
    assert [d.id for d in service.checkpoint_service(ids[0]).disks_service().list()] == [disk.id]
    service.checkpoint_service(ids[1]).remove()
    wait_gone(world, vm, ids[1])
    assert [(c.id, c.parent_id) for c in service.list()] == [(ids[0], None), (ids[2], ids[0])]
    if up:
        world.stop_vm(vm)
    assert set(world.call(world.host.bitmaps, disk.path)) == {ids[0], ids[2]}
    assert world.codes()[-1] == 10797


def wait_gone(world: Any, vm: Any, checkpoint_id: str) -> None:
    def is_gone() -> bool:
        return checkpoint_id not in [checkpoint.id for checkpoint in world.checkpoints(vm).list()]

    world.until(is_gone)


def test_checkpoint_that_cannot_be_removed(world: Any) -> None:
    disk = world.add_disk()
    vm = world.add_vm(disk)
    service = world.checkpoints(vm)
    backup = world.start_backup(vm, disk)
    checkpoint = service.checkpoint_service(backup.to_checkpoint_id)
    refused(checkpoint.remove, 409, "[Cannot remove checkpoint. The VM is during a backup operation.]")
    world.finalize_backup(vm, backup)
    world.stop_vm(vm)
    world.host.broken = frozenset({"remove_bitmap"})
    checkpoint.remove()
    world.until(lambda: world.codes()[-1] == 10798)
    assert checkpoint.get().state.value == "invalid"
    refused(
        lambda: add(world, vm, disk, from_checkpoint_id=backup.to_checkpoint_id),
        400,
        "is invalid and should be removed",
    )
    world.host.broken = frozenset()
    checkpoint.remove()
    wait_gone(world, vm, backup.to_checkpoint_id)
    refused(checkpoint.get, 404, "")


def test_detached_disk_leaves_the_checkpoints(world: Any) -> None:
    """Its bitmaps are cleared; a checkpoint of this disk alone is gone, another keeps its other disks."""
    one, two = world.add_disk(), world.add_disk()
    vm = world.add_vm(one, two, up=False)
    world.finalize_backup(vm, world.start_backup(vm, one))
    both = world.finalize_backup(vm, world.start_backup(vm, one, two))
    world.call(checkpoints.forget_disk, world.context, one)
    assert [(c.id, c.parent_id) for c in world.checkpoints(vm).list()] == [(both.to_checkpoint_id, None)]
    covered = world.checkpoints(vm).checkpoint_service(both.to_checkpoint_id).disks_service().list()
    assert [disk.id for disk in covered] == [two.id]
    assert not world.call(world.host.bitmaps, one.path)
    assert set(world.call(world.host.bitmaps, two.path)) == {both.to_checkpoint_id}


def test_consistency_that_cannot_be_had(world: Any) -> None:
    """A VM without an agent is backed up without a freeze, unless a freeze is required."""
    disk = world.add_disk()
    vm = world.add_vm(disk)
    backup = add(world, vm, disk, query={"require_consistency": "true"})
    assert world.wait_backup(vm, backup.id, "ready").phase.value == "failed"
    assert world.start_backup(vm, disk).phase.value == "ready"


def test_json(world: Any) -> None:
    """The same entities in the Engine's JSON: numbers and booleans are strings, dates are milliseconds."""
    disk = world.add_disk()
    vm = world.add_vm(disk)
    backup = world.start_backup(vm, disk)
    transfer = world.start_transfer(disk=types.Disk(id=disk.id), backup=types.Backup(id=backup.id))
    shown = world.get_json(f"vms/{vm.id}/backups")["backup"][0]
    assert (shown["id"], shown["phase"], shown["vm"]["id"]) == (backup.id, "ready", vm.id)
    assert isinstance(shown["creation_date"], int)
    assert [link["rel"] for link in shown["link"]] == ["disks"]
    assert world.get_json(f"vms/{vm.id}/backups/{backup.id}/disks")["disk"][0]["backup_mode"] == "full"
    assert world.get_json(f"vms/{vm.id}/checkpoints")["checkpoint"][0]["state"] == "created"
    shown = world.get_json("imagetransfers")["image_transfer"][0]
    assert (shown["active"], shown["transferred"], shown["inactivity_timeout"]) == ("false", "0", "60")
    assert shown["image"]["id"] == disk.id
    world.finalize_transfer(transfer)
