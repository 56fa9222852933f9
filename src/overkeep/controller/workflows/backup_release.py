# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of the backup of one VM, whatever became of it: all is closed, and its result is written down."""

from __future__ import annotations

import logging

from overkeep.controller.activities.exposure import Exposure
from overkeep.controller.activities.release import patiently, release_backup, watch_release
from overkeep.controller.activities.snapshots import try_to_remove_snapshots
from overkeep.controller.activities.steps import State, cancelled, failed
from overkeep.controller.records import JobState
from overkeep.controller.workflows.backup_steps import BackupSteps, commit_whole
from overkeep.controller.workflows.checkpoints import drop_old
from overkeep.controller.workflows.spent import spent_text
from overkeep.errors import OverkeepError
from overkeep.logs import fields
from overkeep.units import utc_now

_log = logging.getLogger(__name__)


class BackupRelease:
    """The effects that close what those of `BackupSteps` opened. Each may be repeated."""

    def __init__(self, steps: BackupSteps) -> None:
        self._steps = steps

    def release(self, state: State) -> State:
        """Close everything in the Manager and on the target that did not become a restore point.

        A point that a controller made just before it died is kept: the next one may have found its target away.
        """
        steps = self._steps
        steps.phase("releasing")
        exposure = watch_release(steps.ports, steps.job_id, steps.vm_id, spent=steps.watch.spent)
        found: State = {}

        def act() -> None:
            if perhaps_committed := "results" in state and "committed" not in state:
                self._find_target(exposure)
            draft = steps.draft(state) if "point_id" in state else None
            committed = draft is not None and draft.committed
            if draft is not None and committed and perhaps_committed:
                point = steps.point(state, draft)
                commit_whole(draft, point)
                found.update(steps.keep(point))
            release_backup(exposure, success=committed)
            if draft is not None and not committed:
                draft.abandon()

        left = patiently(exposure, act)
        if not left:
            try_to_remove_snapshots(exposure)
        made = {**state, **found}
        if "committed" in made and not left:
            here, targets = steps.target, steps.ports.targets
            drop_old(exposure, own=made["checkpoint"], points=lambda: targets.ask(here, steps.points_on))
        return {**found, **left, **steps.spent(state), "released_at": utc_now().isoformat()}

    def _find_target(self, exposure: Exposure) -> None:
        """See that what is looked for on the target can be found; when it is away the VM is freed before it is back.

        The checkpoint stays then: that of a point, if there is one.
        """
        try:
            self._steps.target.ready()
        except OverkeepError:
            release_backup(exposure, success=True)
            raise

    def close(self, state: State) -> State:
        """Write what became of the VM into the job."""
        steps, result = self._steps, JobState.SUCCEEDED
        if failed(state):
            result = JobState.CANCELLED if cancelled(state) else JobState.FAILED
        code, text = state.get("code", ""), state.get("error", "")
        if "open" in state:
            result, code, text = JobState.NEEDS_ATTENTION, "still-open", f"{text} {state['open']}".strip()
        steps.ports.store.jobs.set_vm(
            steps.job_id,
            steps.vm_id,
            state=result,
            phase="",
            error_code=code,
            error=text,
            busy=False,
            spent=spent_text(state, utc_now()),
        )
        _log.info("backup ended %s", fields(job=steps.job_id, vm=steps.vm_id, state=result, code=code or "none"))
        return {"state": result}
