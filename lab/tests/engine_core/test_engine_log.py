# SPDX-License-Identifier: GPL-3.0-or-later
"""Events, jobs and tags: what the engine writes down, and what others write into it."""

from typing import Any

import ovirtsdk4 as sdk
import pytest
from ovirtsdk4 import types


def event_of(**changes: Any) -> types.Event:
    fields = {
        "origin": "backup",
        "severity": types.LogSeverity.WARNING,
        "custom_id": 1,
        "description": "backup of web took long",
    }
    return types.Event(**{**fields, **changes})


def test_newest_first_and_from(lab: Any, system: Any) -> None:
    events = system.events_service().list()
    indexes = [int(event.id) for event in events]
    assert indexes == sorted(indexes, reverse=True)
    last = indexes[0]
    lab.engine.state.events.add(42, "normal", "one more")
    assert [event.description for event in system.events_service().list(from_=last)] == ["one more"]
    assert system.events_service().list(from_=last + 1) == []


def test_free_text_search_finds_an_id_in_the_message(lab: Any, system: Any) -> None:
    backup_id = "12345678-2222-4333-8444-555555555555"
    lab.engine.state.events.add(10790, "normal", f"Backup {backup_id} for VM web started (User: admin).")
    lab.engine.state.events.add(10793, "normal", f"Backup {backup_id} for VM web completed successfully (User: admin).")
    found = system.events_service().list(search=backup_id)
    assert [event.code for event in found] == [10793, 10790]


def test_external_event(lab: Any, system: Any) -> None:
    event = system.events_service().add(event_of(vm=types.Vm(id=lab.vm_id("web"))))
    assert (event.code, event.origin, event.custom_id) == (9802, "backup", 1)
    assert event.vm.id == lab.vm_id("web")
    with pytest.raises(sdk.Error, match="custom id already exists") as error:
        system.events_service().add(event_of())
    assert error.value.code == 400
    system.events_service().add(event_of(origin="other"))
    assert len(system.events_service().list(search="origin=backup")) == 1


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"origin": "oVirt"}, "Illegal origin"),
        ({"origin": None}, "required for add"),
        ({"vm": types.Vm(id="99999999-2222-4333-8444-555555555555")}, "does not exist"),
    ],
)
def test_refused_external_event(system: Any, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(sdk.Error, match=text):
        system.events_service().add(event_of(**changes))


def test_jobs_by_correlation_id(lab: Any, system: Any) -> None:
    disk_id = lab.disk_id("db_system")
    system.disks_service().disk_service(disk_id).update(
        types.Disk(provisioned_size=32 << 20), headers={"Correlation-Id": "my-job"}
    )
    lab.wait(lambda: system.jobs_service().list(search="correlation_id=my-job"))
    job = system.jobs_service().list(search="correlation_id=my-job", follow="steps")[0]
    lab.wait(lambda: system.jobs_service().job_service(job.id).get().status == types.JobStatus.FINISHED)
    assert job.description == "Extending Disk db_system"
    assert job.steps[0].type == types.StepEnum.EXECUTING
    with pytest.raises(sdk.Error) as error:
        system.jobs_service().list(search="status=started")
    assert error.value.code == 400


def test_tags(lab: Any, system: Any) -> None:
    tag = system.tags_service().add(types.Tag(name="gold", description="daily"))
    with pytest.raises(sdk.Error, match="already exists"):
        system.tags_service().add(types.Tag(name="gold"))
    web = system.vms_service().vm_service(lab.vm_id("web"))
    web.tags_service().add(types.Tag(name="gold"))
    assert [item.name for item in web.tags_service().list()] == ["gold"]
    assert [vm.name for vm in system.vms_service().list(search="tag=gold")] == ["web"]
    web.tags_service().tag_service(tag.id).remove()
    assert system.vms_service().list(search="tag=gold") == []
    system.tags_service().tag_service(tag.id).remove()
    assert [item.name for item in system.tags_service().list()] == ["root"]


def test_a_job_of_another_program(system: Any) -> None:
    """It adds steps, ends them and the job; the engine's own jobs are not for others."""
    jobs = system.jobs_service()
    made = jobs.add(types.Job(description="copy to tape", external=True, auto_cleared=False))
    assert (made.external, made.auto_cleared, made.status) == (True, False, types.JobStatus.STARTED)
    job = jobs.job_service(made.id)
    steps = job.steps_service()
    for name in ("read", "write"):
        steps.add(types.Step(description=name, type=types.StepEnum.UNKNOWN, external=True))
    first, second = steps.list()
    assert (first.description, first.external, first.status) == ("read", True, types.StepStatus.STARTED)
    steps.step_service(first.id).end(succeeded=False)
    assert steps.step_service(first.id).get().status == types.StepStatus.FAILED
    job.end(succeeded=True)
    assert job.get().status == types.JobStatus.FINISHED
    assert [step.status for step in steps.list()] == [types.StepStatus.FAILED, types.StepStatus.FINISHED]
    job.clear()
    with pytest.raises(sdk.NotFoundError):
        job.get()
    assert second.number == 1
