# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep workload …` and `overkeep backup`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated
from urllib.parse import quote

import typer

from overkeep.api.job_documents import JobOut
from overkeep.api.policy_documents import GivenPolicyIn, PlannedOut
from overkeep.api.workload_documents import (
    ChoiceOut,
    ConsistencyDoc,
    GivenTargetIn,
    MovedOut,
    RulesDoc,
    SelectionIn,
    SnapshotIn,
    WorkloadIn,
    WorkloadOut,
)
from overkeep.cli import output
from overkeep.cli.client import Client
from overkeep.cli.follow import begun
from overkeep.cli.output import AsJson
from overkeep.errors import BadRequest
from overkeep.model.admission import MOST_SLOTS
from overkeep.model.consistency import LONGEST_FREEZE, Otherwise, Wanted

app = typer.Typer(no_args_is_help=True, help="Workloads: VMs that are backed up together.")

Name = Annotated[str, typer.Argument(metavar="WORKLOAD", help="Name or id of the workload.")]
Vms = Annotated[list[str] | None, typer.Option("--vm", help="Name or id of a VM; may be given several times.")]
Include = Annotated[
    list[str] | None,
    typer.Option(help="Rule that finds VMs: name=web-*, tag=prod, cluster=Default, property.backup=gold."),
]
Exclude = Annotated[list[str] | None, typer.Option(help="Rule that leaves out VMs which other rules find.")]
WithoutDisk = Annotated[
    list[str] | None, typer.Option(help="Disk that is not backed up: its name or id, as scratch* or db:scratch*.")
]
Parallel = Annotated[
    str | None, typer.Option(help="How many of its VMs are backed up at once: a number, or `all`; 1 is one by one.")
]
Wants = Annotated[
    Wanted | None, typer.Option("--consistency", help="How consistent points are to be: crash, file-system or group.")
]
Unreached = Annotated[Otherwise | None, typer.Option(help="When that cannot be reached: refuse, warn or accept.")]
FrozenAtMost = Annotated[
    int | None,
    typer.Option(min=1, max=LONGEST_FREEZE, help="Seconds for which the guests of a group are frozen at most."),
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Print the job's id and return at once.")]


class Dropped(StrEnum):
    """Kinds of rules, by the names of their options."""

    INCLUDE = "include"
    EXCLUDE = "exclude"
    WITHOUT_DISK = "without-disk"


@app.command()
def create(  # noqa: PLR0913 - the options of a command
    name: Annotated[str, typer.Argument(help="Name of the workload.")],
    vm: Vms = None,
    include: Include = None,
    exclude: Exclude = None,
    without_disk: WithoutDisk = None,
    description: Annotated[str, typer.Option(help="For people.")] = "",
    target: Annotated[str | None, typer.Option(help="Target to back up to; else the first one.")] = None,
    parallel: Parallel = None,
    consistency: Wants = None,
    unreached: Unreached = None,
    frozen_at_most: FrozenAtMost = None,
    as_json: AsJson = False,
) -> None:
    """Make a workload, of VMs that are named and of those that rules find before each run."""
    rules = _rules(include, exclude, without_disk)
    asked = WorkloadIn(
        name=name,
        description=description,
        vms=tuple(vm or ()),
        target=target,
        rules=rules,
        parallel=_parallel(parallel, None),
        consistency=_consistency(ConsistencyDoc(), consistency, unreached, frozen_at_most),
    )
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
    output.say(_said_together(found))
    output.say(_said_consistent(found.consistency))
    output.say(output.planned(planned))
    for words, texts in _said(found.rules):
        output.say(f"{words}: {', '.join(texts)}")
    rows = [(member.vm_name, member.vm_id, "rule" if member.by_rule else "named") for member in found.members]
    output.table(("VM", "ID", "BY"), rows)


@app.command()
def change(  # noqa: PLR0913 - the options of a command
    workload: Name,
    name: Annotated[str | None, typer.Option(help="Its new name.")] = None,
    description: Annotated[str | None, typer.Option(help="Its new description.")] = None,
    add_vm: Annotated[list[str] | None, typer.Option(help="Name or id of a VM that joins.")] = None,
    remove_vm: Annotated[list[str] | None, typer.Option(help="Name or id of a named VM that leaves.")] = None,
    include: Include = None,
    exclude: Exclude = None,
    without_disk: WithoutDisk = None,
    parallel: Parallel = None,
    consistency: Wants = None,
    unreached: Unreached = None,
    frozen_at_most: FrozenAtMost = None,
    drop: Annotated[list[Dropped] | None, typer.Option(help="Take all of these rules away.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change a workload; rules that are given take the place of all present ones of their kind."""
    with Client() as client:
        found = client.get(_path(workload), WorkloadOut)
        given = {Dropped.INCLUDE: include, Dropped.EXCLUDE: exclude, Dropped.WITHOUT_DISK: without_disk}
        present = dict(zip(Dropped, (found.rules.include, found.rules.exclude, found.rules.disks), strict=True))
        rules = [
            () if kind in (drop or ()) else tuple(texts) if (texts := given[kind]) else present[kind]
            for kind in Dropped
        ]
        asked = WorkloadIn(
            name=name or found.name,
            description=found.description if description is None else description,
            vms=_changed_vms(found, add_vm or (), remove_vm or ()),
            rules=RulesDoc(include=rules[0], exclude=rules[1], disks=rules[2]),
            parallel=_parallel(parallel, found.parallel),
            consistency=_consistency(found.consistency, consistency, unreached, frozen_at_most),
        )
        changed = client.put(_path(workload), WorkloadOut, asked, version=found.version)
    if as_json:
        output.documents(changed)
    else:
        output.say(f"Workload {changed.name} has {_members(changed)}.")


@app.command()
def preview(
    workload: Annotated[str | None, typer.Argument(metavar="[WORKLOAD]", help="Name or id of a workload.")] = None,
    vm: Vms = None,
    include: Include = None,
    exclude: Exclude = None,
    as_json: AsJson = False,
) -> None:
    """Show which VMs a workload would have now, one that is there or one that might be made."""
    with Client() as client:
        if workload is None:
            asked = SelectionIn(vms=tuple(vm or ()), rules=_rules(include, exclude, None))
        else:
            found = client.get(_path(workload), WorkloadOut)
            asked = SelectionIn(vms=_changed_vms(found, vm or (), ()), rules=found.rules)
        chosen = client.post("/api/v1/workloads/preview", list[ChoiceOut], asked)
    if as_json:
        output.documents(chosen)
    else:
        rows = [("yes" if c.taken else "no", c.vm_name, c.cluster, c.why, c.vm_id) for c in chosen]
        output.table(("TAKEN", "VM", "CLUSTER", "WHY", "ID"), rows)


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
        return begun(client, job, no_wait=no_wait, as_json=as_json)


def _path(workload: str) -> str:
    return f"/api/v1/workloads/{quote(workload, safe='')}"


def _tell_planned(planned: PlannedOut, *, as_json: bool) -> None:
    output.documents(planned) if as_json else output.say(output.planned(planned))


def _rules(include: list[str] | None, exclude: list[str] | None, disks: list[str] | None) -> RulesDoc:
    return RulesDoc(include=tuple(include or ()), exclude=tuple(exclude or ()), disks=tuple(disks or ()))


def _said(rules: RulesDoc) -> list[tuple[str, tuple[str, ...]]]:
    said = [
        ("VMs are found by", rules.include),
        ("VMs are left out by", rules.exclude),
        ("Without disks", rules.disks),
    ]
    return [(words, texts) for words, texts in said if texts]


def _parallel(text: str | None, before: int | None) -> int | None:
    """What was given for `--parallel`; what was before when nothing was."""
    if text is None:
        return before
    if text == "all":
        return None
    if text.isdecimal() and 1 <= int(text) <= MOST_SLOTS:
        return int(text)
    raise BadRequest(what=f"--parallel {text} cannot be", todo=f"give 1 to {MOST_SLOTS}, or all")


def _consistency(
    before: ConsistencyDoc, wanted: Wanted | None, otherwise: Otherwise | None, seconds: int | None
) -> ConsistencyDoc:
    given = {"wanted": wanted, "otherwise": otherwise, "frozen_at_most": seconds}
    return before.model_copy(update={name: value for name, value in given.items() if value is not None})


def _said_consistent(consistency: ConsistencyDoc) -> str:
    if consistency.wanted is Wanted.CRASH:
        return "Its points are crash consistent, or better."
    frozen = f", frozen for {consistency.frozen_at_most} s at most" if consistency.wanted is Wanted.GROUP else ""
    return f"Its points are to be {consistency.wanted} consistent{frozen}; if they cannot be: {consistency.otherwise}."


def _said_together(workload: WorkloadOut) -> str:
    if workload.parallel is None:
        return "Its VMs are backed up at once, as far as the limits let them."
    if workload.parallel == 1:
        return "Its VMs are backed up one after the other, in the order below."
    return f"{workload.parallel} of its VMs are backed up at once, as far as the limits let them."


def _changed_vms(workload: WorkloadOut, joins: Sequence[str], leaves: Sequence[str]) -> tuple[str, ...]:
    """The ids of the named VMs of a workload that stay, and those that join."""
    named = [member for member in workload.members if not member.by_rule]
    strangers = set(leaves) - {text for member in named for text in (member.vm_id, member.vm_name)}
    if strangers:
        told = ", ".join(sorted(strangers))
        raise BadRequest(what=f"{told} is not named in workload {workload.name!r}", todo="leave it out with --exclude")
    return (*(vm.vm_id for vm in named if not {vm.vm_id, vm.vm_name} & set(leaves)), *joins)


def _members(workload: WorkloadOut) -> str:
    return ", ".join(member.vm_name for member in workload.members)
