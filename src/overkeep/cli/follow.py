# SPDX-License-Identifier: GPL-3.0-or-later
"""Following a job to its end: live on a terminal, a line every few seconds elsewhere; Ctrl-C cancels it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from overkeep.api.documents import EventOut
from overkeep.api.job_documents import JobOut
from overkeep.cli import exits, output
from overkeep.cli.client import Client
from overkeep.cli.exits import ControllerUnreachable
from overkeep.controller.records import JobState

PATIENCE = 60.0  # seconds for a controller that is being restarted
_LINE_EVERY = 3.0
_RETRY_PAUSE = 1.0

Show = Callable[[JobOut, list[EventOut]], None]


class LostSight(ControllerUnreachable):
    """The controller went away while a job was followed."""

    template = (
        "The controller does not answer any more ({reason}); job {job} goes on when it runs again: "
        "see it with `overkeep job show {job}`."
    )


def begun(client: Client, job: JobOut, *, no_wait: bool, as_json: bool) -> int:
    """End a command that has begun a job: tell its id at once, or follow it. Returns the exit status."""
    if not no_wait:
        return follow(client, job, as_json=as_json)
    output.documents(job) if as_json else output.say(job.id)
    return exits.OK


def follow(client: Client, job: JobOut, *, as_json: bool) -> int:
    """Follow a job to its end and return the exit status.

    The first Ctrl-C asks the controller to cancel the job and waits until everything is closed; the second leaves
    that to the controller.
    """
    interrupted = False
    with _shown(quiet=as_json) as show:
        try:
            job = _until_over(client, job, show)
        except KeyboardInterrupt:
            interrupted = True
            job = _cancel(client, job, show)
    if as_json:
        output.documents(job)
    elif JobState(job.state).over and not interrupted:
        _summary(job)
    if interrupted:
        return exits.INTERRUPTED
    return exits.OK if job.state == JobState.SUCCEEDED else exits.FAILED


def _cancel(client: Client, job: JobOut, show: Show) -> JobOut:
    output.complain(f"Cancelling job {job.id}: what it opened in the Manager is closed first.")
    try:
        if not JobState(client.job(job.id).state).over:
            client.cancel(job.id)
        job = _until_over(client, job, show)
    except KeyboardInterrupt:
        output.complain(f"The controller goes on cancelling job {job.id}; see it with `overkeep job show {job.id}`.")
        return job
    if job.state == JobState.NEEDS_ATTENTION:
        output.complain(output.outcome(job))
    else:
        output.complain(f"Job {job.id} ended as {job.state}; nothing of it is open any more.")
    return job


def _until_over(client: Client, job: JobOut, show: Show) -> JobOut:
    number, events = "", []  # type: str, list[EventOut]
    last_answer = time.monotonic()
    while True:
        reason = "its stream ended"
        try:
            for message in client.stream(f"/api/v1/jobs/{job.id}/stream", number=number):
                number, last_answer = message.number, time.monotonic()
                if message.kind == "event":
                    events.append(EventOut.model_validate_json(message.data))
                    continue
                job = JobOut.model_validate_json(message.data)
                show(job, events)
                events = []
                if JobState(job.state).over:
                    return job
        except ControllerUnreachable as error:
            reason = error.fields["reason"]
        if time.monotonic() - last_answer > PATIENCE:  # it is being restarted, or gone
            raise LostSight(reason=reason, job=job.id)
        time.sleep(_RETRY_PAUSE)


def _summary(job: JobOut) -> None:
    for vm in job.vms:
        for disk in vm.disks:
            output.say(f"  {output.disk_line(vm.vm_name, disk)} ({disk.reason})")
    (output.say if job.state == JobState.SUCCEEDED else output.complain)(output.outcome(job))


@contextmanager
def _shown(*, quiet: bool) -> Iterator[Show]:
    if quiet:
        yield lambda _job, _events: None
    elif sys.stdout.isatty():
        with Live(console=Console(highlight=False), refresh_per_second=4, transient=True) as live:
            yield lambda job, events: _show_live(live, job, events)
    else:
        yield _Lines().show


def _show_live(live: Live, job: JobOut, events: list[EventOut]) -> None:
    for event in events:
        live.console.print(Text(_event_line(event)))
    shown = Table(box=None, pad_edge=False, show_header=False)
    for vm in job.vms:
        shown.add_row(Text(f"{vm.vm_name}: {vm.waiting or vm.phase or vm.state}"))
        for disk in vm.disks:
            shown.add_row(Text(f"  {output.disk_line(vm.vm_name, disk)}"))
    live.update(shown)


class _Lines:
    """Progress for a log: events as they come, and what moves every few seconds."""

    def __init__(self) -> None:
        self._written = time.monotonic()
        self._last = ""

    def show(self, job: JobOut, events: list[EventOut]) -> None:
        for event in events:
            output.say(_event_line(event))
        if time.monotonic() - self._written < _LINE_EVERY:
            return
        running = [output.disk_line(vm.vm_name, disk) for vm in job.vms for disk in vm.disks if disk.state == "running"]
        phases = [f"{vm.vm_name}: {vm.phase}" for vm in job.vms if vm.phase and vm.phase != "copying"]
        waiting = [f"{vm.vm_name}: {vm.waiting}" for vm in job.vms if vm.waiting]
        more = [f"and {len(waiting) - 1} more VMs wait"] if len(waiting) > 1 else []
        text = "; ".join([*phases, *running, *waiting[:1], *more])
        if text and text != self._last:
            output.say(text)
            self._last = text
        self._written = time.monotonic()


def _event_line(event: EventOut) -> str:
    level = "" if event.level == "info" else f"{event.level}: "
    return f"{event.time:%H:%M:%S} {level}{event.text}"
