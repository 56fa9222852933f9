# SPDX-License-Identifier: GPL-3.0-or-later
"""The backup target as the controller sees it: mounted, writable, and a repository."""

from __future__ import annotations

import threading

from overkeep.config import TargetConfig
from overkeep.repository.errors import RepositoryMissing
from overkeep.repository.mounts import Mounts, require_writable
from overkeep.repository.repository import Repository


class Target:
    """One target. One of its two methods is called before each use: an NFS server that was down may be back."""

    def __init__(self, settings: TargetConfig) -> None:
        self.name = settings.name
        self.repository = Repository(settings.mountpoint)
        self._mounts = Mounts((settings,))
        self._lock = threading.Lock()

    def readable(self) -> None:
        """Mount it if need be; a repository that may only be read is enough for lists and restores.

        Raises the errors of `ready`.
        """
        self._mounts.ensure(self.name)
        try:
            with self._lock:
                self.repository.open()
        except RepositoryMissing:
            self.ready()

    def ready(self) -> None:
        """Mount it if need be, and make it a repository if it is none.

        Raises the errors of `overkeep.repository.mounts` and `TargetReadOnly`.
        """
        root = self._mounts.ensure(self.name)
        require_writable(root)
        with self._lock:
            self.repository.create()
