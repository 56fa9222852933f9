# SPDX-License-Identifier: GPL-3.0-or-later
"""Which events a caller may see: those of VMs that he may back up, and what concerns jobs and workloads of such VMs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from overkeep.controller.rights import BACKUP, Caller
from overkeep.controller.service import Controller
from overkeep.errors import NotFound

MOST_NAMED = 1000  # VMs of a caller that are named to the data base; of more, few rows are those of others


def few(shown: frozenset[str] | None) -> frozenset[str] | None:
    """The VMs that a caller is shown when they are few enough to be named to the data base."""
    return shown if shown is not None and len(shown) <= MOST_NAMED else None


class About(Protocol):
    """What an event is about."""

    @property
    def vm_id(self) -> str: ...
    @property
    def job_id(self) -> str: ...
    @property
    def workload_id(self) -> str: ...


class Shown:
    """The VMs that the Manager shows a caller: it is asked about each of them once, and about no others.

    `vm_ids` are all of them; None for an administrator, who sees everything. It is for one call, or for a short time.
    """

    def __init__(self, caller: Caller) -> None:
        self.vm_ids = caller.shown()
        self._caller = caller
        self._known: dict[str, bool] = {}

    def any_of(self, vm_ids: Iterable[str]) -> bool:
        """Whether the caller may see what concerns these VMs: he has the right to back up one of them."""
        return self.vm_ids is None or any(self._sees(vm_id) for vm_id in vm_ids if vm_id in self.vm_ids)

    def _sees(self, vm_id: str) -> bool:
        known = self._known.get(vm_id)
        if known is None:
            known = self._known[vm_id] = self._caller.may(BACKUP, vm_id)
        return known


class Sight:
    """What one caller sees. It remembers its answers, so it is for one call, or for a short time."""

    def __init__(self, controller: Controller, caller: Caller) -> None:
        self._controller = controller
        self._shown = Shown(caller)
        self._known: dict[tuple[str, str], bool] = {}

    def learn(self, events: Sequence[About]) -> None:
        """Look at the jobs of many events at once, which is less work than at each by itself."""
        if self._shown.vm_ids is None:
            return
        ids = {about.job_id for about in events if about.job_id and not about.vm_id}
        for job_id, found in self._of_jobs([job_id for job_id in ids if ("job", job_id) not in self._known]).items():
            self._known["job", job_id] = self._shown.any_of(found)

    def sees(self, about: About) -> bool:
        """Whether an event is shown. Of what concerns no VM, only administrators hear."""
        if self._shown.vm_ids is None:
            return True
        if about.vm_id:
            return self._shown.any_of((about.vm_id,))
        if about.job_id:
            return self._ask("job", about.job_id, lambda: self._of_jobs([about.job_id])[about.job_id])
        if about.workload_id:
            return self._ask("workload", about.workload_id, lambda: self._workload_vms(about.workload_id))
        return False

    def _ask(self, kind: str, key: str, vms: Callable[[], Sequence[str]]) -> bool:
        if (kind, key) not in self._known:
            self._known[kind, key] = self._shown.any_of(vms())
        return self._known[kind, key]

    def _of_jobs(self, job_ids: Sequence[str]) -> dict[str, list[str]]:
        """The VMs of jobs that the caller is shown."""
        return self._controller.ports.store.jobs.vm_ids(job_ids, among=self._shown.vm_ids)

    def _workload_vms(self, workload_id: str) -> list[str]:
        try:
            return [member.vm_id for member in self._controller.workload(workload_id).members]
        except NotFound:
            return []
