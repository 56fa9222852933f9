# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs in lists: what their rows say, with few statements for a page and without a value for each VM and disk."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from overkeep.controller.records import JobState
from overkeep.controller.store import schema as t
from overkeep.controller.store.among import is_among, texts_named

Told = dict[str, Any]
"""What a job says by the names of the fields of `Job`, `VmProgress` and `DiskProgress`; times and states are texts."""

_Row = tuple[Any, ...]
_HEAD = ("id", "kind", "state", "workload_id", "subject", "caller", "request", "created", "started", "ended")
_VM = ("job_id", "vm_id", "vm_name", "state", "phase", "point_id", "error_code", "error", "spent")
_DISK = ("job_id", "vm_id", "disk_id", "name", "mode", "reason", "state", "done", "total", "moved")
# Rows are taken apart by the places of their columns: to ask each for its names takes as long as all else.
LISTED = tuple(t.job.c[name] for name in (*_HEAD, "error_code", "error", "result", "cancel_requested"))
_FIRST = 64  # jobs whose VMs are read at once; then of as many as are likely to have
_AT_ONCE = 1500  # VMs

_VM_C, _DISK_C, _IDS = t.job_vm.c, t.job_disk.c, texts_named("ids")
_VMS = sa.select(*(_VM_C[name] for name in _VM)).where(is_among(_VM_C.job_id, _IDS)).order_by(_VM_C.vm_name)
_DISKS = sa.select(*(_DISK_C[name] for name in _DISK)).where(is_among(_DISK_C.job_id, _IDS)).order_by(_DISK_C.name)
_OVER = frozenset(str(state) for state in JobState if state.over)


class _Vms:
    """The VMs of the jobs of a list, read for some of them at a time when they are asked for."""

    def __init__(self, reader: sa.Engine, job_ids: Sequence[str]) -> None:
        self._reader = reader
        self._ids = job_ids
        self._read = 0
        self._found = 0
        self._known: dict[str, list[_Row]] = {}

    def of(self, job_id: str) -> Sequence[_Row]:
        """The rows of the VMs of one of the jobs, by their names; of jobs before it as well."""
        while job_id not in self._known:
            count = max(_FIRST, self._read * _AT_ONCE // max(1, self._found)) if self._read else _FIRST
            some = self._ids[self._read : self._read + count]
            self._known.update((each, []) for each in some)
            with self._reader.connect() as connection:
                for row in _rows(connection, _VMS, some):
                    self._known[row[0]].append(row)
                    self._found += 1
            self._read += len(some)
        return self._known[job_id]


class ListedJob(NamedTuple):
    """A job of a list; `row` has the columns `LISTED`."""

    id: str
    created: str
    state: str
    row: _Row
    rows_of: Callable[[str], Sequence[_Row]]

    @property
    def over(self) -> bool:
        """Whether its state is final."""
        return self.state in _OVER

    @property
    def vms(self) -> Sequence[_Row]:
        """The rows of its VMs, which are read when they are asked for."""
        return self.rows_of(self.id)

    @property
    def vm_ids(self) -> list[str]:
        """The ids of its VMs."""
        return [row[1] for row in self.vms]


def heads(reader: sa.Engine, connection: sa.Connection, query: sa.Select[Any]) -> tuple[ListedJob, ...]:
    """The jobs of the rows of a query, which has the columns `LISTED`, in its order; their VMs come from `reader`."""
    rows = [tuple(row) for row in connection.execute(query).all()]
    vms = _Vms(reader, [row[0] for row in rows])
    return tuple(ListedJob(row[0], row[7], row[2], row, vms.of) for row in rows)


def told(connection: sa.Connection, jobs: Sequence[ListedJob]) -> list[Told]:
    """What jobs say with their VMs and disks, these in the order of their names."""
    disks = _disks(_rows(connection, _DISKS, [job.id for job in jobs]))
    requests, results = _values(job.row[6] for job in jobs), _values(job.row[12] for job in jobs)
    found = []
    for (job_id, _, _, row, rows_of), request, result in zip(jobs, requests, results, strict=True):
        *head, code, error, _, cancel_requested = row
        one: Told = dict(zip(_HEAD, head, strict=True))
        one["request"] = request
        one["failure"] = {"code": code, "text": error}
        one["result"] = result
        one["cancel_requested"] = cancel_requested
        one["vms"] = [_vm(vm, disks) for vm in rows_of(job_id)]
        found.append(one)
    return found


def _vm(row: _Row, disks: dict[tuple[str, str], list[Told]]) -> Told:
    job_id, vm_id, name, state, phase, point_id, code, error, spent = row
    return {
        "vm_id": vm_id,
        "vm_name": name,
        "state": state,
        "phase": phase,
        "point_id": point_id,
        "failure": {"code": code, "text": error},
        "disks": disks.get((job_id, vm_id), ()),
        "spent": json.loads(spent) if spent else None,
    }


def _rows(connection: sa.Connection, query: sa.Select[Any], ids: Sequence[str]) -> Iterable[_Row]:
    return map(tuple, connection.execute(query, {"ids": ids}).all()) if ids else ()


def _values(texts: Iterable[str]) -> list[Any]:
    """The values of texts of JSON, which are read as one: that takes a fifth of the time of each by itself."""
    values: list[Any] = json.loads(f"[{','.join(texts)}]")
    return values


def _disks(rows: Iterable[_Row]) -> dict[tuple[str, str], list[Told]]:
    found: defaultdict[tuple[str, str], list[Told]] = defaultdict(list)
    for job_id, vm_id, disk_id, name, mode, reason, state, done, total, moved in rows:
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
