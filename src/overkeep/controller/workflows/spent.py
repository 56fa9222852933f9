# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the time of a backup went, summed up from what its steps hand on."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json

from overkeep.controller.activities.steps import State
from overkeep.controller.records import Spent

CARRIED = ("began", "waited")  # what an attempt hands on to the next one


def spent_text(state: State, ended: dt.datetime) -> str:
    """The column of a VM's row; empty for a backup that began before its time was counted."""
    if "released_at" not in state:
        return ""
    began, released = (dt.datetime.fromisoformat(state[name]) for name in ("began", "released_at"))
    engine, copying = float(state["waited"]), float(state.get("copied", 0.0))
    other = max(0.0, (released - began).total_seconds() - engine - copying)
    after = max(0.0, (ended - released).total_seconds())
    rounded = {name: round(value, 3) for name, value in {"other": other, "after": after}.items()}
    return json.dumps(dataclasses.asdict(Spent(engine=engine, copying=copying, **rounded)))
