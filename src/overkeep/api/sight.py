# SPDX-License-Identifier: GPL-3.0-or-later
"""Which events a caller may see: those of VMs that he may back up, and what concerns jobs and workloads of such VMs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from overkeep.controller.events import Event
from overkeep.controller.rights import Caller
from overkeep.controller.service import Controller
from overkeep.errors import NotFound

MOST_NAMED = 1000  # VMs of a caller that are named to the data base; of more, few rows are those of others


def few(shown: frozenset[str] | None) -> frozenset[str] | None:
    """The VMs that a caller is shown when they are few enough to be named to the data base."""
    return shown if shown is not None and len(shown) <= MOST_NAMED else None


class Sight:
    """What one caller sees. It remembers its answers, so it is for one call, or for a short time."""

    def __init__(self, controller: Controller, caller: Caller) -> None:
        self._controller = controller
        self._caller = caller
        self._shown = caller.shown()
        self._known: dict[tuple[str, str], bool] = {}

    def learn(self, events: Sequence[Event]) -> None:
        """Look at the jobs of many events at once, which is less work than at each by itself."""
        if self._shown is None:
            return
        ids = {event.about.job_id for event in events if event.about.job_id and not event.about.vm_id}
        vms = self._controller.ports.store.jobs.vm_ids([job_id for job_id in ids if ("job", job_id) not in self._known])
        for job_id, found in vms.items():
            self._known["job", job_id] = self._may_see(found)

    def sees(self, event: Event) -> bool:
        """Whether the event is shown. Of what concerns no VM, only administrators hear."""
        if self._caller.identity.admin:
            return True
        about = event.about
        if about.vm_id:
            return self._ask("vm", about.vm_id, lambda: [about.vm_id])
        if about.job_id:
            return self._ask("job", about.job_id, lambda: self._vms_of(about.job_id))
        if about.workload_id:
            return self._ask("workload", about.workload_id, lambda: self._workload_vms(about.workload_id))
        return False

    def _ask(self, kind: str, key: str, vms: Callable[[], Sequence[str]]) -> bool:
        if (kind, key) not in self._known:
            self._known[kind, key] = self._may_see(vms())
        return self._known[kind, key]

    def _may_see(self, vm_ids: Iterable[str]) -> bool:
        return self._caller.may_see_any(vm_ids, self._shown)

    def _vms_of(self, job_id: str) -> Sequence[str]:
        return self._controller.ports.store.jobs.vm_ids([job_id])[job_id]

    def _workload_vms(self, workload_id: str) -> list[str]:
        try:
            return [member.vm_id for member in self._controller.workload(workload_id).members]
        except NotFound:
            return []
