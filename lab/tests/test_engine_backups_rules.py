# SPDX-License-Identifier: GPL-3.0-or-later
"""Refusals of a backup, one rule at a time and in their order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from ovirtlab.engine.backups import rules
from ovirtlab.engine.backups.rules import BackupRequest
from ovirtlab.engine.clock import Clock
from ovirtlab.engine.entities.disks import Disk, DiskAttachment
from ovirtlab.engine.entities.infrastructure import Cluster, DataCenter, HostEntity, StorageDomain
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import Fault
from ovirtlab.engine.records import Backup, Checkpoint, Origin, Snapshot
from ovirtlab.engine.state import State

VM = "11111111-1111-4111-8111-111111111111"
DISK = "22222222-2222-4222-8222-222222222222"
CHECKPOINT = "33333333-3333-4333-8333-333333333333"
BACKUP = "44444444-4444-4444-8444-444444444444"
HOST = "55555555-5555-4555-8555-555555555555"
REQUEST = BackupRequest(vm_id=VM, disk_ids=(DISK,), origin=Origin())


@pytest.fixture
def state(tmp_path: Path) -> State:
    """A running VM with one qcow2 disk, on one host."""
    state = State(Clock(), seed=1)
    state.data_centers["dc"] = DataCenter(id="dc", name="Default")
    state.clusters["cl"] = Cluster(id="cl", name="Default", data_center_id="dc")
    state.storage_domains["sd"] = StorageDomain(id="sd", name="store", data_center_id="dc", path=tmp_path)
    state.hosts[HOST] = HostEntity(
        id=HOST, name="host-1", address="127.0.0.1", hw_id="hw", cluster_id="cl", imageio_port=1
    )
    state.vms[VM] = Vm(id=VM, name="web", cluster_id="cl", memory=1 << 30, status="up", host_id=HOST)
    state.disks[DISK] = Disk(
        id=DISK, image_id="i", alias="web_disk", provisioned_size=1 << 20, storage_domain_id="sd", path=tmp_path / "v"
    )
    state.attach(DiskAttachment(disk_id=DISK, vm_id=VM))
    return state


def running_backup(state: State, phase: str = "ready") -> None:
    now = state.clock.now()
    state.backups[BACKUP] = Backup(
        id=BACKUP, vm_id=VM, kind="live", creation_date=now, modification_date=now, phase=phase
    )


def checkpoint(state: State, *, condition: Literal["created", "invalid"] = "created") -> None:
    state.checkpoints[CHECKPOINT] = Checkpoint(
        id=CHECKPOINT, vm_id=VM, creation_date=state.clock.now(), state=condition
    )


def preview(state: State) -> None:
    state.snapshots["s"] = Snapshot(id="s", vm_id=VM, description="", date=state.clock.now(), type="preview")


def level(state: State, major: int, minor: int) -> None:
    state.clusters["cl"].level = (major, minor)


def set_vm(**fields: Any) -> Callable[[State], None]:
    def change(state: State) -> None:
        for name, value in fields.items():
            setattr(state.vms[VM], name, value)

    return change


def several(*changes: Callable[[State], None]) -> Callable[[State], None]:
    def change(state: State) -> None:
        for each in changes:
            each(state)

    return change


SINCE = {"from_checkpoint_id": CHECKPOINT}
CASES: list[tuple[str, Callable[[State], None], dict[str, Any], int, str]] = [
    ("hosted engine", set_vm(origin="managed_hosted_engine"), {}, 409, "Backup of Hosted Engine VM is not supported"),
    ("disk missing", lambda s: None, {"disk_ids": ("x",)}, 400, "The following disk(s) ID(s) does not exist: x."),
    (
        "disk locked",
        lambda s: setattr(s.disks[DISK], "status", "locked"),
        {},
        409,
        "Cannot backup VM: The following disks are locked: web_disk. Please try again in a few minutes.",
    ),
    (
        "disk not active",
        lambda s: setattr(s.vms[VM].attachments[DISK], "active", False),
        {},
        409,
        f"The following disks are not active on VM web: {DISK}",
    ),
    ("level without increments", lambda s: level(s, 4, 3), SINCE, 400, "Incremental backup is not supported."),
    ("no such checkpoint", lambda s: None, SINCE, 400, f"Checkpoint ID {CHECKPOINT} doesn't exist."),
    (
        "invalid checkpoint",
        lambda s: checkpoint(s, condition="invalid"),
        SINCE,
        400,
        f"Checkpoint ID {CHECKPOINT} is invalid and should be removed.",
    ),
    (
        "increment not enabled, old level",
        several(lambda s: level(s, 4, 4), checkpoint),
        SINCE,
        409,
        f"Incremental backup is disabled for the following disks: {DISK}.",
    ),
    (
        "mixture, old level",
        several(lambda s: level(s, 4, 4), checkpoint, lambda s: setattr(s.disks[DISK], "backup", "incremental")),
        SINCE,
        400,
        "The following disks are not included in the previous VM backup",
    ),
    ("paused", set_vm(status="paused"), {}, 409, "The Virtual Machine should be in Up or Down status."),
    ("preview", preview, {}, 409, "VM is previewing a Snapshot."),
    (
        "old host",
        lambda s: setattr(s.settings, "outdated_hosts", frozenset({HOST})),
        {},
        409,
        "Host (host-1) is running on a version lower than 4.4.5.",
    ),
    (
        "host without backup",
        lambda s: setattr(s.settings, "hosts_without_backup", frozenset({HOST})),
        {},
        409,
        "Backup is not supported by the host (host-1).",
    ),
    (
        "cold, old level",
        several(lambda s: level(s, 4, 4), set_vm(status="down", host_id="")),
        {},
        409,
        "Bitmaps operations are not supported.",
    ),
    ("during a backup", running_backup, {}, 409, "Cannot backup VM. The VM is during a backup operation."),
    (
        "long description",
        lambda s: None,
        {"description": "x" * 1025},
        400,
        "The VM backup description shouldn't contain more than 1024 characters.",
    ),
    (
        "known id",
        lambda s: running_backup(s, "succeeded"),
        {"id": BACKUP},
        400,
        f"The specified VM backup ID {BACKUP} already exists.",
    ),
]


@pytest.mark.parametrize(("change", "fields", "status", "text"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_refused(state: State, change: Callable[[State], None], fields: dict[str, Any], status: int, text: str) -> None:
    change(state)
    with pytest.raises(Fault) as refused:
        rules.check(state, replace(REQUEST, **fields))
    assert refused.value.status == status
    assert refused.value.detail.startswith("[Cannot backup VM")
    assert text in refused.value.detail


def test_nothing_to_refuse(state: State) -> None:
    checkpoint(state)
    rules.check(state, REQUEST)
    rules.check(state, replace(REQUEST, **SINCE, description="x" * 1024, id=BACKUP))
    set_vm(status="down", host_id="")(state)
    rules.check(state, REQUEST)


def test_the_first_rule_in_order_is_told(state: State) -> None:
    """A request that breaks many rules is told the one the engine looks at first, then the next."""
    request = replace(REQUEST, from_checkpoint_id=CHECKPOINT, description="x" * 2000)
    set_vm(status="paused")(state)
    running_backup(state)
    state.disks[DISK].status = "locked"
    assert "disks are locked" in refusal(state, request)
    state.disks[DISK].status = "ok"
    assert "doesn't exist" in refusal(state, request)
    checkpoint(state, condition="invalid")
    assert "is invalid" in refusal(state, request)
    state.checkpoints[CHECKPOINT].state = "created"
    assert "Up or Down" in refusal(state, request)
    state.vms[VM].status = "up"
    assert "during a backup" in refusal(state, request)
    state.backups.clear()
    assert "description" in refusal(state, request)


def refusal(state: State, request: BackupRequest) -> str:
    with pytest.raises(Fault) as refused:
        rules.check(state, request)
    return refused.value.detail


@pytest.mark.parametrize(
    ("why", "expected"),
    [
        (rules.DURING_BACKUP, "[Cannot backup VM. The VM is during a backup operation.]"),
        ("VM is locked. Please try again in a few minutes.", "[Cannot backup VM: VM is locked."),
    ],
)
def test_busy_vm_is_refused_before_all_rules(state: State, why: str, expected: str) -> None:
    with state.locks.take(exclusive=[("vm", VM)], why=why, action="Cannot run VM"), pytest.raises(Fault) as refused:
        rules.check_busy(state, REQUEST)
    assert refused.value.status == 409
    assert refused.value.detail.startswith(expected)
    rules.check_busy(state, REQUEST)


def test_busy_disk_is_refused(state: State) -> None:
    held = state.locks.take(exclusive=[("disk", DISK)], why=rules.DISK_LOCKED, action="Cannot transfer Virtual Disk")
    with held, pytest.raises(Fault, match="Cannot backup VM: Disk is locked"):
        rules.check_busy(state, REQUEST)
