# SPDX-License-Identifier: GPL-3.0-or-later
"""The backup target as the controller sees it: mounted, writable, and a repository."""

from __future__ import annotations

import threading

from overkeep.config import TargetConfig
from overkeep.repository.mounts import Mounts, require_writable
from overkeep.repository.repository import Repository


class Target:
    """One target. `ready` is called before each job: an NFS server that was down at the start may be back."""

    def __init__(self, settings: TargetConfig) -> None:
        self.name = settings.name
        self.repository = Repository(settings.mountpoint)
        self._mounts = Mounts((settings,))
        self._lock = threading.Lock()

    def ready(self) -> None:
        """Mount it if need be, and make it a repository if it is none.

        Raises the errors of `overkeep.repository.mounts` and `TargetReadOnly`.
        """
        root = self._mounts.ensure(self.name)
        require_writable(root)
        with self._lock:
            self.repository.create()
