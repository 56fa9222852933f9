# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep job …`."""

from __future__ import annotations

from typing import Annotated

import typer

from overkeep.api.documents import EventOut
from overkeep.api.job_documents import JobOut, SpentOut
from overkeep.cli import exits, output
from overkeep.cli.client import Client
from overkeep.cli.follow import begun, follow
from overkeep.cli.output import AsJson
from overkeep.cli.workloads import NoWait
from overkeep.controller.records import JobKind, JobState

app = typer.Typer(no_args_is_help=True, help="Jobs: backups, restores, removals and verifications.")

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.")]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest.")] = 30,
    state: Annotated[list[JobState] | None, typer.Option(help="Only in this state; several times.")] = None,
    kind: Annotated[list[JobKind] | None, typer.Option(help="Only of this kind; several times.")] = None,
    workload: Annotated[str | None, typer.Option(help="Only of this workload, by name or id.")] = None,
    vm: Annotated[str | None, typer.Option(help="Only with this VM, by name or id.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the newest jobs."""
    with Client() as client:
        found = client.first("/api/v1/jobs", JobOut, limit=limit, state=state, kind=kind, workload=workload, vm=vm)
    if as_json:
        output.documents(found)
        return
    rows = [(j.id, j.kind, j.subject, j.state, f"{j.created:%Y-%m-%d %H:%M:%S}Z", j.caller) for j in found]
    output.table(("JOB", "KIND", "OF", "STATE", "CREATED", "BY"), rows)


@app.command()
def show(job: JobId, as_json: AsJson = False) -> None:
    """Show a job with its VMs, disks and events."""
    with Client() as client:
        found = client.job(job)
        events = client.get(f"/api/v1/jobs/{job}/events", list[EventOut])
    if as_json:
        output.documents(found)
        return
    output.say(f"{found.kind} of {found.subject}: {found.state.replace('_', ' ')}")
    for vm in found.vms:
        output.say(f"{vm.vm_name}: {vm.waiting or vm.phase or vm.state} {vm.failure.text}".rstrip())
        for disk in vm.disks:
            output.say(f"  {output.disk_line(vm.vm_name, disk)} ({disk.reason})")
        if vm.spent is not None:
            output.say(f"  {_spent(vm.spent)}")
    for event in events:
        output.say(f"{event.time:%H:%M:%S} {event.level} {event.text}")
    if JobState(found.state).over:
        output.say(output.outcome(found))


def _spent(spent: SpentOut) -> str:
    parts = {
        "waiting for the Manager": spent.engine,
        "copying": spent.copying,
        "else": spent.other,
        "after its release": spent.after,
    }
    return f"took {sum(parts.values()):.1f} s: " + ", ".join(f"{value:.1f} s {name}" for name, value in parts.items())


@app.command("follow")
def follow_(job: JobId, as_json: AsJson = False) -> int:
    """Follow a job to its end; Ctrl-C cancels it."""
    with Client() as client:
        return follow(client, client.job(job), as_json=as_json)


@app.command()
def cancel(job: JobId, no_wait: NoWait = False, as_json: AsJson = False) -> int:
    """Cancel a job and wait until everything it opened is closed."""
    with Client() as client:
        begun(client, client.cancel(job), no_wait=no_wait, as_json=as_json)
        return exits.OK if no_wait or client.job(job).state == JobState.CANCELLED else exits.FAILED


@app.command()
def retry(job: JobId, no_wait: NoWait = False, as_json: AsJson = False) -> int:
    """Back up once more the VMs of an ended backup that did not succeed."""
    with Client() as client:
        again = client.post(f"/api/v1/jobs/{job}/retry", JobOut)
        return begun(client, again, no_wait=no_wait, as_json=as_json)
