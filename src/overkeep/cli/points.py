# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep points`, `overkeep point …` and `overkeep restore`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from overkeep.api.job_documents import JobOut
from overkeep.api.point_documents import PinIn, PointOut, RestoreIn, VerificationIn, VerificationOut
from overkeep.cli import exits, output
from overkeep.cli.client import Client
from overkeep.cli.follow import begun
from overkeep.cli.output import AsJson
from overkeep.cli.workloads import NoWait
from overkeep.units import human_size

app = typer.Typer(no_args_is_help=True, help="One restore point.")


def points(
    workload: Annotated[str | None, typer.Option(help="Only of this workload.")] = None,
    vm: Annotated[str | None, typer.Option(help="Only of this VM, by name or id.")] = None,
    target: Annotated[str | None, typer.Option(help="Only on this target.")] = None,
    as_json: AsJson = False,
) -> int:
    """List the restore points of all targets, oldest first, as they were last seen. Fails when a target is away."""
    with Client() as client:
        found, away = client.points(workload=workload, vm=vm, target=target)
    output.documents(found) if as_json else _show(found)
    complain_of(away)
    return exits.FAILED if away else exits.OK


def complain_of(away: Sequence[str]) -> None:
    """Say which targets cannot be read now: points on them are shown as they were last seen."""
    for name in away:
        output.complain(
            f"overkeep: Target {name} cannot be read now: its points are shown as they were last seen, and there may "
            f"be others; `overkeep target show {name}` says why."
        )


def _show(found: Sequence[PointOut]) -> None:
    rows = [
        (
            point.id,
            point.vm_name,
            point.target,
            f"{point.created:%Y-%m-%d %H:%M:%S}Z",
            point.mode,
            str(len(point.images)),
            human_size(sum(image.stored for image in point.images)),
            point.consistency or "-",
            _checked(point.verification),
            point.pin.reason if point.pin else "-",
        )
        for point in found
    ]
    output.table(
        ("POINT", "VM", "TARGET", "CREATED", "MODE", "DISKS", "STORED", "CONSISTENT", "VERIFIED", "PINNED"), rows
    )


def _checked(verification: VerificationOut | None) -> str:
    if verification is None:
        return "-"
    return f"sound ({verification.share:.0%})" if verification.sound else "NOT SOUND"


Point = Annotated[str, typer.Argument(metavar="POINT", help="Id of the restore point.")]
OfVm = Annotated[str | None, typer.Option("--vm", help="Which VM, when the point's id is that of several.")]
OnTarget = Annotated[str | None, typer.Option("--target", help="Which target, when the point was copied to several.")]


@app.command()
def pin(
    point: Point,
    reason: Annotated[str, typer.Option(help="Why it must stay; shown wherever the point is.")],
    vm: OfVm = None,
    target: OnTarget = None,
    as_json: AsJson = False,
) -> None:
    """Let a restore point stay, whatever its policy says, until it is unpinned."""
    with Client() as client:
        pinned = client.put(f"/api/v1/points/{point}/pin", PointOut, PinIn(reason=reason), vm=vm, target=target)
    output.documents(pinned) if as_json else output.say(f"Restore point {pinned.id} of {pinned.vm_name} is pinned.")


@app.command()
def unpin(point: Point, vm: OfVm = None, target: OnTarget = None) -> None:
    """Let a restore point go as its policy says: for who pinned it and for administrators."""
    with Client() as client:
        client.delete(f"/api/v1/points/{point}/pin", vm=vm, target=target)
    output.say(f"Restore point {point} is no longer pinned.")


@app.command()
def delete(
    point: Point,
    vm: OfVm = None,
    target: OnTarget = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")] = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> int:
    """Delete a restore point, wherever it is in its chain; the other points stay as they are."""
    with Client() as client:
        found = client.get(f"/api/v1/points/{point}", PointOut, vm=vm, target=target)
        if not yes:
            of = f"{found.vm_name} as it was at {output.instant(found.created)}"
            typer.confirm(f"Delete restore point {found.id} of {of} for good?", abort=True, err=True)
        job = client.begin_delete(f"/api/v1/points/{point}", vm=vm, target=found.target)
        return begun(client, job, no_wait=no_wait, as_json=as_json)


@app.command()
def verify(
    workload: Annotated[str, typer.Option(help="The workload whose points they are, by name or id.")],
    vm: Annotated[str, typer.Option(help="The VM whose points they are, by name or id.")],
    seconds: Annotated[float, typer.Option(min=0, max=86400, help="Begin nothing more after this time.")],
    share: Annotated[float, typer.Option(min=0, max=1, help="Read this share of the data of each point.")] = 1,
    target: Annotated[str | None, typer.Option(help="Points on this target; else on that of the workload.")] = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> int:
    """Check the restore points of a VM, those checked longest ago first, for as long as it may take."""
    asked = VerificationIn(workload=workload, vm=vm, target=target, share=share, seconds=seconds)
    with Client() as client:
        job = client.post("/api/v1/verifications", JobOut, asked)
        return begun(client, job, no_wait=no_wait, as_json=as_json)


def restore(  # noqa: PLR0913 - the options of a command
    point: Point,
    name: Annotated[str, typer.Option(help="Name of the new VM.")],
    vm: OfVm = None,
    target: OnTarget = None,
    cluster: Annotated[str | None, typer.Option(help="Cluster of the new VM; else that of the old one.")] = None,
    storage_domain: Annotated[str | None, typer.Option(help="Storage domain of all disks; else the old ones.")] = None,
    disk: Annotated[list[str] | None, typer.Option(help="Only this disk, by name or id; several times.")] = None,
    keep_macs: Annotated[bool, typer.Option("--keep-macs", help="Keep the MAC addresses of the old VM.")] = False,
    start: Annotated[bool, typer.Option("--start", help="Start the VM when it is restored.")] = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> int:
    """Restore a VM under a new name."""
    asked = RestoreIn(
        point=point,
        vm=vm,
        target=target,
        name=name,
        cluster=cluster,
        storage_domain=storage_domain,
        keep_macs=keep_macs,
        start=start,
        disks=tuple(disk) if disk else None,
    )
    with Client() as client:
        job = client.post("/api/v1/restores", JobOut, asked)
        return begun(client, job, no_wait=no_wait, as_json=as_json)
