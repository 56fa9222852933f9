# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep workload …` and `overkeep backup`."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from overkeep.api.documents import GivenTargetIn, JobOut, MovedOut, SnapshotIn, WorkloadIn, WorkloadOut
from overkeep.api.policy_documents import GivenPolicyIn, PlannedOut
from overkeep.cli import output
from overkeep.cli.client import Client
from overkeep.cli.follow import follow
from overkeep.cli.output import AsJson
from overkeep.errors import BadRequest

app = typer.Typer(no_args_is_help=True, help="Workloads: VMs that are backed up together.")

Name = Annotated[str, typer.Argument(metavar="WORKLOAD", help="Name or id of the workload.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Print the job's id and return at once.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the workload.")],
    vm: Annotated[list[str], typer.Option(help="Name or id of a VM; may be given several times.")],
    description: Annotated[str, typer.Option(help="For people.")] = "",
    target: Annotated[str | None, typer.Option(help="Target to back up to; else the first one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a workload."""
    asked = WorkloadIn(name=name, description=description, vms=tuple(vm), target=target)
    with Client() as client:
        made = client.post("/api/v1/workloads", WorkloadOut, asked)
    if as_json:
        output.documents(made)
    else:
        output.say(f"Workload {made.name} has {_members(made)} and is backed up to {made.target}.")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the workloads."""
    with Client() as client:
        found = client.all("/api/v1/workloads", WorkloadOut)
    if as_json:
        output.documents(found)
    else:
        output.table(("NAME", "VMS", "TARGET", "ID"), [(w.name, _members(w), w.target, w.id) for w in found])


@app.command()
def show(workload: Name, as_json: AsJson = False) -> None:
    """Show a workload."""
    with Client() as client:
        found = client.get(_path(workload), WorkloadOut)
        planned = client.get(f"{_path(workload)}/schedule", PlannedOut)
    if as_json:
        output.documents(found)
        return
    output.say(f"{found.name} ({found.id})")
    if found.description:
        output.say(found.description)
    output.say(f"It is backed up to {found.target}.")
    output.say(output.planned(planned))
    output.table(("VM", "ID"), [(member.vm_name, member.vm_id) for member in found.members])


@app.command()
def delete(workload: Name) -> None:
    """Forget a workload; its restore points stay on the target."""
    with Client() as client:
        client.delete(_path(workload))
    output.say(f"Workload {workload} is forgotten; its restore points stay on the target.")


@app.command("set-target")
def set_target(
    workload: Name,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Name of the target.")],
    as_json: AsJson = False,
) -> None:
    """Back a workload up to another target from its next backup on; its points stay where they are."""
    with Client() as client:
        moved = client.put(f"{_path(workload)}/target", MovedOut, GivenTargetIn(target=target))
    if as_json:
        output.documents(moved)
        return
    output.say(
        f"Workload {moved.workload.name} is backed up to {moved.workload.target}; its next backup is a full one."
    )
    for stay in moved.stay:
        told = "They can be restored from there, and its policy removes them as it would have."
        output.say(f"{stay.points} restore points stay on {stay.target}. {told}")
    for away in moved.away:
        output.complain(f"overkeep: Target {away.target}, which it had, cannot be read: {away.error}")


@app.command("set-policy")
def set_policy(
    workload: Name,
    policy: Annotated[str | None, typer.Argument(metavar="POLICY", help="Name or id of the policy.")] = None,
    none: Annotated[bool, typer.Option("--none", help="Take its policy away.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give a workload a policy; its runs count from now on."""
    if (policy is None) != none:
        raise BadRequest(what="Either a policy or --none is needed", todo="give one of them")
    with Client() as client:
        planned = client.put(f"{_path(workload)}/policy", PlannedOut, GivenPolicyIn(policy=policy))
    _tell_planned(planned, as_json=as_json)


@app.command()
def pause(workload: Name, as_json: AsJson = False) -> None:
    """Plan no runs of a workload; one that runs goes on."""
    with Client() as client:
        _tell_planned(client.post(f"{_path(workload)}/pause", PlannedOut), as_json=as_json)


@app.command()
def resume(workload: Name, as_json: AsJson = False) -> None:
    """Plan its runs again; those left out meanwhile are not made up for."""
    with Client() as client:
        _tell_planned(client.post(f"{_path(workload)}/resume", PlannedOut), as_json=as_json)


def backup(
    workload: Name,
    full: Annotated[bool, typer.Option("--full", help="Back up all data, not only what changed.")] = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> int:
    """Back up all VMs of a workload now."""
    with Client() as client:
        job = client.post(f"{_path(workload)}/snapshots", JobOut, SnapshotIn(full=full))
        if no_wait:
            output.documents(job) if as_json else output.say(job.id)
            return 0
        return follow(client, job, as_json=as_json)


def _path(workload: str) -> str:
    return f"/api/v1/workloads/{quote(workload, safe='')}"


def _tell_planned(planned: PlannedOut, *, as_json: bool) -> None:
    output.documents(planned) if as_json else output.say(output.planned(planned))


def _members(workload: WorkloadOut) -> str:
    return ", ".join(member.vm_name for member in workload.members)
