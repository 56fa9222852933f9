# SPDX-License-Identifier: GPL-3.0-or-later
"""Policies: when workloads are backed up, how, and how long their restore points stay."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Literal

from overkeep.model.points import LONGEST_CHAIN, BackupKind
from overkeep.model.retention import Retention
from overkeep.model.schedule import Schedule

Compression = Literal["none", "zstd"]
ClusterSize = Literal[65536, 131072, 262144, 524288, 1048576, 2097152]


@dataclass(frozen=True, kw_only=True)
class Copying:
    """How disks are copied into images.

    `bandwidth` limits each disk, in bytes a second (0: no limit); `cluster_size` is in bytes, and images of one chain
    may differ in it; `read_back` is the share of a new image, 0 to 1, that is read from the target again and compared.
    """

    bandwidth: int = 0
    compression: Compression = "none"
    level: int = 2
    cluster_size: ClusterSize = 65536
    read_back: float = 0.01


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What of a policy a backup carries out; these are those of a workload that has none."""

    backup_kind: BackupKind = BackupKind.LEGACY
    copying: Copying = field(default_factory=Copying)
    full_every: int | None = None
    longest_chain: int = LONGEST_CHAIN
    verify: float = 0
    retention: Retention = field(default_factory=Retention)

    def why_full(self, *, chain: int, since_full: int | None) -> str:
        """Why a disk is backed up in full; empty when an incremental will do.

        `chain` is the number of images of the last point's chain. Where nobody told how many incrementals there were
        since the last full backup, it is taken for their number.
        """
        longest = min(self.longest_chain, LONGEST_CHAIN)
        if chain >= longest:
            return f"its chain has reached {chain} images"
        since = chain - 1 if since_full is None else since_full
        if self.full_every is not None and since >= self.full_every:
            return f"the policy asks for a full backup after {since} incrementals" if since else _ALWAYS_FULL
        return ""


_ALWAYS_FULL = "the policy asks for full backups"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What an administrator lays down for workloads.

    `full_every` is the number of incrementals after which a full backup follows: None for never, 0 for always.
    `longest_chain` is the number of images that the chain of a disk may have. `verify` is the share of a new point's
    data, 0 to 1, that is read and compared once it is made. A scheduled run that fails is tried again
    `retries` times for the VMs that failed, `retry_wait` minutes after it ended, then after twice as long, and so on.
    """

    name: str
    description: str = ""
    schedules: tuple[Schedule, ...] = ()
    retention: Retention = field(default_factory=Retention)
    backup_kind: BackupKind = BackupKind.LEGACY
    full_every: int | None = None
    longest_chain: int = LONGEST_CHAIN
    retries: int = 0
    retry_wait: int = 10
    copying: Copying = field(default_factory=Copying)
    verify: float = 0

    @property
    def terms(self) -> Terms:
        """What a backup carries out."""
        return Terms(
            backup_kind=self.backup_kind,
            copying=self.copying,
            full_every=self.full_every,
            longest_chain=self.longest_chain,
            verify=self.verify,
            retention=self.retention,
        )

    def retry_at(self, ended: dt.datetime, tries: int) -> dt.datetime | None:
        """When to try again after `tries` runs of which the last ended at `ended`; None when it was tried enough."""
        if tries > self.retries:
            return None
        return ended + dt.timedelta(minutes=self.retry_wait << (tries - 1))
