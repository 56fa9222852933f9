from __future__ import annotations

import pytest

from overkeep.blocks.errors import TargetReadOnly
from overkeep.controller.records import JobState
from overkeep.engine.errors import Busy, EngineRefused, EngineUnreachable
from overkeep.model.inventory import VmStatus
from overkeep.model.restore import NameTaken, RestoreRequest
from overkeep.mover.orders import Access, CopyOrder, CopyResult, Image
from tests.controller.world import World, disk, succeeded, vm


@pytest.fixture
def backed_up(world: World) -> World:
    world.add(vm("web", disk("web_root", bootable=True), disk("data", raw=True)))
    assert succeeded(world.back_up())
    world.mover.received.clear()
    return world


def point_id(world: World) -> str:
    return world.repository.points()[-1].id


def restored(world: World, name: str = "copy"):
    return next(iter(world.memory.named(name)), None)


def assert_nothing_made(world: World, before: frozenset[str]) -> None:
    """Only what was there before is there."""
    assert world.memory.disk_ids() == before
    assert restored(world) is None
    world.assert_nothing_open()


def test_a_vm_is_restored_and_started(backed_up: World) -> None:
    world = backed_up
    job = world.restore(point_id(world), "copy", start=True)
    assert succeeded(job), job.failure
    made = restored(world)
    assert made.status is VmStatus.UP
    assert {d.name for d in made.disks} == {"copy_root", "data"}
    assert job.result["vm_id"] == made.id
    for order in world.mover.received.values():
        assert isinstance(order.source, Image)
        assert isinstance(order.sink, Access)
    world.assert_nothing_open()


def test_the_same_point_can_be_restored_again(backed_up: World) -> None:
    assert succeeded(backed_up.restore(point_id(backed_up), "one"))
    assert succeeded(backed_up.restore(point_id(backed_up), "two"))


def test_a_taken_name_is_refused_before_anything_is_made(backed_up: World) -> None:
    with pytest.raises(NameTaken):
        backed_up.start_restore(point_id(backed_up), "web")


def test_a_name_that_is_taken_meanwhile_is_refused_before_anything_is_made(backed_up: World) -> None:
    world = backed_up
    before = world.memory.disk_ids()
    point = world.repository.points()[-1]
    request = RestoreRequest(point_id=point.id, name="copy")
    targets = world.controller.restore_targets(world.placed(point), request)
    world.memory.add_vm(vm("copy"))
    job = world.finish(world.controller.start_restore(world.placed(point), request, targets=targets, caller="admin"))
    assert (job.state, job.failure.code) == (JobState.FAILED, "vm-name-taken")
    assert restored(world).id == "copy-vm"  # nobody touched it
    assert world.memory.disk_ids() == before
    world.assert_nothing_open()


def test_a_restore_goes_nowhere_but_where_its_caller_may(backed_up: World) -> None:
    """A storage domain is told by its id and then by its name, which another one may bear when the job runs."""
    world = backed_up
    before = world.memory.disk_ids()
    point = world.repository.points()[-1]
    request = RestoreRequest(point_id=point.id, name="copy")
    targets = world.controller.restore_targets(world.placed(point), request)
    world.memory.known_domains = {"data1": "domain-9"}
    job = world.finish(world.controller.start_restore(world.placed(point), request, targets=targets, caller="ann"))
    assert (job.state, job.failure.code) == (JobState.FAILED, "restore-targets-changed")
    assert "'data1'" in job.failure.text
    assert_nothing_made(world, before)


def test_a_failed_copy_removes_what_was_made(backed_up: World) -> None:
    def fails(_: CopyOrder) -> CopyResult:
        raise TargetReadOnly(path="/t", reason="it is mounted read-only")

    before = backed_up.memory.disk_ids()
    backed_up.mover.outcome = fails
    job = backed_up.restore(point_id(backed_up), "copy")
    assert (job.state, job.failure.code) == (JobState.FAILED, "target-read-only")
    assert_nothing_made(backed_up, before)


def test_a_vm_that_cannot_be_completed_is_removed(backed_up: World) -> None:
    before = backed_up.memory.disk_ids()
    backed_up.memory.fail("complete_vm", EngineRefused(act="attach a disk", words="No."), after=True)
    job = backed_up.restore(point_id(backed_up), "copy")
    assert (job.state, job.failure.code) == (JobState.FAILED, "engine-refused")
    assert_nothing_made(backed_up, before)


def test_a_vm_that_does_not_start_stays(backed_up: World) -> None:
    backed_up.memory.fail("start_vm", EngineRefused(act="start the VM", words="No host."))
    job = backed_up.restore(point_id(backed_up), "copy", start=True)
    assert job.state is JobState.FAILED
    assert "is kept, but could not be started" in job.failure.text
    assert restored(backed_up) is not None
    backed_up.assert_nothing_open()


def test_cancel_in_mid_copy_removes_what_was_made(backed_up: World) -> None:
    world = backed_up
    before = world.memory.disk_ids()
    world.mover.held = True
    job = world.start_restore(point_id(world), "copy")
    world.until(lambda: len(world.mover.received) == 2)
    world.controller.cancel(world.controller.job(job.id))
    job = world.finish(job)
    assert job.state is JobState.CANCELLED
    assert_nothing_made(world, before)


@pytest.mark.parametrize("method", ["create_disk", "start_transfer", "finalize_transfer", "create_vm", "disk_status"])
@pytest.mark.parametrize("after", [False, True])
def test_a_short_outage_is_survived(backed_up: World, method: str, after: bool) -> None:
    error = (
        Busy(act="x", words="later") if method == "create_vm" else EngineUnreachable(url="https://m", reason="reset")
    )
    backed_up.memory.fail(method, error, after=after)
    job = backed_up.restore(point_id(backed_up), "copy")
    assert succeeded(job) or method == "finalize_transfer", job.failure
    backed_up.assert_nothing_open()


def test_a_damaged_chain_is_told_before_anything_is_made(backed_up: World) -> None:
    world = backed_up
    [point] = world.repository.points()
    image = world.repository.root / world.repository.folder(point, "data-disk") / point.images[0].file
    image.write_bytes(b"not an image")
    job = world.restore(point.id, "copy")
    assert (job.state, job.failure.code) == (JobState.FAILED, "chain-broken")
    assert "create_disk" not in world.memory.calls
