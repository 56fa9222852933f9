# SPDX-License-Identifier: GPL-3.0-or-later
"""The dispatcher: it lets waiting VMs begin within the limits, and gives the job engine what was decided."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from overkeep.controller.activities.steps import JobCancelled
from overkeep.controller.desks.waits import waits
from overkeep.controller.durable import Durable, Stopping
from overkeep.controller.events import About, Draft, Kind
from overkeep.controller.ports import Ports
from overkeep.controller.records import JobKind
from overkeep.controller.store.admission import Line
from overkeep.controller.store.turns import Turn
from overkeep.controller.workflows import backup, backup_vm, removal, restore, verification
from overkeep.errors import OverkeepError
from overkeep.logs import fields
from overkeep.model.admission import Limits

SHORT_QUEUE = "jobs"  # workflows that only look and write: jobs are opened and closed
WORK_QUEUE = "vms"  # what has its slots; limited by these alone
QUEUES = {SHORT_QUEUE: 16, WORK_QUEUE: 0}  # as many begin at each look of the engine

PASSED_BY = 300.0  # seconds for which the first of a line is passed by before slots are kept for it
_IDLE = 1.0  # seconds between two rounds without news: another controller may have some
_BREATH = 0.25  # and at least, however many news there are
_SHARE = 3.0  # lengths of a round that one which left nothing undone rests: deciding must not cost more than backups
_LONGEST_BREATH = 0.75  # seconds of such a rest at most
_BATCH = 20  # jobs or VMs that one round gives to the engine: those that wait for it are not to wait long

_log = logging.getLogger(__name__)


class Dispatcher:
    """Runs in a thread of its own. Every controller has one; what they decide, one at a time does.

    All that it decides is written down before it is done, and what is done twice has no effect, so that it may die at
    any instant and another go on.
    """

    def __init__(self, ports: Ports, durable: Durable, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ports = ports
        self._store = ports.store
        self._durable = durable
        self._clock = clock
        self._heads: dict[tuple[str, ...], tuple[str, float]] = {}  # the first of each line, and since when it is
        self._closing: set[str] = set()
        self._more = False  # a round left something undone that it may do at once
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """End after the present round."""
        self._stop.set()
        self._store.admission.news.set()
        self._thread.join()

    def round(self) -> None:
        """Do everything once."""
        self._more = False
        self._open_jobs()
        self._end_cancelled()
        begun = self._store.admission.round(self._overdue)
        if begun:
            _log.info("admitted %s", fields(vms=len(begun)))
        self._give_turns()
        self._tell_who_waits()
        self._close_jobs()

    def _open_jobs(self) -> None:
        jobs = self._store.turns.unopened(limit=_BATCH)
        for job_id in jobs:
            self._durable.submit(backup.NAME, job_id, job_id, queue=SHORT_QUEUE)
        self._store.turns.opened(jobs)
        self._go_on_if(len(jobs) == _BATCH)

    def _end_cancelled(self) -> None:
        if not self._store.admission.is_any_cancelled():
            return
        self._store.admission.free_cancelled()
        ended = self._store.jobs.end_waiting(lambda job_id: JobCancelled(what=f"Job {job_id}"), limit=_BATCH)
        self._go_on_if(ended == _BATCH)

    def _give_turns(self) -> None:
        turns = self._store.turns.admitted(limit=_BATCH)
        for turn in turns:
            give(self._durable, turn)
        self._store.turns.given(turns)
        self._go_on_if(len(turns) == _BATCH)

    def _tell_who_waits(self) -> None:
        untold = self._store.turns.untold(limit=_BATCH)
        if not untold:
            return
        jobs = [self._store.jobs.get(job_id) for job_id in untold]
        reasons = waits(self._store, [job.id for job in jobs if not job.state.over])
        told: list[Draft] = []
        for job in jobs:
            why = next((text for vm in job.vms if (text := reasons.why(job.id, vm.vm_id))), "")
            if why:
                count = untold[job.id]
                what = f"VM {job.vms[0].vm_name!r} is" if len(job.vms) == 1 else f"{count} of {len(job.vms)} VMs are"
                about = About(job_id=job.id, workload_id=job.workload_id)
                told.append(Draft(kind=Kind.JOB_WAITS, text=f"{what} {why}", about=about, fields={"waiting": count}))
        self._store.events.add(*told)
        self._store.turns.told(untold)

    def _close_jobs(self) -> None:
        done = set(self._store.turns.done())
        self._closing &= done
        for job_id in sorted(done - self._closing)[:_BATCH]:
            self._durable.submit(backup.CLOSE, backup.closing_id(job_id), job_id, queue=SHORT_QUEUE)
            self._closing.add(job_id)

    def _overdue(self, lines: Sequence[Line], limits: Limits) -> frozenset[str]:
        """The ranks of the first ones of lines that have been that for too long, but for what is closed."""
        now = self._clock()
        before, self._heads = self._heads, {}
        for line in lines:
            first, since = before.get(line.needs, ("", now))
            closed = any(limits.of(need).closed for need in line.needs)
            self._heads[line.needs] = (line.first, since if first == line.first and not closed else now)
        return frozenset(first for first, since in self._heads.values() if now - since >= PASSED_BY)

    def _go_on_if(self, more: bool) -> None:
        if more:
            self._more = True
            self._store.admission.news.set()

    def _run(self) -> None:
        news = self._store.admission.news
        while not self._stop.is_set():
            news.clear()
            began = time.monotonic()
            try:
                self.round()
            except Stopping:
                return
            except OverkeepError as error:
                _log.warning("dispatcher: %s", error)
            except Exception:  # noqa: BLE001 - the outermost loop of a thread: logged, and the next round comes
                _log.exception("the dispatcher's round failed")
            self._stop.wait(_BREATH if self._more else breath(time.monotonic() - began))
            news.wait(_IDLE)


_ALONE = {
    JobKind.RESTORE: restore.NAME,
    JobKind.REMOVAL: removal.NAME,
    JobKind.VERIFICATION: verification.NAME,
}
"""The workflow of each kind of job that is of one VM."""


def breath(took: float) -> float:
    """How long the dispatcher waits, whatever happens, after a round that took so long; both in seconds."""
    return min(max(_BREATH, _SHARE * took), _LONGEST_BREATH)


def give(durable: Durable, turn: Turn) -> None:
    """Give the work on a VM to the job engine; what it knows already is left as it is."""
    args: tuple[Any, ...]
    if turn.kind is JobKind.BACKUP:
        name, args = backup_vm.NAME, (turn.job_id, turn.vm_id, dict(turn.agreed))
    else:
        name = _ALONE[turn.kind]
        args = (turn.job_id, dict(turn.request))
    durable.submit(name, workflow_id(turn), *args, queue=WORK_QUEUE)


def workflow_id(turn: Turn) -> str:
    """The id under which the job engine knows the work on a VM."""
    return backup_vm.workflow_id(turn.job_id, turn.vm_id) if turn.kind is JobKind.BACKUP else turn.job_id
