# SPDX-License-Identifier: GPL-3.0-or-later
"""`overkeep scheduler …`."""

from __future__ import annotations

import typer

from overkeep.api.policy_documents import SchedulerOut
from overkeep.cli import output
from overkeep.cli.client import Client
from overkeep.cli.output import AsJson

app = typer.Typer(no_args_is_help=True, help="The scheduler: what runs next, and its switch.")


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show what is planned for each workload."""
    with Client() as client:
        _show(client.get("/api/v1/scheduler", SchedulerOut), as_json=as_json)


@app.command()
def pause(as_json: AsJson = False) -> None:
    """Plan no runs of any workload; those that run go on."""
    with Client() as client:
        _show(client.post("/api/v1/scheduler/pause", SchedulerOut), as_json=as_json)


@app.command()
def resume(as_json: AsJson = False) -> None:
    """Plan runs again; those left out meanwhile are not made up for."""
    with Client() as client:
        _show(client.post("/api/v1/scheduler/resume", SchedulerOut), as_json=as_json)


def _show(found: SchedulerOut, *, as_json: bool) -> None:
    if as_json:
        output.documents(found)
        return
    output.say(f"The scheduler {'is paused' if found.paused else 'runs'}.")
    rows = [
        (
            planned.workload,
            planned.policy or "-",
            "yes" if planned.paused else "no",
            output.instant(planned.next_run) if planned.next_run else "-",
            planned.told,
        )
        for planned in found.workloads
    ]
    output.table(("WORKLOAD", "POLICY", "PAUSED", "NEXT RUN", "LAST"), rows)
