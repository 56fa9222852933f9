# SPDX-License-Identifier: GPL-3.0-or-later
"""Restarts of the engine in the middle of acts: each is gone on with, once, and nothing stays locked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from ovirtsdk4 import types

Step = Callable[[Any, Any], object]
TIMEOUT = 30.0


def vm(lab: Any, system: Any, name: str = "db") -> Any:
    return system.vms_service().vm_service(lab.vm_id(name))


def disk(lab: Any, system: Any, alias: str = "db_system") -> Any:
    return system.disks_service().disk_service(lab.disk_id(alias))


def data2(system: Any) -> types.StorageDomain:
    return system.storage_domains_service().list(search="name=data2")[0]


def spare() -> types.Disk:
    return types.Disk(
        name="spare",
        format=types.DiskFormat.COW,
        provisioned_size=1 << 20,
        storage_domains=[types.StorageDomain(name="data")],
    )


def take(lab: Any, system: Any, name: str = "db") -> Any:
    """A snapshot of a VM, made."""
    snapshots = vm(lab, system, name).snapshots_service()
    made = snapshots.snapshot_service(snapshots.add(types.Snapshot(description="first")).id)
    lab.wait(lambda: made.get().snapshot_status == types.SnapshotStatus.OK and is_settled(lab))
    return made


def snapshots(lab: Any) -> list[str]:
    return [snapshot.description for snapshot in lab.engine.state.snapshots.values()]


def add_template(lab: Any, system: Any) -> Any:
    wanted = types.Template(name="golden", vm=types.Vm(name="db"))
    return system.templates_service().template_service(system.templates_service().add(wanted).id)


def make_template(lab: Any, system: Any) -> Any:
    template = add_template(lab, system)
    lab.wait(lambda: template.get().status == types.TemplateStatus.OK)
    return template


def add_from_template(lab: Any, system: Any) -> Any:
    wanted = types.Vm(name="web2", cluster=types.Cluster(name="Default"), template=types.Template(name="golden"))
    return system.vms_service().add(wanted)


def preview(lab: Any, system: Any) -> None:
    service = vm(lab, system)
    service.preview_snapshot(snapshot=types.Snapshot(id=service.snapshots_service().list()[1].id))


def is_settled(lab: Any) -> bool:
    """Whether nothing is locked, nor any job open."""
    state = lab.engine.state
    busy = [item for item in (*state.disks.values(), *state.snapshots.values()) if item.status == "locked"]
    on_its_way = [item for item in state.vms.values() if item.status not in ("up", "down", "suspended")]
    held = [item for item in state.vms.values() if state.locks.holder([("vm", item.id)])]
    open_jobs = [job for job in state.jobs.values() if job.status == "started"]
    making = [item for item in state.templates.values() if item.status == "locked"]
    return not (busy or on_its_way or held or open_jobs or making)


@dataclass(frozen=True, kw_only=True)
class Act:
    """What is begun, the host's verb that it waits in, and how it is known that it was done."""

    begin: Step
    verb: str
    done: Step
    code: int  # of the event at the end
    prepare: Step = lambda lab, system: None


def is_small(size: int) -> Step:
    return lambda lab, system: disk(lab, system).get().provisioned_size == size


ACTS = {
    "add disk": Act(
        begin=lambda lab, system: system.disks_service().add(spare()),
        verb="create_volume",
        done=lambda lab, system: lab.disk_id("spare"),
        code=2021,
    ),
    "remove disk": Act(
        begin=lambda lab, system: disk(lab, system).remove(),
        verb="delete_volume",
        done=lambda lab, system: not system.disks_service().list(search="alias=db_system"),
        code=2014,
    ),
    "extend disk": Act(
        begin=lambda lab, system: (
            vm(lab, system)
            .disk_attachments_service()
            .attachment_service(lab.disk_id("db_system"))
            .update(types.DiskAttachment(disk=types.Disk(provisioned_size=32 << 20)))
        ),
        verb="resize_volume",
        done=is_small(32 << 20),
        code=371,
    ),
    "copy disk": Act(
        begin=lambda lab, system: disk(lab, system).copy(storage_domain=data2(system), disk=types.Disk(alias="again")),
        verb="copy_volume",
        done=lambda lab, system: lab.disk_id("again"),
        code=2006,
    ),
    "move disk": Act(
        begin=lambda lab, system: disk(lab, system).move(storage_domain=data2(system)),
        verb="copy_volume",
        done=lambda lab, system: disk(lab, system).get().storage_domains[0].id == data2(system).id,
        code=2010,
    ),
    "sparsify disk": Act(
        begin=lambda lab, system: disk(lab, system).sparsify(),
        verb="copy_volume",
        done=lambda lab, system: disk(lab, system).get(),
        code=1326,
    ),
    "snapshot of a VM that is down": Act(
        begin=lambda lab, system: vm(lab, system).snapshots_service().add(types.Snapshot(description="first")),
        verb="create_overlay",
        done=lambda lab, system: snapshots(lab) == ["first"],
        code=68,
    ),
    "snapshot of a VM that runs": Act(
        begin=lambda lab, system: vm(lab, system, "web").snapshots_service().add(types.Snapshot(description="first")),
        verb="snapshot_vm",
        done=lambda lab, system: snapshots(lab) == ["first"],
        code=68,
    ),
    "merge in a VM that is down": Act(
        prepare=take,
        begin=lambda lab, system: (
            vm(lab, system).snapshots_service().snapshot_service(next(iter(lab.engine.state.snapshots))).remove()
        ),
        verb="merge_volumes",
        done=lambda lab, system: snapshots(lab) == [],
        code=356,
    ),
    "merge in a VM that runs": Act(
        prepare=lambda lab, system: take(lab, system, "web"),
        begin=lambda lab, system: (
            vm(lab, system, "web").snapshots_service().snapshot_service(next(iter(lab.engine.state.snapshots))).remove()
        ),
        verb="merge_live",
        done=lambda lab, system: snapshots(lab) == [],
        code=356,
    ),
    "preview of a snapshot": Act(
        prepare=take,
        begin=preview,
        verb="create_overlay",
        done=lambda lab, system: "Active VM before the preview" in snapshots(lab),
        code=71,
    ),
    "template of a VM": Act(
        begin=add_template,
        verb="copy_volume",
        done=lambda lab, system: system.templates_service().list(search="name=golden"),
        code=51,
    ),
    "VM from a template": Act(
        prepare=make_template,
        begin=add_from_template,
        verb="copy_volume",
        done=lambda lab, system: len(vm(lab, system, "web2").disk_attachments_service().list()) == 1,
        code=2006,
    ),
    "removal of a template": Act(
        prepare=make_template,
        begin=lambda lab, system: (
            system.templates_service()
            .template_service(system.templates_service().list(search="name=golden")[0].id)
            .remove()
        ),
        verb="delete_volume",
        done=lambda lab, system: not system.templates_service().list(search="name=golden"),
        code=251,
    ),
    "removal of a VM": Act(
        begin=lambda lab, system: vm(lab, system).remove(),
        verb="delete_volume",
        done=lambda lab, system: not system.vms_service().list(search="name=db"),
        code=113,
    ),
    "start of a VM": Act(
        begin=lambda lab, system: vm(lab, system).start(),
        verb="start_vm",
        done=lambda lab, system: vm(lab, system).get().status == types.VmStatus.UP,
        code=32,
    ),
    "suspension of a VM": Act(
        begin=lambda lab, system: vm(lab, system, "web").suspend(),
        verb="suspend_vm",
        done=lambda lab, system: vm(lab, system, "web").get().status == types.VmStatus.SUSPENDED,
        code=503,
    ),
    "end of a VM": Act(
        begin=lambda lab, system: vm(lab, system, "web").shutdown(),
        verb="stop_vm",
        done=lambda lab, system: vm(lab, system, "web").get().status == types.VmStatus.DOWN,
        code=61,
    ),
}


@pytest.fixture
def begin(lab: Any) -> Iterator[Callable[[Act], Future[object]]]:
    """Ask for an act in a thread: some requests are answered only when all is done."""
    connection = lab.connect()
    with ThreadPoolExecutor(1) as pool:
        yield lambda act: pool.submit(act.begin, lab, connection.system_service())
    connection.close()


@pytest.mark.parametrize("name", ACTS)
def test_an_act_goes_on_after_a_restart(name: str, lab: Any, system: Any, begin: Any) -> None:
    act = ACTS[name]
    act.prepare(lab, system)
    told = lab.codes().count(act.code)
    with lab.hold(act.verb) as hold:
        answer = begin(act)
        lab.wait(lambda: hold.calls)
        lab.run(lab.engine.restart())
        assert not is_settled(lab)
        assert lab.codes().count(act.code) == told
    answer.result(TIMEOUT)
    lab.wait(lambda: is_settled(lab) and lab.codes().count(act.code) == told + 1)
    assert act.done(lab, system)
    assert hold.calls == 1
    assert {job.status for job in lab.engine.state.jobs.values()} == {"finished"}


FAILURES = {
    "copy disk": 2007,
    "move disk": 2011,
    "snapshot of a VM that is down": 69,
    "snapshot of a VM that runs": 69,
    "template of a VM": 52,
    "preview of a snapshot": 99,
}


@pytest.mark.parametrize("name", FAILURES)
def test_an_act_that_fails_after_a_restart_is_undone(name: str, lab: Any, system: Any, begin: Any) -> None:
    act = ACTS[name]
    act.prepare(lab, system)
    before = (set(lab.engine.state.disks), snapshots(lab), disk(lab, system).get().image_id)
    with lab.hold(act.verb, failing=True) as hold:
        answer = begin(act)
        lab.wait(lambda: hold.calls)
        lab.run(lab.engine.restart())
    answer.result(TIMEOUT)
    lab.wait(lambda: is_settled(lab) and FAILURES[name] in lab.codes())
    assert (set(lab.engine.state.disks), snapshots(lab), disk(lab, system).get().image_id) == before
    assert act.code not in lab.codes()


@pytest.mark.parametrize("name", ["merge in a VM that is down", "merge in a VM that runs"])
def test_a_merge_that_fails_after_a_restart_can_be_tried_again(name: str, lab: Any, system: Any, begin: Any) -> None:
    act = ACTS[name]
    act.prepare(lab, system)
    with lab.hold(act.verb, failing=True) as hold:
        answer = begin(act)
        lab.wait(lambda: hold.calls)
        lab.run(lab.engine.restart())
    answer.result(TIMEOUT)
    lab.wait(lambda: is_settled(lab) and 357 in lab.codes())
    assert snapshots(lab) == ["first"]
    begin(act).result(TIMEOUT)
    lab.wait(lambda: is_settled(lab) and not snapshots(lab) and 356 in lab.codes())


def test_a_request_just_answered_is_not_forgotten(lab: Any, system: Any) -> None:
    for _ in range(5):
        vm(lab, system).start()
        lab.run(lab.engine.restart())
        lab.wait(lambda: vm(lab, system).get().status == types.VmStatus.UP)
        vm(lab, system).stop()
    lab.wait(lambda: is_settled(lab))
