# SPDX-License-Identifier: GPL-3.0-or-later
"""Where everything of a lab lies in its directory. Names are short, as unix sockets lie below them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ovirtlab import ledger


def default_directory() -> Path:
    """Return the directory of a user's lab when none is named; on disk, as disks and backups can be large."""
    return Path("/var/tmp", f"ovirtlab-{os.getuid()}")  # noqa: S108 - made with mode 0700, and its owner is checked


def default_cache() -> Path:
    """Return where guest images and saved states are kept from one lab to the next."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ovirtlab"


@dataclass(frozen=True)
class Places:
    """The paths of one lab below its directory."""

    directory: Path

    @property
    def facts(self) -> Path:
        """`lab.json`, there when the lab is ready."""
        return self.directory / "lab.json"

    @property
    def log(self) -> Path:
        """The log of supervisor and Engine."""
        return self.directory / "supervisor.log"

    @property
    def control(self) -> Path:
        """The unix socket of the supervisor."""
        return self.directory / "control.sock"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.directory / "pki"

    @property
    def nfs(self) -> Path:
        """Settings and logs of the NFS server."""
        return self.directory / "nfs"

    def export(self, name: str) -> Path:
        """The folder that the NFS server gives out as `/name`."""
        return self.exports / name

    @property
    def exports(self) -> Path:
        """What the NFS server gives out."""
        return self.directory / "export"

    @property
    def storage(self) -> Path:
        """Storage domains, each a folder of its name."""
        return self.directory / "storage"

    @property
    def engine(self) -> Path:
        """What belongs to the Engine's machine."""
        return self.directory / "engine"

    def host(self, name: str) -> Path:
        """The folder of a host."""
        return self.directory / "h" / name

    def mount(self, name: str) -> Path:
        """Where the lab has mounted the target for a host, or for `controller`."""
        return self.directory / "mnt" / name

    def all(self) -> list[Path]:
        """Return what the lab makes directly in its directory; the ledger comes last."""
        folders = [self.pki, self.nfs, self.exports, self.storage, self.directory / "h", self.directory / "mnt"]
        files = [self.control, self.facts, self.log, self.directory / ledger.NAME]
        return [*folders, self.engine, *files]
