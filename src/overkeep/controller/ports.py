# SPDX-License-Identifier: GPL-3.0-or-later
"""What the workflows work with: the Manager, the movers, the targets, the data base, and their patience."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from overkeep.controller.movers.spread import Movers, Spread
from overkeep.controller.store import Store
from overkeep.controller.targets.configured import Targets
from overkeep.engine.api import Engine

_NAMESPACE = uuid.UUID("0c6ff6a4-6e0f-5f6b-9a0e-3f1d5a4be0c9")  # of the ids of backups; must never change
_MARK, _OF = "overkeep job ", " of repository "  # of the marks in the Manager, which a later version must know as well


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long what is waited for; all in seconds."""

    poll: float = 1.0  # between two looks at the Manager
    ready: float = 900.0  # a backup or a transfer becomes usable
    retry: float = 30.0  # the Manager does not answer, before anything is open
    release: float = 4 * 3600.0  # the Manager does not close what is open
    merge: float = 6 * 3600.0  # it merges the snapshot of a backup into the disks
    mover: float = 120.0  # a mover does not answer during a copy
    ticket: float = 30.0  # the Manager notices that a host lost a ticket; it looks every 1 to 10 s
    lease: float = 60.0  # a mover hears nothing and stops
    attempts: int = 3  # copies of one disk, each with a higher fence


@dataclass(frozen=True, kw_only=True)
class Ports:
    """The outside world of a job."""

    engine: Engine
    targets: Targets
    movers: Movers
    store: Store
    patience: Patience = field(default_factory=Patience)
    stopping: threading.Event = field(default_factory=threading.Event)
    hold: Callable[[], None] = lambda: None  # waits while this controller may be taken for dead; may raise `Stopping`

    @cached_property
    def spread(self) -> Spread:
        """Which host does what any can."""
        return Spread(self.engine, self.movers)

    def mark(self, job_id: str) -> str:
        """The description of everything a job makes in the Manager, by which the janitor knows it.

        The home repository tells installations apart that share a Manager, and outlives the data base.
        """
        return f"{_MARK}{job_id}{_OF}{self.targets.home}"

    def marked_job(self, description: str) -> str | None:
        """The job of this installation whose mark this is, or None."""
        job_id, of, repository = description.removeprefix(_MARK).partition(_OF)
        if not description.startswith(_MARK) or not of:
            return None
        return job_id if repository == self.targets.home else None


def backup_id(job_id: str, vm_id: str, attempt: int) -> str:
    """The id under which the Manager knows a backup: the same on every repeat of the step that starts it."""
    return str(uuid.uuid5(_NAMESPACE, f"{job_id}/{vm_id}/{attempt}"))
