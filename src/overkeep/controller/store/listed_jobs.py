# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs in lists: what their rows say, with three statements for a page and without a value for each VM and disk."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from overkeep.controller.records import JobState
from overkeep.controller.store import schema as t
from overkeep.controller.store.among import is_among, texts_named

Told = dict[str, Any]
"""What a job says by the names of the fields of `Job`, `VmProgress` and `DiskProgress`; times and states are texts."""

_Rows = Sequence[sa.Row[Any]]
_HEAD = ("id", "kind", "state", "workload_id", "subject", "caller", "request", "created", "started", "ended")
_VM = ("job_id", "vm_id", "vm_name", "state", "phase", "point_id", "error_code", "error", "spent")
_DISK = ("job_id", "vm_id", "disk_id", "name", "mode", "reason", "state", "done", "total", "moved")
# Rows are taken apart by the places of their columns: to ask each for its names takes as long as all else.
LISTED = tuple(t.job.c[name] for name in (*_HEAD, "error_code", "error", "result", "cancel_requested"))


class ListedJob(NamedTuple):
    """A job of a list, so far without what there is to say of its VMs; `row` has the columns `LISTED`."""

    id: str
    created: str
    state: str
    vm_ids: Sequence[str]
    row: sa.Row[Any]

    @property
    def over(self) -> bool:
        """Whether its state is final."""
        return JobState(self.state).over


_VM_C, _DISK_C, _IDS = t.job_vm.c, t.job_disk.c, texts_named("ids")
_VM_IDS = sa.select(_VM_C.job_id, _VM_C.vm_id).where(is_among(_VM_C.job_id, _IDS))
_VMS = sa.select(*(_VM_C[name] for name in _VM)).where(is_among(_VM_C.job_id, _IDS)).order_by(_VM_C.vm_name)
_DISKS = sa.select(*(_DISK_C[name] for name in _DISK)).where(is_among(_DISK_C.job_id, _IDS)).order_by(_DISK_C.name)


def heads(connection: sa.Connection, query: sa.Select[Any]) -> tuple[ListedJob, ...]:
    """The jobs of the rows of a query, which has the columns `LISTED`, in its order."""
    rows = connection.execute(query).all()
    vm_ids: dict[str, list[str]] = {row[0]: [] for row in rows}
    for job_id, vm_id in map(tuple, _read(connection, _VM_IDS, list(vm_ids))):
        vm_ids[job_id].append(vm_id)
    return tuple(ListedJob(row[0], row[7], row[2], vm_ids[row[0]], row) for row in rows)


def told(connection: sa.Connection, jobs: Sequence[ListedJob]) -> list[Told]:
    """What jobs say with their VMs and disks, these in the order of their names."""
    ids = [job.id for job in jobs]
    disks = _disks(_read(connection, _DISKS, ids))
    vms: dict[str, list[Told]] = {job_id: [] for job_id in ids}
    for job_id, vm_id, name, state, phase, point_id, code, error, spent in map(tuple, _read(connection, _VMS, ids)):
        vms[job_id].append(
            {
                "vm_id": vm_id,
                "vm_name": name,
                "state": state,
                "phase": phase,
                "point_id": point_id,
                "failure": {"code": code, "text": error},
                "disks": disks.get((job_id, vm_id), ()),
                "spent": json.loads(spent) if spent else None,
            }
        )
    return [_told(tuple(job.row), vms[job.id]) for job in jobs]


def _read(connection: sa.Connection, query: sa.Select[Any], ids: list[str]) -> _Rows:
    return connection.execute(query, {"ids": ids}).all() if ids else ()


def _disks(rows: _Rows) -> dict[tuple[str, str], list[Told]]:
    found: defaultdict[tuple[str, str], list[Told]] = defaultdict(list)
    for job_id, vm_id, disk_id, name, mode, reason, state, done, total, moved in map(tuple, rows):
        found[job_id, vm_id].append(
            {
                "disk_id": disk_id,
                "name": name,
                "mode": mode,
                "reason": reason,
                "state": state,
                "done": done,
                "total": total,
                "moved": moved,
            }
        )
    return found


def _told(row: tuple[Any, ...], vms: list[Told]) -> Told:
    *head, code, error, result, cancel_requested = row
    told = dict(zip(_HEAD, head, strict=True))
    told["request"] = json.loads(told["request"])
    told["failure"] = {"code": code, "text": error}
    told["result"] = json.loads(result)
    told["cancel_requested"] = cancel_requested
    told["vms"] = vms
    return told
