from __future__ import annotations

import threading
import uuid

import pytest

from overkeep.blocks.errors import TargetMissing
from overkeep.controller.activities.exposure import Exposure
from overkeep.controller.durable import Stopping
from overkeep.controller.events import Kind
from overkeep.controller.ports import backup_id
from overkeep.controller.records import Held, HeldKind, Job, JobState
from overkeep.engine.api import BackupRequest, TransferRequest
from overkeep.engine.errors import EngineRefused
from overkeep.model.points import RestorePoint
from overkeep.repository.repository import Draft
from tests.controller.world import World, disk, succeeded, vm


def backup_job(world: World) -> Job:
    return world.start_backup()


def restore_job(world: World) -> Job:
    return world.start_restore(world.repository.points()[-1].id, "copy", start=True)


def calls_of(world: World, port: str, start) -> int:
    """How many calls one undisturbed job makes."""
    mortal = getattr(world, port)
    mortal.arm(0, after=False)
    assert succeeded(world.finish(start(world)))
    return mortal.calls


def die_and_go_on(world: World, port: str, at: int, *, after: bool, start) -> Job:
    """Let the controller die at a call of a port, start it again, and return how the job ended."""
    mortal = getattr(world, port)
    mortal.arm(at, after=after)
    job = start(world)
    world.until(lambda: mortal.died.is_set() or world.store.jobs.get(job.id).state.over)
    world.restart()
    return world.finish(job)


# Each fifth point of death here, all of them in the slow suite.
SOME = [pytest.param(5, id="some"), pytest.param(1, id="all", marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]


@pytest.mark.parametrize("every", SOME)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_backup_survives_a_death_at_any_call_of_the_manager(world: World, every: int, after: bool) -> None:
    world.add(vm("web", disk("root"), disk("data")))
    assert succeeded(world.back_up())
    total = calls_of(world, "engine", backup_job)
    assert total > 10
    for at in range(1 + int(after), total + 1, every):
        before = len(world.repository.points())
        job = die_and_go_on(world, "engine", at, after=after, start=backup_job)
        assert succeeded(job), (at, job.failure)
        assert len(world.repository.points()) == before + 1, at
        world.assert_nothing_open()
        world.assert_checkpoints_sound()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_backup_survives_a_death_at_any_call_of_a_mover(world: World, after: bool) -> None:
    world.add(vm("web", disk("root")))
    total = calls_of(world, "mortal_mover", backup_job)
    for at in range(1, total + 1):
        job = die_and_go_on(world, "mortal_mover", at, after=after, start=backup_job)
        assert succeeded(job), (at, job.failure)
        world.assert_nothing_open()
        world.assert_checkpoints_sound()
    for order in world.mover.received.values():
        assert order.fence == 1  # what was given is followed, not given again


@pytest.mark.parametrize("every", SOME)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_restore_survives_a_death_at_any_call_of_the_manager(world: World, every: int, after: bool) -> None:
    world.add(vm("web", disk("root", bootable=True), disk("data")))
    assert succeeded(world.back_up())
    total = calls_of(world, "engine", restore_job)
    for at in range(1 + int(after), total + 1, every):
        remove_copies(world)
        job = die_and_go_on(world, "engine", at, after=after, start=restore_job)
        assert succeeded(job), (at, job.failure)
        assert len(world.memory.named("copy")) == 1
        world.assert_nothing_open()


def remove_copies(world: World) -> None:
    for made in world.memory.named("copy"):
        world.memory.remove_vm(made.id)


@pytest.mark.parametrize("every", SOME)
def test_a_cancel_that_meets_a_death_leaves_nothing(world: World, every: int) -> None:
    world.add(vm("web", disk("root")))
    assert succeeded(world.back_up())
    total = calls_of(world, "engine", backup_job)
    for at in range(1, total + 1, every):
        world.engine.arm(at, after=True)
        job = world.start_backup()
        world.until(lambda job=job: world.engine.died.is_set() or world.store.jobs.get(job.id).state.over)
        world.store.jobs.request_cancel(job.id)
        world.restart()
        job = world.finish(job)
        assert job.state in (JobState.CANCELLED, JobState.SUCCEEDED), (at, job.failure)
        world.assert_nothing_open()
        world.assert_checkpoints_sound()


def test_a_checkpoint_goes_whose_backup_was_being_ended_when_its_controller_died(world: World) -> None:
    """The Manager tells of a checkpoint only while its backup is ready."""
    world.add(vm("web", disk("root")))
    assert succeeded(world.back_up())
    world.memory.slow.add("web-vm")
    world.engine.arm_at("finalize_backup", after=True)
    job = world.start_backup()
    world.until(lambda: world.memory.open_backups())
    world.store.jobs.request_cancel(job.id)
    world.until(lambda: world.phase(job, "releasing"))
    world.memory.slow.clear()
    world.until(world.engine.died.is_set)
    world.restart()
    assert world.finish(job).state is JobState.CANCELLED
    world.assert_nothing_open()
    world.assert_checkpoints_sound()


@pytest.mark.parametrize("cancelled", [False, True], ids=["goes on", "cancelled"])
def test_nothing_is_left_of_a_draft_whose_controller_died_right_behind_the_manifest(
    world: World, monkeypatch: pytest.MonkeyPatch, cancelled: bool
) -> None:
    world.add(vm("web", disk("root")))
    died = threading.Event()

    def dying(*_: object) -> None:
        died.set()
        raise Stopping

    with monkeypatch.context() as patched:
        patched.setattr(Draft, "_remove", dying)  # the manifest is there, and so is all that is not needed any more
        job = world.start_backup()
        world.until(died.is_set)
        world.stop()
    assert [path.name for path in world.left_on_target()] == ["draft.json"]
    if cancelled:
        world.store.jobs.request_cancel(job.id)
    world.restart()
    assert succeeded(world.finish(job))
    assert len(world.repository.points()) == 1
    world.assert_nothing_open()


@pytest.mark.parametrize("away", [False, True], ids=["cancelled", "and without the target"])
def test_a_point_that_was_made_when_its_controller_died_is_told_although_a_cancel_came(
    world: World, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    """The manifest is there, and nothing of the rest was written: a cancel that comes then is too late."""
    world.add(vm("web", disk("root")))
    died = threading.Event()
    commit = Draft.commit

    def dying(draft: Draft, point: RestorePoint) -> RestorePoint:
        commit(draft, point)
        died.set()
        raise Stopping

    with monkeypatch.context() as patched:
        patched.setattr(Draft, "commit", dying)
        job = world.start_backup()
        world.until(died.is_set)
        world.stop()
    world.store.jobs.request_cancel(job.id)
    root = world.repository.root
    if away:
        root.rename(root.with_name("away"))
    world.restart()
    if away:
        world.until(lambda: "is tried again" in world.texts(job))
        root.with_name("away").rename(root)
    ended = world.finish(job)
    assert succeeded(ended), ended.failure
    [point] = world.repository.points()
    assert ended.vms[0].point_id == point.id
    assert point.id in world.texts(job)
    world.assert_nothing_open()
    world.assert_checkpoints_sound()


def test_a_vm_is_freed_although_the_target_went_away_before_the_commit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether there is a point is known only when the target is back; the VM does not wait for that."""
    world.add(vm("web", disk("root")))
    assert succeeded(world.back_up())
    root = world.repository.root

    def failing(draft: Draft, point: RestorePoint) -> RestorePoint:
        root.rename(root.with_name("away"))
        raise TargetMissing(path=root)

    monkeypatch.setattr(Draft, "commit", failing)
    job = world.start_backup()
    world.until(lambda: "is tried again" in world.texts(job))
    assert world.memory.open_backups() == ()
    assert not world.store.jobs.get(job.id).state.over
    root.with_name("away").rename(root)
    ended = world.finish(job)
    assert ended.state is JobState.FAILED
    assert len(world.repository.points()) == 1
    world.assert_nothing_open()
    world.assert_checkpoints_sound()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_vm_that_was_begun_when_its_maker_died_goes_with_a_cancel(world: World, after: bool) -> None:
    """The Manager has the VM, without disks or with them, and nobody was told its id."""
    world.add(vm("web", disk("root")))
    assert succeeded(world.back_up())
    before = world.memory.disk_ids()
    world.memory.fail("complete_vm", Stopping(), after=after)
    job = restore_job(world)
    world.until(lambda: world.memory.named("copy"))
    world.stop()
    world.store.jobs.request_cancel(job.id)
    world.restart()
    assert world.finish(job).state is JobState.CANCELLED
    assert world.memory.named("copy") == ()
    assert world.memory.disk_ids() == before
    world.assert_nothing_open()


@pytest.mark.parametrize("away", [False, True], ids=["cancelled", "and without the target"])
def test_a_vm_that_was_made_whole_when_its_maker_died_stays(
    world: World, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    """All is there and written down as kept, and only the step's end was not: a cancel that comes then is too late."""
    world.add(vm("web", disk("root")))
    assert succeeded(world.back_up())
    died = threading.Event()
    tell = Exposure.tell

    def dying(exposure: Exposure, kind: Kind, text: str, **more: object) -> None:
        if kind is Kind.VM_RESTORED and not died.is_set():
            died.set()
            raise Stopping
        tell(exposure, kind, text, **more)

    monkeypatch.setattr(Exposure, "tell", dying)
    job = world.start_restore(world.repository.points()[-1].id, "copy")
    world.until(died.is_set)
    world.stop()
    world.store.jobs.request_cancel(job.id)
    if away:
        point = world.repository.root / "workloads"
        point.rename(point.with_name("away"))
    world.restart()
    ended = world.finish(job)
    assert succeeded(ended), ended.failure
    [made] = world.memory.named("copy")
    assert ended.result["vm_id"] == made.id
    assert len(made.disks) == 1
    assert "was restored" in world.texts(job)
    assert world.store.held.orphans() == ()


def test_a_vm_of_somebody_else_that_has_the_name_stays(world: World) -> None:
    world.add(vm("web", disk("root")))
    assert succeeded(world.back_up())
    world.memory.fail("create_vm", Stopping())
    job = restore_job(world)
    world.until(lambda: "create_vm" in world.memory.calls)
    world.stop()
    world.memory.add_vm(vm("copy", disk("theirs")))
    world.store.jobs.request_cancel(job.id)
    world.restart()
    assert world.finish(job).state is JobState.CANCELLED
    [theirs] = world.memory.named("copy")
    assert [d.id for d in theirs.disks] == ["theirs-disk"]
    world.assert_nothing_open()


def test_a_death_in_mid_copy_follows_the_order_that_runs(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.mover.held = True
    job = world.start_backup()
    world.until(lambda: world.mover.received)
    world.restart()
    world.mover.release()
    assert succeeded(world.finish(job))
    assert len(world.mover.received) == 1
    world.assert_nothing_open()


def test_a_mover_that_restarted_while_the_controller_was_dead(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.mover.held = True
    job = world.start_backup()
    world.until(lambda: world.mover.received)
    world.stop()
    world.mover.restart()
    world.mover.release()
    world.restart()
    assert succeeded(world.finish(job))
    assert [order.fence for order in world.mover.received.values()] == [1, 2]
    world.assert_nothing_open()


def test_a_job_that_never_reached_the_engine_is_submitted(world: World) -> None:
    world.add(vm("web", disk("root")))
    job = world.write_backup_job()
    world.restart()
    assert succeeded(world.finish(job))


def test_a_backup_that_came_late_is_closed_by_the_janitor(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.memory.fail("start_backup", EngineRefused(act="start", words="No."))
    job = world.back_up()
    assert job.state is JobState.FAILED
    late = backup_id(job.id, "web-vm", 1)
    world.memory.start_backup(
        BackupRequest(id=late, vm_id="web-vm", disk_ids=("root-disk",), from_checkpoint=None, description="x")
    )
    assert [left.ref for left in world.janitor.leftovers()] == [late]
    assert world.janitor.leftovers()  # looking changes nothing
    world.janitor.close_leftovers()
    world.assert_nothing_open()
    assert world.memory.checkpoints_made() == {}
    assert "left open" in world.texts(job)


@pytest.mark.parametrize("known", [False, True], ids=["unknown", "taken for closed"])
def test_an_access_that_came_after_the_janitor_looked_is_closed(world: World, known: bool) -> None:
    """A controller sleeps between writing an access down and opening it, and wakes when all has been cleaned up."""
    world.add(vm("web", disk("root")))
    world.memory.fail("start_backup", EngineRefused(act="start", words="No."))
    job = world.back_up()
    late = backup_id(job.id, "web-vm", 1)
    request = BackupRequest(
        id=late, vm_id="web-vm", disk_ids=("root-disk",), from_checkpoint=None, description=world.ports.mark(job.id)
    )
    world.memory.start_backup(request)
    held, what = world.store.held, {"job_id": job.id, "vm_id": "web-vm"}
    backup = Held(kind=HeldKind.BACKUP, ref=late, **what)
    held.add(backup)
    held.reopen(backup)
    if known:
        access = Held(kind=HeldKind.ACCESS, ref="root-disk", disk_id="root-disk", **what)
        held.add(access)
        held.release(access)
    world.until(lambda: world.memory.backup("web-vm", late).phase == "ready")
    world.memory.start_transfer(TransferRequest(disk_id="root-disk", upload=False, backup_id=late))
    world.janitor.close_leftovers()
    world.assert_nothing_open()
    assert world.memory.checkpoints_made() == {}


def test_an_access_that_was_only_written_down_late_takes_none_from_another_job(world: World) -> None:
    """Its controller slept just before it wrote it down, and woke when all of its job had been closed."""
    world.add(vm("web", disk("root")))
    world.memory.fail("start_backup", EngineRefused(act="start", words="No."))
    ended = world.back_up()
    late = Held(job_id=ended.id, kind=HeldKind.ACCESS, ref="root-disk", vm_id="web-vm", disk_id="root-disk")
    world.store.held.add(late)
    world.mover.held = True
    job = world.start_backup()
    world.until(lambda: world.mover.running())
    [transfer] = world.memory.open_transfers()
    world.janitor.close_leftovers()
    assert world.memory.open_transfers() == (transfer,)
    assert world.store.held.orphans() == ()
    world.mover.release()
    assert succeeded(world.finish(job))
    assert len(world.mover.received) == 1


def start_marked(world: World, vm_id: str, disk_id: str, mark: str) -> str:
    """Start a backup that the data base does not know, and read its disk."""
    backup, memory = str(uuid.uuid4()), world.memory
    memory.start_backup(
        BackupRequest(id=backup, vm_id=vm_id, disk_ids=(disk_id,), from_checkpoint=None, description=mark)
    )
    world.until(lambda: memory.backup(vm_id, backup).phase == "ready")
    memory.start_transfer(TransferRequest(disk_id=disk_id, upload=False, backup_id=backup))
    return backup


def test_a_backup_of_a_lost_data_base_is_closed_by_its_mark(world: World) -> None:
    """Neither its job nor its VM is in the data base; the target tells of both."""
    world.memory.add_vm(vm("web", disk("root")))
    world.repository.put_workload("w", name="demo", members={"web-vm": "web"})
    ours = start_marked(world, "web-vm", "root-disk", world.ports.mark("job-7"))
    assert [(left.ref, left.job_id) for left in world.janitor.leftovers()] == [(ours, "job-7")]
    world.janitor.close_leftovers()
    world.assert_nothing_open()
    assert world.memory.checkpoints_made() == {}
    assert world.janitor.leftovers() == ()


def test_the_checkpoint_of_a_point_survives_the_loss_of_the_data_base(world: World) -> None:
    world.add(vm("web", disk("root")))
    assert succeeded(world.back_up())
    [point] = world.repository.points()
    world.stop()
    world.lose_data_base()
    world.start()
    start_marked(world, "web-vm", "root-disk", world.ports.mark(point.job_id))
    world.janitor.close_leftovers()
    world.assert_nothing_open()
    assert point.checkpoint_id in world.memory.checkpoints_made()["web-vm"]


@pytest.mark.parametrize("mark", ["", "their own", "overkeep job 7", "overkeep job 7 of repository 0b7c"])
def test_backups_of_others_are_left_alone(world: World, mark: str) -> None:
    world.add(vm("web", disk("root")))
    theirs = start_marked(world, "web-vm", "root-disk", mark)
    assert world.janitor.leftovers() == ()
    world.janitor.round()
    assert [request.id for request in world.memory.open_backups()] == [theirs]
    assert len(world.memory.open_transfers()) == 1


def test_a_backup_whose_job_lives_is_left_alone(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.mover.held = True
    job = world.start_backup()
    world.until(lambda: world.mover.received)
    world.janitor.round()
    assert world.janitor.leftovers() == ()
    world.mover.release()
    assert succeeded(world.finish(job))


def test_a_draft_of_a_dead_job_is_swept_after_its_grace(world: World) -> None:
    draft = world.repository.begin("w", "v", point_id="20260101T000000Z-12345678", job_id="dead")
    world.janitor.sweep_drafts()
    assert len(world.repository.drafts()) == 1  # perhaps it only just began
    path = world.repository.root / "workloads/w/vms/v/points" / draft.point_id / "draft.json"
    path.write_text(path.read_text().replace(str(draft.created.year), "2020", 1))
    world.janitor.sweep_drafts()
    assert world.repository.drafts() == ()
