# SPDX-License-Identifier: GPL-3.0-or-later
"""What the commands print: tables for people, JSON for scripts, sentences on standard error."""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from overkeep.api.job_documents import DiskProgressOut, JobOut
from overkeep.api.policy_documents import PlannedOut
from overkeep.units import human_size

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


_UNLIMITED = 10_000  # columns, where nobody looks: a script must find an id in one piece


def say(text: str) -> None:
    """A line on standard output."""
    typer.echo(text)


def complain(text: str) -> None:
    """A line on standard error."""
    typer.echo(text, err=True)


def documents(found: BaseModel | Sequence[BaseModel]) -> None:
    """Print documents of the API as JSON."""
    value: Any = (
        found.model_dump(mode="json")
        if isinstance(found, BaseModel)
        else [document.model_dump(mode="json") for document in found]
    )
    say(json.dumps(value, indent=2))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; names of users hold anything, so no mark-up is read from cells."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    wide = None if sys.stdout.isatty() else _UNLIMITED
    Console(file=sys.stdout, highlight=False, width=wide).print(shown)


def planned(found: PlannedOut) -> str:
    """What is planned for a workload, in one sentence."""
    if not found.policy:
        return f"Workload {found.workload} has no policy."
    if found.paused:
        return f"Workload {found.workload} has policy {found.policy}; it is paused."
    when = instant(found.next_run) if found.next_run else "none"
    return f"Workload {found.workload} has policy {found.policy}; next run: {when}."


def instant(time: dt.datetime) -> str:
    """A time, in UTC."""
    return f"{time.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}Z"


def disk_line(vm_name: str, disk: DiskProgressOut) -> str:
    """One disk of a job in one line: mode, bytes, reason."""
    far = human_size(disk.done) + (f" of {human_size(disk.total)}" if disk.total else "")
    percent = f" ({100 * disk.done // disk.total} %)" if disk.total and disk.done <= disk.total else ""
    return f"{vm_name}/{disk.name}: {disk.mode}, {disk.state}, {far}{percent}, {human_size(disk.moved)} moved"


def outcome(job: JobOut) -> str:
    """How a job ended, in one sentence."""
    what = f"{job.kind.capitalize()} of"
    if job.failure.text:
        return f"{what} {job.subject} {job.state.replace('_', ' ')}: {job.failure.text}"
    if "checked" in job.result:
        looked = f"{job.result['checked']} of {job.result['total']} restore points were checked"
        return f"{what} {job.subject} {job.state.replace('_', ' ')}: {looked}."
    moved = sum(disk.moved for vm in job.vms for disk in vm.disks)
    spent = f" in {(job.ended - job.started).total_seconds():.1f} s" if job.started and job.ended else ""
    return f"{what} {job.subject} {job.state.replace('_', ' ')}{spent}, {human_size(moved)} moved."
