# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs in lists: what their rows say, without a value for each VM and disk of a thousand jobs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from overkeep.controller.records import JobState
from overkeep.controller.store import schema as t

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


class JobReader:
    """Reads pages of jobs; of however many jobs with three statements."""

    def __init__(self, dialect: sa.Dialect) -> None:
        self._dialect = dialect
        among = _among_postgresql if dialect.name == "postgresql" else _among_sqlite
        vm, disk = t.job_vm.c, t.job_disk.c
        self._vm_ids = sa.select(vm.job_id, vm.vm_id).where(among(vm.job_id))
        self._vms = sa.select(*(vm[name] for name in _VM)).where(among(vm.job_id)).order_by(vm.vm_name)
        self._disks = sa.select(*(disk[name] for name in _DISK)).where(among(disk.job_id)).order_by(disk.name)

    def heads(self, connection: sa.Connection, query: sa.Select[Any]) -> tuple[ListedJob, ...]:
        """The jobs of the rows of a query, which has the columns `LISTED`, in its order."""
        rows = connection.execute(query).all()
        vm_ids: dict[str, list[str]] = {row[0]: [] for row in rows}
        for job_id, vm_id in map(tuple, self._read(connection, self._vm_ids, list(vm_ids))):
            vm_ids[job_id].append(vm_id)
        return tuple(ListedJob(row[0], row[7], row[2], vm_ids[row[0]], row) for row in rows)

    def told(self, connection: sa.Connection, jobs: Sequence[ListedJob]) -> list[Told]:
        """What jobs say with their VMs and disks, these in the order of their names."""
        ids = [job.id for job in jobs]
        disks = _disks(self._read(connection, self._disks, ids))
        vms: dict[str, list[Told]] = {job_id: [] for job_id in ids}
        for job_id, vm_id, name, state, phase, point_id, code, error, spent in map(
            tuple, self._read(connection, self._vms, ids)
        ):
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

    def _read(self, connection: sa.Connection, query: sa.Select[Any], ids: list[str]) -> _Rows:
        given = ids if self._dialect.name == "postgresql" else json.dumps(ids)
        return connection.execute(query, {"ids": given}).all() if ids else ()


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


def _among_postgresql(column: sa.Column[Any]) -> sa.ColumnElement[bool]:
    """Whether a column has one of any number of texts, which are one parameter: many are slow to put together."""
    return column == sa.any_(sa.bindparam("ids", type_=postgresql.ARRAY(sa.Text)))


def _among_sqlite(column: sa.Column[Any]) -> sa.ColumnElement[bool]:
    each = sa.func.json_each(sa.bindparam("ids", type_=sa.Text)).table_valued("value")
    return column.in_(sa.select(each.c.value))
