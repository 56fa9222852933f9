# SPDX-License-Identifier: GPL-3.0-or-later
"""Which events a caller may see: those of VMs that he may back up, and what concerns jobs and workloads of such VMs."""

from __future__ import annotations

from collections.abc import Callable

from overkeep.controller.events import Event
from overkeep.controller.rights import Caller
from overkeep.controller.service import Controller
from overkeep.errors import NotFound


class Sight:
    """What one caller sees. It remembers its answers, so it is for one call, or for a short time."""

    def __init__(self, controller: Controller, caller: Caller) -> None:
        self._controller = controller
        self._caller = caller
        self._known: dict[tuple[str, str], bool] = {}

    def sees(self, event: Event) -> bool:
        """Whether the event is shown. Of what concerns no VM, only administrators hear."""
        if self._caller.identity.admin:
            return True
        about = event.about
        if about.vm_id:
            return self._ask("vm", about.vm_id, lambda: [about.vm_id])
        if about.job_id:
            return self._ask("job", about.job_id, lambda: self._job_vms(about.job_id))
        if about.workload_id:
            return self._ask("workload", about.workload_id, lambda: self._workload_vms(about.workload_id))
        return False

    def _ask(self, kind: str, key: str, vms: Callable[[], list[str]]) -> bool:
        if (kind, key) not in self._known:
            self._known[kind, key] = self._caller.may_see(vms())
        return self._known[kind, key]

    def _job_vms(self, job_id: str) -> list[str]:
        try:
            return [vm.vm_id for vm in self._controller.job(job_id).vms]
        except NotFound:
            return []

    def _workload_vms(self, workload_id: str) -> list[str]:
        try:
            return [member.vm_id for member in self._controller.workload(workload_id).members]
        except NotFound:
            return []
