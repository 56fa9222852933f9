# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup target as the controller sees it: mounted, the right repository, and writable."""

from __future__ import annotations

import threading
from pathlib import Path

from overkeep.config import WatchedTarget
from overkeep.controller.store.targets import TargetRows
from overkeep.errors import OverkeepError
from overkeep.model.capacity import Marks, Space
from overkeep.model.probes import Probe, Terms
from overkeep.repository.errors import RepositoryMissing
from overkeep.repository.identity import read_identity
from overkeep.repository.mounts import Mounts, require_writable, space_of
from overkeep.repository.probe import measure
from overkeep.repository.repository import Repository


class TargetDiffers(OverkeepError):
    """Behind the name of a target is another repository than it had, or none."""

    code = "target-differs"
    template = (
        "Target {target!r} at {path} holds {found} and held the repository {known} before: nothing is read or written "
        "there; mount the right export, or say `overkeep target accept {target}` if the change is meant."
    )
    status = 409


class Target:
    """One target. `readable` or `ready` is called before each use: an NFS server that was down may be back."""

    def __init__(self, settings: WatchedTarget, known: TargetRows) -> None:
        self.settings = settings
        self.name = settings.name
        self.marks = Marks(high=settings.alarm_percent, full=settings.stop_percent, reserve=settings.reserve)
        self.repository = Repository(settings.mountpoint)
        self._known = known
        self._mounts = Mounts((settings,))
        self._lock = threading.Lock()

    def readable(self) -> None:
        """Mount it if need be; a repository that may only be read is enough for lists and restores.

        Raises the errors of `ready`.
        """
        known = self._known.repository(self.name)  # before it is looked for: another thread may be making it
        root = self._mounts.ensure(self.name, repository=known or "")
        found = self.found_at(root)
        if found is None and known is None:
            self.ready()
            return
        if found != known:
            self._require_known(root, found)
        with self._lock:
            self.repository.open()

    def ready(self) -> None:
        """Mount it if need be, and make it a repository if it is none and never was one.

        Raises the errors of `overkeep.repository.mounts`, `TargetReadOnly` and `TargetDiffers`.
        """
        known = self._known.repository(self.name)  # first, as above
        root = self._mounts.ensure(self.name, repository=known or "")
        found = self.found_at(root)
        if found != known:
            self._require_known(root, found)
        require_writable(root)
        with self._lock:
            made = self.repository.create().id
        if made != known:
            self._known.remember(self.name, made)
            self._require_known(root, self.found_at(root))  # of two controllers that begin at once, one made it

    def space(self) -> Space:
        """What the file system at its root has; the target must be readable."""
        return space_of(self.settings.mountpoint)

    def measure(self, terms: Terms) -> Probe:
        """Try it out from this machine; raises the errors of `overkeep.repository.probe.measure`."""
        return measure(self._mounts, self.name, terms=terms, repository=self.known_repository)

    def accept(self) -> str:
        """Take the repository that is there now for that of the target, and return its id; made where there is none.

        Raises the errors of `ready` but `TargetDiffers`.
        """
        root = self._mounts.ensure(self.name)
        with self._lock:
            if self.found_at(root) is None:
                require_writable(root)
                self.repository.create()
            self._known.replace(self.name, self.repository.open().id)
            return self.repository.id

    def mounted(self) -> Path:
        """Mount it if need be and return its root, whatever repository is there; raises the errors of the mount."""
        return self._mounts.ensure(self.name)

    @property
    def known_repository(self) -> str:
        """The id of the repository that it has had since it was first used; empty before."""
        return self._known.repository(self.name) or ""

    @staticmethod
    def found_at(root: Path) -> str | None:
        """The id of the repository that is at `root` now."""
        try:
            return read_identity(root).id
        except RepositoryMissing:
            return None

    def _require_known(self, root: Path, found: str | None) -> None:
        """Raise `TargetDiffers` unless the repository is the one that is known; the first one seen is."""
        known = self._known.remember(self.name, found) if found else self._known.repository(self.name)
        if found != known:
            told = f"the repository {found}" if found else "no repository"
            raise TargetDiffers(target=self.name, path=root, found=told, known=known)
