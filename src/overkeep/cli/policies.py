# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep policy …`."""

from __future__ import annotations

from collections import Counter
from typing import Annotated
from urllib.parse import quote

import typer
from pydantic import ValidationError

from overkeep.api.policy_documents import (
    ForesightOut,
    MarkOut,
    PolicyIn,
    PolicyOut,
    RetentionDoc,
    ScheduleDoc,
    VmMarksOut,
)
from overkeep.cli import output
from overkeep.cli.client import Client
from overkeep.cli.output import AsJson
from overkeep.cli.points import complain_of
from overkeep.cli.policy_options import PolicyOptions, with_policy_options
from overkeep.errors import BadRequest
from overkeep.units import human_size

app = typer.Typer(no_args_is_help=True, help="Policies: when workloads are backed up, and how long points stay.")

Name = Annotated[str, typer.Argument(metavar="POLICY", help="Name or id of the policy.")]


@app.command()
@with_policy_options
def create(
    name: Annotated[str, typer.Argument(help="Name of the policy.")], options: PolicyOptions, as_json: AsJson = False
) -> None:
    """Make a policy; give it to workloads with `overkeep workload set-policy`."""
    asked = _applied(options, PolicyIn(name=name))
    with Client() as client:
        made = client.post("/api/v1/policies", PolicyOut, asked)
    output.documents(made) if as_json else output.say(f"Policy {made.name} is made.")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the policies."""
    with Client() as client:
        found = client.all("/api/v1/policies", PolicyOut)
    if as_json:
        output.documents(found)
    else:
        output.table(("NAME", "RUNS", "KEEPS", "ID"), [(p.name, _runs(p), _keeps(p.retention), p.id) for p in found])


@app.command()
def show(policy: Name, as_json: AsJson = False) -> None:
    """Show a policy."""
    with Client() as client:
        found = client.get(_path(policy), PolicyOut)
    if as_json:
        output.documents(found)
        return
    output.say(f"{found.name} ({found.id})")
    if found.description:
        output.say(found.description)
    output.table(("WHAT", "HOW"), _rows(found))


@app.command()
@with_policy_options
def edit(
    policy: Name,
    options: PolicyOptions,
    name: Annotated[str | None, typer.Option(help="Its new name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change a policy; what is not given stays. With other schedules, runs count from now on."""
    with Client() as client:
        found = client.get(_path(policy), PolicyOut)
        before = PolicyIn(**found.model_dump(exclude={"id", "version"}))
        asked = _applied(options, before.model_copy(update={"name": name or found.name}))
        changed = client.put(_path(found.id), PolicyOut, asked, version=found.version)
    output.documents(changed) if as_json else output.say(f"Policy {changed.name} is changed.")


@app.command()
def delete(policy: Name) -> None:
    """Remove a policy that no workload has."""
    with Client() as client:
        client.delete(_path(policy))
    output.say(f"Policy {policy} is removed.")


@app.command()
def preview(
    policy: Name,
    workload: Annotated[
        str | None, typer.Option(help="Show instead what it would keep and remove of this workload now.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=3660, help="How many days are looked ahead.")] = 365,
    as_json: AsJson = False,
) -> None:
    """Show what a year of a policy keeps, or what it would do to a workload now; nothing is removed."""
    with Client() as client:
        if workload is not None:
            path = f"/api/v1/workloads/{quote(workload, safe='')}/retention"
            found, away = client.marks(path, policy=policy)
            _show_marks(found, as_json=as_json)
            complain_of(away)
            return
        seen = client.get(f"{_path(policy)}/preview", ForesightOut, days=days)
    if as_json:
        output.documents(seen)
        return
    output.say(f"After {seen.runs} runs, the last at {output.instant(seen.until)}, {len(seen.marks)} points are kept.")
    output.say(f"There are never more than {seen.most_points}.")
    months = Counter(f"{mark.created:%Y-%m}" for mark in seen.marks)
    output.table(("MONTH", "POINTS"), [(month, str(count)) for month, count in sorted(months.items(), reverse=True)])
    output.table(("POINT", "KEPT BECAUSE"), [(output.instant(mark.created), _why(mark)) for mark in seen.marks])


def _show_marks(found: list[VmMarksOut], *, as_json: bool) -> None:
    if as_json:
        output.documents(found)
        return
    rows = [
        (vm.vm_name, mark.id, output.instant(mark.created), "kept" if mark.kept else "removed", _why(mark))
        for vm in found
        for mark in vm.marks
    ]
    output.table(("VM", "POINT", "CREATED", "WOULD BE", "WHY"), rows)


def _applied(options: PolicyOptions, before: PolicyIn) -> PolicyIn:
    try:
        return options.applied(before)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise BadRequest(what=f"The policy is not valid ({faults})", todo="correct the options") from error


def _path(policy: str) -> str:
    return f"/api/v1/policies/{quote(policy, safe='')}"


def _why(mark: MarkOut) -> str:
    return "; ".join(mark.reasons)


def _runs(policy: PolicyOut) -> str:
    return "; ".join(schedule.when for schedule in policy.schedules) or "on demand"


def _keeps(retention: RetentionDoc) -> str:
    rules = retention.model_dump(exclude={"zone"})
    return ", ".join(f"{count} {name}" for name, count in rules.items() if count) or "everything"


def _rows(policy: PolicyOut) -> list[tuple[str, str]]:
    copying = policy.copying
    full = {None: "never", 0: "always"}.get(policy.full_every, f"after {policy.full_every} incrementals")
    level = f", level {copying.level}" if copying.compression != "none" else ""
    retries = f"{policy.retries}, after {policy.retry_wait} min" if policy.retries else "none"
    return [
        *(("runs", _schedule(schedule)) for schedule in policy.schedules),
        ("keeps", f"{_keeps(policy.retention)} ({policy.retention.zone})"),
        ("kind", policy.backup_kind),
        ("full backups", f"{full}; chains of at most {policy.longest_chain} images"),
        ("retries", retries),
        ("compression", f"{copying.compression}{level}"),
        ("clusters", human_size(copying.cluster_size)),
        ("bandwidth", f"{human_size(copying.bandwidth)}/s a disk" if copying.bandwidth else "no limit"),
        ("read back", f"{copying.read_back:.0%}"),
        ("verify", _verified(policy.verify)),
    ]


def _verified(share: float) -> str:
    if share in (0, 1):
        return "all of each new point" if share else "nothing"
    return f"{share:.3%} of each new point"


def _schedule(schedule: ScheduleDoc) -> str:
    limits = [
        "" if schedule.enabled else "switched off",
        f"from {schedule.start}" if schedule.start else "",
        f"until {schedule.end}" if schedule.end else "",
        f"only {', '.join(schedule.windows)}" if schedule.windows else "",
        f"not {', '.join(schedule.blackouts)}" if schedule.blackouts else "",
    ]
    return "; ".join([f"{schedule.when} ({schedule.zone})", *filter(None, limits)])
