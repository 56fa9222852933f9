# SPDX-License-Identifier: GPL-3.0-or-later
"""The backup of one VM: expose, copy, commit, and release on every exit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from overkeep.controller.activities.steps import State, failed
from overkeep.controller.durable import Durable
from overkeep.controller.ports import Ports
from overkeep.controller.workflows.backup_after import AfterBackup
from overkeep.controller.workflows.backup_release import BackupRelease
from overkeep.controller.workflows.backup_steps import BackupSteps, Wish
from overkeep.controller.workflows.spent import CARRIED
from overkeep.engine.errors import BackupFailed, CheckpointInvalid, TransferFailed
from overkeep.mover.orders import BACKING_MISSING, NO_CHANGED_BLOCKS

NAME = "backup-vm"

# What made an attempt fail, and why the changes that the Manager tracked are not used in the next one.
_CURED_BY_COMPARING = {
    BackupFailed.code: "the Manager failed the backup from its checkpoint",
    CheckpointInvalid.code: "the Manager refused the checkpoint of the last restore point",
    TransferFailed.code: "a disk could not be opened with the changes that the Manager tracked",
    NO_CHANGED_BLOCKS: "a disk did not tell what changed",
}
_CHECKPOINT_LOST = (CheckpointInvalid.code, TransferFailed.code, NO_CHANGED_BLOCKS)
_CURED_BY_FULL = (BACKING_MISSING,)

_WISH = TypeAdapter(Wish)


def workflow_id(job_id: str, vm_id: str) -> str:
    """Id of the workflow that backs up one VM of a job."""
    return f"{job_id}:{vm_id}"


def body(ports: Ports, job_id: str, vm_id: str, asked: dict[str, Any]) -> State:
    """Back one VM up; once more without what turned out to be lost, its checkpoint or its last restore point.

    `asked` holds `workload_id`, `target`, `full`, and the `terms` of the policy.
    """
    attempt, wish = 1, Wish(full=asked["full"])
    carried: State = {}
    while True:
        steps = BackupSteps(ports, job_id, vm_id, asked=asked, attempt=attempt)
        state = _run(steps, {**carried, "wish": _WISH.dump_python(wish)})
        state = {**state, **_look(steps, state)}
        cure = _cure(state, wish)
        if cure is None:
            break
        if not state.get("unfrozen"):  # that is told already
            told = {"error": state["error"], "code": state["code"], "full": cure.full}
            Durable.step("go-on", steps.say_instead, told)
        attempt, wish = attempt + 1, cure
        carried = {name: state[name] for name in CARRIED if name in state}
    after = AfterBackup(steps)
    if "committed" in state and "open" not in state and steps.terms.verify:
        state = {**state, **Durable.step("verify", after.verify, state)}
    closed: State = Durable.step("close", after.close, state)
    return closed


def _look(steps: BackupSteps, state: State) -> State:
    """What the guest says, after the failure of a backup that was to begin with a frozen guest."""
    never_began = state.get("code") == BackupFailed.code and "session" not in state and "open" not in state
    if not never_began or not state.get("frozen"):
        return {}
    seen: State = Durable.step("agent", steps.safely(steps.look_at_agent), state)
    return seen


def _cure(state: State, wish: Wish) -> Wish | None:
    """What to ask for instead after a failure; None when that would not help, or something is still open."""
    code = state.get("code", "")
    if "open" in state:
        return None
    if code == BackupFailed.code and state.get("unfrozen"):
        return replace(wish, unfrozen=state["unfrozen"])
    if code in _CURED_BY_COMPARING and state.get("tracked"):
        return replace(wish, untracked=_CURED_BY_COMPARING[code], lost=code in _CHECKPOINT_LOST)
    if code in _CURED_BY_FULL and state.get("incremental"):
        return replace(wish, full=True, untracked="")
    return None


def _run(steps: BackupSteps, state: State) -> State:
    """Run the steps until one fails, and release what they opened in any case."""
    sequence = (
        ("plan", steps.plan),
        ("start", steps.start),
        ("copy", steps.copy),
        ("commit", steps.commit),
    )
    for name, act in sequence:
        state = {**state, **Durable.step(name, steps.safely(act), state)}
        if failed(state):
            break
    if "committed" in state and not steps.terms.verify:
        return state  # nothing follows but the close, which releases first: each step has its price
    released: State = Durable.step("release", BackupRelease(steps).release, state)
    if "committed" in released:  # the point was there after all: what went wrong then is no failure
        state = {name: value for name, value in state.items() if name not in ("code", "error")}
    return {**state, "released": True, **released}
