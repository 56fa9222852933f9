# SPDX-License-Identifier: GPL-3.0-or-later
"""The backup of one VM: expose, copy, commit, and release on every exit."""

from __future__ import annotations

from typing import Any

from overkeep.controller.durable import Durable
from overkeep.controller.ports import Ports
from overkeep.controller.steps import State, failed
from overkeep.controller.workflows.backup_steps import BackupSteps
from overkeep.engine.errors import BackupFailed, CheckpointInvalid
from overkeep.mover.orders import NO_CHANGED_BLOCKS

NAME = "backup-vm"

# The Manager lost the checkpoint, or the whole chain of them: the same backup works as a full one.
_CURED_BY_FULL = (BackupFailed.code, CheckpointInvalid.code, NO_CHANGED_BLOCKS)


def workflow_id(job_id: str, vm_id: str) -> str:
    """Id of the workflow that backs up one VM of a job."""
    return f"{job_id}:{vm_id}"


def body(ports: Ports, job_id: str, vm_id: str, asked: dict[str, Any]) -> State:
    """Back one VM up; when its checkpoint turns out to be lost, once more in full.

    `asked` holds `workload_id` and `full`.
    """
    steps = BackupSteps(ports, job_id, vm_id, workload_id=asked["workload_id"], attempt=1)
    state = _run(steps, {"full": asked["full"]})
    if state.get("code") in _CURED_BY_FULL and state.get("incremental") and "open" not in state:
        Durable.step("go-full", steps.say_full, state)
        again = BackupSteps(ports, job_id, vm_id, workload_id=asked["workload_id"], attempt=2)
        state = _run(again, {"full": True})
    closed: State = Durable.step("close", steps.close, state)
    return closed


def _run(steps: BackupSteps, state: State) -> State:
    """Run the steps until one fails, and release what they opened in any case."""
    sequence = (
        ("plan", steps.plan),
        ("prepare", steps.prepare),
        ("start", steps.start),
        ("ready", steps.ready),
        ("copy", steps.copy),
        ("commit", steps.commit),
    )
    for name, act in sequence:
        state = {**state, **Durable.step(name, steps.safely(act), state)}
        if failed(state):
            break
    return {**state, **Durable.step("release", steps.release, state)}
