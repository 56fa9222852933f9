# SPDX-License-Identifier: GPL-3.0-or-later
"""Codes, severities and words of events, which clients look for: as AuditLogType of the engine and its bundle say."""

from __future__ import annotations

import dataclasses
from typing import Any

from ovirtsdk4 import types

from ovirtlab.engine.context import Proxy
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.transfers import commands
from ovirtlab.engine.transfers.rules import TransferRequest
from ovirtlab.host.tickets import TicketClient

USER = "admin@internal-authz"


def snapshots_of(world: Any, vm: Vm) -> Any:
    return world.system.vms_service().vm_service(vm.id).snapshots_service()


def take(world: Any, vm: Vm, name: str, *, memory: bool = False) -> types.Snapshot:
    made = snapshots_of(world, vm).add(types.Snapshot(description=name, persist_memorystate=memory))
    world.until(lambda: world.codes()[-1] in (68, 69))
    return made


def test_a_snapshot_is_made_previewed_undone_and_committed(world: Any) -> None:
    vm = world.add_vm(world.add_disk())
    snapshot = take(world, vm, "one", memory=True)
    world.stop_vm(vm)
    api = world.system.vms_service().vm_service(vm.id)
    for end in (api.undo_snapshot, api.commit_snapshot):
        api.preview_snapshot(snapshot=types.Snapshot(id=snapshot.id))
        end()
    previewed = [
        (46, "normal", f"Snapshot-Preview one for VM {vm.name} was initiated by {USER}."),
        (71, "normal", f"Snapshot-Preview one for VM {vm.name} has been completed."),
    ]
    assert world.told() == [
        (45, "normal", f"Snapshot 'one' creation for VM '{vm.name}' was initiated by {USER}."),
        (173, "error", f"Failed to save memory as part of Snapshot one for VM {vm.name} (User: {USER})."),
        (68, "normal", f"Snapshot 'one' creation for VM '{vm.name}' has been completed."),
        *previewed,
        (650, "normal", f"Undoing a Snapshot-Preview for VM {vm.name} was initialized by {USER}."),
        (651, "normal", f"Undoing a Snapshot-Preview for VM {vm.name} has been completed."),
        *previewed,
        (94, "normal", f"Committing a Snapshot-Preview for VM {vm.name} was initialized by {USER}."),
        (95, "normal", f"Committing a Snapshot-Preview for VM {vm.name} has been completed."),
    ]


def test_a_snapshot_that_is_not_previewed(world: Any) -> None:
    vm = world.add_vm(world.add_disk())
    snapshot = take(world, vm, "one")
    world.stop_vm(vm)
    world.host.broken = frozenset({"create_overlay"})
    world.system.vms_service().vm_service(vm.id).preview_snapshot(snapshot=types.Snapshot(id=snapshot.id))
    assert world.told()[-1] == (99, "error", f"Failed to complete Snapshot-Preview one for VM {vm.name}.")


def test_a_live_snapshot_that_fails(world: Any) -> None:
    vm = world.add_vm(world.add_disk())
    world.host.broken = frozenset({"snapshot_vm"})
    take(world, vm, "one")
    assert world.told()[1:] == [
        (
            170,
            "warning",
            f"Failed to create live snapshot 'one' for VM '{vm.name}'. VM restart is recommended. Note that using the "
            "created snapshot might cause data inconsistency.",
        ),
        (69, "error", f"Failed to complete snapshot 'one' creation for VM '{vm.name}'."),
    ]


def test_a_snapshot_is_not_removed_and_removed(world: Any) -> None:
    disk = world.add_disk()
    vm = world.add_vm(disk)
    snapshot = take(world, vm, "one")
    one = snapshots_of(world, vm).snapshot_service(snapshot.id)
    world.host.broken = frozenset({"merge_live"})
    one.remove()
    world.until(lambda: world.codes()[-1] == 357)
    world.host.broken = frozenset()
    one.remove()
    world.until(lambda: world.codes()[-1] == 356)
    started = (342, "normal", f"Snapshot 'one' deletion for VM '{vm.name}' was initiated by {USER}.")
    assert world.told()[2:] == [
        started,
        (
            359,
            "warning",
            f"Due to partial snapshot removal, Snapshot 'one' of VM '{vm.name}' now contains only the following disks: "
            f"'{disk.alias}'.",
        ),
        (357, "error", f"Failed to delete snapshot 'one' for VM '{vm.name}'."),
        started,
        (356, "normal", f"Snapshot 'one' deletion for VM '{vm.name}' has been completed."),
    ]


def test_one_disk_of_a_snapshot_is_not_removed_and_removed(world: Any) -> None:
    """Of a VM that is down; what a running one leaves illegal goes with the whole snapshot only."""
    disk = world.add_disk()
    vm = world.add_vm(disk, world.add_disk(), up=False)
    take(world, vm, "one")
    domain = world.system.storage_domains_service().storage_domain_service(world.domain)
    wanted = domain.disk_snapshots_service().snapshot_service(disk.volumes[0])
    world.host.broken = frozenset({"merge_volumes"})
    wanted.remove()
    world.until(lambda: world.codes()[-1] == 376)
    world.host.broken = frozenset()
    wanted.remove()
    world.until(lambda: world.codes()[-1] == 375)
    of = f"'{disk.alias}' from Snapshot(s) 'one' of VM '{vm.name}'"
    started = (373, "normal", f"Disk {of} deletion was initiated by {USER}.")
    failed = f"Failed to complete deletion of Disk '{disk.alias}' from snapshot(s) 'one' of VM '{vm.name}'"
    assert world.told()[2:] == [
        started,
        (376, "error", f"{failed} (User: {USER})."),
        started,
        (375, "normal", f"Disk {of} deletion has been completed (User: {USER})."),
    ]


def test_a_backup_with_scratch_disks(world: Any) -> None:
    """What names the backup by its id, and what does so with the disk's."""
    disk = world.add_disk()
    vm = world.add_vm(disk)
    backup = world.start_backup(vm, disk)
    world.finalize_backup(vm, backup)
    what = f"Backup {backup.id} for VM {vm.name}"
    scratch = f"Scratch disk creation for VM {vm.name} backup {backup.id} disk {disk.id}"
    assert world.told() == [
        (10790, "normal", f"{what} started (User: {USER})."),
        (10799, "normal", f"{scratch} started (User: {USER})."),
        (10805, "normal", f"{scratch} succeeded (User: {USER})."),
        (10794, "normal", f"{what} finalized (User: {USER})."),
        (10793, "normal", f"{what} completed successfully (User: {USER})."),
    ]


def test_a_proxy_that_takes_no_ticket(world: Any) -> None:
    nowhere = Proxy(port=54323, tickets=TicketClient(("127.0.0.1", 1)))
    context = dataclasses.replace(world.context, proxy=nowhere)
    request = TransferRequest(disk_id=world.add_disk().id, direction="download", format="raw")
    transfer = world.call(commands.start, context, request)
    world.wait_transfer(transfer.id, "transferring")
    text = "Failed to add proxy image ticket, transferring via proxy_url is not available."
    assert (1075, "warning", text) in world.told()
