# SPDX-License-Identifier: GPL-3.0-or-later
"""Refusals of snapshots: each with its status and text, and which of several the engine tells first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from ovirtlab.engine.background import Background
from ovirtlab.engine.clock import Clock
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.disks import Disk, DiskAttachment, DiskStatus
from ovirtlab.engine.entities.infrastructure import Cluster, DataCenter, StorageDomain
from ovirtlab.engine.entities.people import User
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import Fault
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.records import Backup, FrozenVolume, Snapshot
from ovirtlab.engine.snapshots import creating, merging, reverting
from ovirtlab.engine.snapshots.creating import SnapshotRequest
from ovirtlab.engine.state import State

CAUSE = Cause(User(id="u", name="admin", domain="internal", password=""), "c")
BUSY = "The VM is performing an operation on a Snapshot. Please wait for the operation to finish, and try again.]"
IN_PREVIEW = "VM is previewing a Snapshot.]"
LOCKED = "The following disks are locked: {}. Please try again in a few minutes.]"
ILLEGAL = "The following attached disks are in ILLEGAL status: {} - please remove them and try again.]"
INACTIVE = "The relevant Storage Domain's status is Maintenance.]"
ELSEWHERE = (
    "The following VM's disks snapshots are attached to other VMs (Disk Alias/Snapshot Description/VM attached to):"
    "\n\n one ,older, agent \n\nPlease detach them from those VMs and try again.]"
)


@dataclass
class World:
    """A VM `web` with the disks `one` and `two`, of which one snapshot `older` holds both, and another VM `agent`."""

    context: Context
    request: SnapshotRequest = field(default_factory=lambda: SnapshotRequest(description="new"))

    @property
    def state(self) -> State:
        return self.context.state

    @property
    def vm(self) -> Vm:
        return self.state.vms["web"]

    @property
    def older(self) -> Snapshot:
        return self.state.snapshots["older"]

    def create(self) -> None:
        creating.begin(self.context, self.vm, self.request, cause=CAUSE)

    def remove(self) -> None:
        merging.begin(self.context, self.vm, self.older, cause=CAUSE)

    def remove_disk(self) -> None:
        merging.begin_disk(self.context, self.vm, self.older, self.state.disks["one"], cause=CAUSE)

    def preview(self) -> None:
        reverting.lock_for_preview(self.context, self.vm, self.older)

    def commit(self) -> None:
        reverting.lock_for_end(self.context, self.vm, final=True)

    def undo(self) -> None:
        reverting.lock_for_end(self.context, self.vm, final=False)


@pytest.fixture
def world(tmp_path: Path) -> World:
    clock = Clock()
    state = State(clock, seed=1)
    state.data_centers["dc"] = DataCenter(id="dc", name="Default")
    state.clusters["cl"] = Cluster(id="cl", name="Default", data_center_id="dc")
    state.storage_domains["sd"] = StorageDomain(id="sd", name="store", data_center_id="dc", path=tmp_path)
    for name in ("web", "agent"):
        state.vms[name] = Vm(id=name, name=name, cluster_id="cl", memory=1 << 30)
    older = Snapshot(id="older", vm_id="web", description="older", date=clock.now())
    for name in ("one", "two"):
        disk = _disk(state, name)
        disk.volumes = [f"{name}-0"]
        older.volumes[name] = FrozenVolume(image_id=f"{name}-0", format="cow", size=1 << 20)
        state.attach(DiskAttachment(disk_id=name, vm_id="web"))
    state.snapshots["older"] = older
    context = Context(
        state=state, hosts={}, clock=clock, background=Background(clock), directory=tmp_path, base_url="", ca_pem=""
    )
    return World(context)


def _disk(state: State, name: str, *, shareable: bool = False) -> Disk:
    path = state.storage_domains["sd"].path / name
    state.disks[name] = Disk(
        id=name, image_id=f"{name}-1", alias=name, provisioned_size=1 << 20, storage_domain_id="sd", path=path,
        shareable=shareable,
    )  # fmt: skip
    return state.disks[name]


Change = Callable[[World], object]


def ask(*, disk_ids: tuple[str, ...] | None = None, image_ids: Mapping[str, str] | None = None) -> Change:
    """Ask for another snapshot."""

    def change(world: World) -> None:
        world.request = SnapshotRequest(description="new", disk_ids=disk_ids, image_ids=image_ids or {})

    return change


def shared(vm: str) -> Change:
    """A disk that VMs may share, on one of the VMs, is asked for."""

    def change(world: World) -> None:
        _disk(world.state, "quorum", shareable=True)
        world.state.attach(DiskAttachment(disk_id="quorum", vm_id=vm))
        ask(disk_ids=("quorum",))(world)

    return change


def status(value: str) -> Change:
    return lambda world: setattr(world.vm, "status", value)


def another(*disks: str, status: str = "ok", type: str = "regular") -> Change:
    """Another snapshot of the VM, of some of its disks."""

    def change(world: World) -> None:
        held = {disk: FrozenVolume(image_id=f"{disk}-x", format="cow", size=1) for disk in disks}
        now = world.context.clock.now()
        world.state.snapshots["x"] = Snapshot(
            id="x", vm_id="web", description="x", date=now, volumes=held, status=status, type=type
        )

    return change


def image(disk: str, value: DiskStatus, *, active: bool) -> Change:
    """An image of a disk is locked or illegal."""

    def change(world: World) -> None:
        if active:
            world.state.disks[disk].status = value
        else:
            world.state.disks[disk].troubled[f"{disk}-0"] = value

    change.__qualname__ = f"image of {disk}, {active=}"
    return change


def hung_elsewhere(world: World) -> None:
    hung = DiskAttachment(disk_id="one", vm_id="agent", snapshot_id="older")
    world.state.vms["agent"].snapshot_disks["one"] = hung


def unplugged(world: World) -> None:
    world.vm.attachments["two"].active = False


def backup(world: World) -> None:
    now = world.context.clock.now()
    world.state.backups["b"] = Backup(
        id="b", vm_id="web", kind="hybrid", creation_date=now, modification_date=now, phase="ready"
    )


def vm_taken(world: World) -> None:
    why = "VM agent is being migrated."
    world.state.locks.take(exclusive=[("vm", "web")], why=why, action="Cannot migrate VM")


def disk_taken(world: World) -> None:
    world.state.locks.take(exclusive=[("disk", "one")], why="Disk one is being transferred.", action="Cannot")


def domain_in_maintenance(world: World) -> None:
    world.state.storage_domains["sd"].status = "maintenance"


def stateless(world: World) -> None:
    world.vm.kept["stateless"] = "true"


def running(value: str) -> Change:
    def change(world: World) -> None:
        world.vm.status, world.vm.host_id = value, "h"

    return change


def with_local_disk(world: World) -> None:
    world.vm.custom_properties["localdisk"] = "lvm"


Case = tuple[tuple[Change, ...], int, str]
"""What is so, and the status and the text it is refused with."""

MAKE = "[Cannot create Snapshot"
DROP = "[Cannot remove Snapshot"
DROP_DISK = "[Cannot remove Disk Snapshot"
LOOK = "[Cannot preview Snapshot"
BACK = "[Cannot revert to Snapshot"
STATELESS = "The VM is running as Stateless. Please try again when VM is not running as Stateless.]"
IMAGE_IDS = ask(image_ids={"one": "two-0"})

# in the order in which the engine looks
CREATION: list[Case] = [
    ((vm_taken,), 409, f"{MAKE}. VM agent is being migrated.]"),
    (
        (ask(disk_ids=("no-2", "one", "no-1")),),
        400,
        f"{MAKE}. The following disk(s) ID(s) does not exist: no-1, no-2.]",
    ),
    ((shared("web"),), 400, f"{MAKE}. Snapshot is not allowed for the following disk(s): quorum.]"),
    ((shared("agent"),), 400, f"{MAKE}. The following disk(s) are not attached to the VM web: quorum.]"),
    (
        (status("saving_state"),),
        409,
        f"{MAKE}. VM is in saving/restoring state.\n-Please try again when the VM is either up or down.]",
    ),
    ((status("image_locked"),), 409, f"{MAKE} because the VM is in Image Locked status.]"),
    ((another(status="locked"),), 409, f"{MAKE}. {BUSY}"),
    ((another(type="preview"),), 409, f"{MAKE}. {IN_PREVIEW}"),
    ((stateless, running("reboot_in_progress")), 409, f"{MAKE}. {STATELESS}"),
    ((image("two", "locked", active=True),), 409, f"{MAKE}: {LOCKED.format('two')}"),
    ((image("one", "illegal", active=True),), 500, f"{MAKE}. {ILLEGAL.format('one')}"),
    ((with_local_disk,), 409, f"{MAKE}. VM is configured with 'localdisk' user property.]"),
    ((IMAGE_IDS,), 409, f"{MAKE}. Image IDs \ttwo-0 are already used by a snapshot.]"),
    ((domain_in_maintenance,), 409, f"{MAKE}. {INACTIVE}"),
]
REMOVAL: list[Case] = [
    ((vm_taken,), 409, f"{DROP}. VM agent is being migrated.]"),
    ((backup,), 409, f"{DROP}. The VM is during a backup operation.]"),
    ((another("two", status="locked"),), 409, f"{DROP}. {BUSY}"),
    ((another(type="preview"),), 409, f"{DROP}. {IN_PREVIEW}"),
    (
        (lambda world: setattr(world.older, "type", "active"),),
        409,
        f"{DROP}. The operation is only allowed for regular snapshots.]",
    ),
    ((status("powering_down"),), 409, f"{DROP}. VM web must be in status Down, Up or Paused.]"),
    ((hung_elsewhere,), 409, f"{DROP}. {ELSEWHERE}"),
    ((image("one", "locked", active=False),), 409, f"{DROP}: {LOCKED.format('one')}"),
    ((image("one", "illegal", active=True),), 500, f"{DROP}. {ILLEGAL.format('one')}"),
    ((domain_in_maintenance,), 409, f"{DROP}. {INACTIVE}"),
]
DISK_REMOVAL: list[Case] = [
    ((disk_taken,), 409, f"{DROP_DISK}. Disk one is being transferred.]"),
    ((image("one", "locked", active=True),), 409, f"{DROP_DISK}: {LOCKED.format('one')}"),
    ((image("one", "illegal", active=False),), 500, f"{DROP_DISK}. {ILLEGAL.format('one')}"),
    ((hung_elsewhere,), 409, f"{DROP_DISK}. {ELSEWHERE}"),
    ((status("powering_down"),), 409, f"{DROP_DISK}. VM web must be in status Down, Up or Paused.]"),
    ((another(status="locked"),), 409, f"{DROP_DISK}. {BUSY}"),
    ((another(type="preview"),), 409, f"{DROP_DISK}. {IN_PREVIEW}"),
    ((domain_in_maintenance,), 409, f"{DROP_DISK}. {INACTIVE}"),
]
PREVIEW: list[Case] = [
    ((vm_taken,), 409, f"{LOOK}. VM agent is being migrated.]"),
    ((running("up"),), 409, f"{LOOK}. At least one of the VMs is not down.]"),
    ((another(status="locked"),), 409, f"{LOOK}. {BUSY}"),
    ((another(type="preview"),), 409, f"{LOOK}. {IN_PREVIEW}"),
    ((image("one", "illegal", active=True),), 500, f"{LOOK}. {ILLEGAL.format('one')}"),
    ((image("two", "locked", active=True),), 409, f"{LOOK}: {LOCKED.format('two')}"),
    ((image("one", "illegal", active=False),), 500, f"{LOOK}. {ILLEGAL.format('one')}"),
    ((image("two", "locked", active=False),), 409, f"{LOOK}: {LOCKED.format('two')}"),
    ((domain_in_maintenance,), 409, f"{LOOK}. {INACTIVE}"),
]
ACTS = {"create": CREATION, "remove": REMOVAL, "remove_disk": DISK_REMOVAL, "preview": PREVIEW}
ORDERED = [(act, place) for act, cases in ACTS.items() for place in range(len(cases))]


def refusal(world: World, act: str) -> tuple[int, str]:
    with pytest.raises(Fault) as refused:
        getattr(world, act)()
    return refused.value.status, refused.value.detail


@pytest.mark.parametrize(("act", "place"), ORDERED)
def test_the_first_in_order_is_told(world: World, act: str, place: int) -> None:
    """With what is refused later being so, too, as far as both can be."""
    changes, code, text = ACTS[act][place]
    later = [change for others, _, _ in ACTS[act][place + 1 :] for change in others]
    for change in [*reversed([change for change in later if _can_be_with(changes, change)]), *changes]:
        change(world)
    assert refusal(world, act) == (code, text)


def _can_be_with(changes: tuple[Change, ...], other: Change) -> bool:
    """Two changes of one thing cannot both be, such as two statuses of a VM."""
    return all(change.__qualname__ != other.__qualname__ for change in changes)


@pytest.mark.parametrize("act", ACTS)
def test_what_is_refused_holds_nothing(world: World, act: str) -> None:
    domain_in_maintenance(world)
    refusal(world, act)
    state = world.state
    assert state.locks.holder([("vm", "web"), ("disk", "one"), ("disk", "two")]) is None
    assert {item.status for item in (*state.disks.values(), *state.snapshots.values())} == {"ok"}
    assert world.vm.status == "down"


@pytest.mark.parametrize("status", ["up", "paused", "powering_up", "powering_down", "wait_for_launch", "down"])
def test_a_snapshot_is_made_of_a_vm_in_a_status(world: World, status: str) -> None:
    """It is of all disks, plugged or not, and the VM and all volumes but the active ones stay as they are."""
    unplugged(world)
    running(status)(world)
    world.create()
    assert world.vm.status == status
    new = next(item for item in world.state.snapshots.values() if item.description == "new")
    assert (new.status, list(new.volumes)) == ("locked", ["one", "two"])
    assert all((disk.status, disk.troubled) == ("locked", {}) for disk in world.state.disks.values())
    assert refusal(world, "remove") == (409, f"{DROP}. Snapshot is currently being created for VM web.]")


@pytest.mark.parametrize("status", ["migrating", "suspended", "unknown", "not_responding"])
def test_a_snapshot_is_not_made_of_a_vm_in_a_status(world: World, status: str) -> None:
    world.vm.status = status
    words = status.replace("_", " ").title()
    assert refusal(world, "create") == (409, f"{MAKE} because the VM is in {words} status.]")


@pytest.mark.parametrize("status", ["up", "paused", "powering_up", "reboot_in_progress", "down"])
def test_a_snapshot_is_removed_from_a_vm_in_a_status(world: World, status: str) -> None:
    """Its disks are locked with all their volumes, the VM is not."""
    running(status)(world)
    world.remove()
    assert (world.vm.status, world.older.status) == (status, "locked")
    assert {disk.id: (disk.status, disk.troubled) for disk in world.state.disks.values()} == {
        "one": ("locked", {"one-0": "locked"}),
        "two": ("locked", {"two-0": "locked"}),
    }
    assert world.state.locks.holder([("vm", "web")]) is None
    assert refusal(world, "create") == (409, f"{MAKE}. {BUSY}")
    assert refusal(world, "remove") == (409, f"{DROP}. {BUSY}")


@pytest.mark.parametrize("status", ["wait_for_launch", "migrating", "suspended", "unknown", "image_locked"])
def test_a_snapshot_is_not_removed_from_a_vm_in_a_status(world: World, status: str) -> None:
    world.vm.status = status
    assert refusal(world, "remove") == (409, f"{DROP}. VM web must be in status Down, Up or Paused.]")


def test_a_running_vm_removes_what_is_illegal_but_not_what_is_not_plugged(world: World) -> None:
    image("one", "illegal", active=False)(world)
    assert refusal(world, "remove") == (500, f"{DROP}. {ILLEGAL.format('one')}")
    running("up")(world)
    unplugged(world)
    text = "The following disks are either unplugged or unattached: \n two]"
    assert refusal(world, "remove") == (409, f"{DROP}. {text}")
    world.vm.attachments["two"].active = True
    world.remove()


def test_another_snapshot_that_is_removed_stands_in_the_way_of_common_disks_only(world: World) -> None:
    del world.older.volumes["two"]
    another("two", status="locked")(world)
    assert refusal(world, "create") == (409, f"{MAKE}. {BUSY}")
    world.remove()


def test_the_images_on_both_sides_of_a_merge_are_told_each(world: World) -> None:
    for active in (True, False):
        image("one", "locked", active=active)(world)
    assert refusal(world, "remove") == (409, f"{DROP}: {LOCKED.format('one, one')}")


def test_the_snapshot_of_a_hybrid_backup_goes_while_that_is_under_way(world: World) -> None:
    backup(world)
    merging.begin_of_backup(world.context, world.vm, world.older, cause=CAUSE)
    assert world.older.status == "locked"


@pytest.mark.parametrize("act", ["commit", "undo"])
def test_a_preview_that_cannot_end(world: World, act: str) -> None:
    assert refusal(world, act) == (400, f"{BACK}. VM's Snapshot does not exist.]")
    another(type="preview")(world)
    running("wait_for_launch")(world)
    assert refusal(world, act) == (409, f"{BACK} because the VM is in Wait for Launch status.]")
    image("one", "locked", active=True)(world)
    assert refusal(world, act) == (409, f"{BACK}: {LOCKED.format('one')}")
    domain_in_maintenance(world)
    assert refusal(world, act) == (409, f"{BACK}. {INACTIVE}")
    vm_taken(world)
    assert refusal(world, act) == (409, f"{BACK}. VM agent is being migrated.]")


def test_what_hangs_elsewhere_is_not_committed_away(world: World) -> None:
    another(type="preview")(world)
    hung_elsewhere(world)
    assert refusal(world, "commit") == (409, f"{BACK}. {ELSEWHERE}")
    world.undo()
    assert cast("str", world.vm.status) == "image_locked"


@pytest.mark.parametrize(("status", "locked"), [("up", True), ("suspended", False), ("unknown", True)])
def test_a_preview_may_end_while_the_vm_is_not_down(world: World, status: str, locked: bool) -> None:
    another(type="preview")(world)
    running(status)(world)
    world.commit()
    assert cast("str", world.vm.status) == ("image_locked" if locked else status)


@pytest.mark.parametrize("status", ["paused", "powering_up", "powering_down", "reboot_in_progress", "migrating"])
def test_a_preview_does_not_end_in_a_status(world: World, status: str) -> None:
    another(type="preview")(world)
    running(status)(world)
    words = status.replace("_", " ").title().replace(" In ", " in ")
    assert refusal(world, "undo") == (409, f"{BACK} because the VM is in {words} status.]")
