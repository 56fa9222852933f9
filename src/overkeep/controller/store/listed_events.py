# SPDX-License-Identifier: GPL-3.0-or-later
"""Events in lists: what their rows say, without a value for each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from overkeep.controller.store import schema as t

Told = dict[str, Any]
"""What an event says by the names of the fields of `Event` and `About`; time and level are texts."""

_NAMES = (
    *("seq", "time", "kind", "level", "text", "job_id", "workload_id", "vm_id", "vm_name", "point_id", "target"),
    *("host", "caller", "fields"),
)
_SEQ, _JOB, _WORKLOAD, _VM, _FIELDS = map(_NAMES.index, ("seq", "job_id", "workload_id", "vm_id", "fields"))
LISTED = tuple(t.event.c[name] for name in _NAMES)


class ListedEvent(NamedTuple):
    """An event of a list, and what it is about; `row` has the columns `LISTED`."""

    seq: int
    job_id: str
    workload_id: str
    vm_id: str
    row: tuple[Any, ...]


def listed(rows: Iterable[sa.Row[Any]]) -> list[ListedEvent]:
    """The events of rows with the columns `LISTED`, which are taken apart by their places."""
    return [ListedEvent(row[_SEQ], row[_JOB], row[_WORKLOAD], row[_VM], row) for row in map(tuple, rows)]


def told(events: Sequence[ListedEvent]) -> list[Told]:
    """What events say."""
    # all texts of JSON are read as one: that takes a fifth of the time of each by itself
    fields = json.loads(f"[{','.join(event.row[_FIELDS] for event in events)}]")
    found = [dict(zip(_NAMES, event.row, strict=True)) for event in events]
    for one, each in zip(found, fields, strict=True):
        one["fields"] = each
    return found
