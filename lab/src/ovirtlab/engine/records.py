# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine keeps of backups, checkpoints, snapshots, image transfers and jobs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from ovirtlab.engine.entities.disks import DiskFormat
from ovirtlab.engine.entities.networks import Nic
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.locks import Lock


@dataclass(kw_only=True)
class Origin:
    """Who asked for something, as its events name them."""

    user_id: str = ""
    user_name: str = ""
    correlation_id: str = ""


@dataclass(kw_only=True)
class Backup:
    """`phase` is the engine's own phase in lower case (`adding_bitmaps`, `ready`); the API maps it to fewer words.

    `pending_checkpoint_id` is the checkpoint made for it; it becomes `to_checkpoint_id` once the host has begun.
    """

    id: str
    vm_id: str
    kind: Literal["live", "cold", "hybrid"]
    creation_date: datetime
    modification_date: datetime
    phase: str = "initializing"
    description: str = ""
    from_checkpoint_id: str = ""
    to_checkpoint_id: str = ""
    host_id: str = ""
    snapshot_id: str = ""
    modes: dict[str, Literal["full", "incremental"]] = field(default_factory=dict)  # by disk id
    urls: dict[str, str] = field(default_factory=dict)  # NBD URLs of a live backup, by disk id
    scratch: dict[str, str] = field(default_factory=dict)  # ids of scratch disks, by disk id
    pending_checkpoint_id: str = ""
    require_consistency: bool = False
    stopped: bool = False  # a hybrid one, whose snapshot shall go
    abandoned: bool = False  # the engine stopped in the middle of it, and what it held is still held
    origin: Origin = field(default_factory=Origin)
    locks: list[Lock] = field(default_factory=list, repr=False)
    guard: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)  # one step or order at a time

    @property
    def has_ended(self) -> bool:
        """Whether it is over, well or not."""
        return self.phase in ("succeeded", "failed")


@dataclass(kw_only=True)
class Checkpoint:
    id: str
    vm_id: str
    creation_date: datetime
    parent_id: str = ""
    description: str = ""
    state: Literal["created", "invalid"] = "created"
    disk_ids: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FrozenVolume:
    """A volume of a disk; `size` is virtual, in bytes."""

    image_id: str
    format: DiskFormat
    size: int
    sparse: bool = True


@dataclass(frozen=True, kw_only=True)
class StashedDisk:
    """The active volume of a disk and those below it, put aside while a snapshot of it is previewed."""

    active: FrozenVolume
    volumes: tuple[str, ...]


@dataclass(kw_only=True)
class Snapshot:
    """`volumes` are those that the snapshot has frozen, on which the disks went on.

    A `quiet` one is part of another act, whose events and job tell of it.
    """

    id: str
    vm_id: str
    description: str
    date: datetime
    quiet: bool = False
    status: str = "ok"
    type: str = "regular"
    configuration: str = ""  # the OVF of the VM as it was
    vm: Vm | None = None  # a copy of it as it was
    nics: tuple[Nic, ...] = ()
    volumes: dict[str, FrozenVolume] = field(default_factory=dict)  # by disk id
    merge_failed: bool = False  # the last try to remove it left it, or some of its disks, behind
    stash: dict[str, StashedDisk] = field(default_factory=dict)  # of a preview: the disks as they were, by id


@dataclass(kw_only=True)
class ImageTransfer:
    """`image_id` is set when a disk snapshot is read; `ended` is when a finished phase was reached.

    `backend` is what serves the data: the VM's own QEMU, `qemu-nbd`, or the file itself. `expires` is when the ticket
    ends, in engine seconds; `outcome` is the code of the event that tells how it ended, the first cause wins.
    `result` is how the engine's command went, which the next poll makes the transfer's last phase.
    """

    id: str
    disk_id: str
    direction: Literal["upload", "download"]
    phase: str = "initializing"
    format: str = ""
    timeout_policy: str = "legacy"
    inactivity_timeout: int = 60
    shallow: bool = False
    backup_id: str = ""
    image_id: str = ""
    host_id: str = ""
    ticket_id: str = ""
    size: int = 0
    active: bool = False
    transferred: int = 0
    created: datetime | None = None
    ended: datetime | None = None
    backend: Literal["live", "nbd", "file"] = "nbd"
    expires: float = 0
    renewal_missed: bool = False
    result: Literal["", "succeeded", "failed"] = ""
    image_locked: bool = False  # the volume of `image_id`; of any other transfer the disk is locked
    outcome: int = 0
    origin: Origin = field(default_factory=Origin)
    locks: list[Lock] = field(default_factory=list, repr=False)

    @property
    def has_ended(self) -> bool:
        """Whether it is over, well or not; `finished_cleanup` is not its end yet."""
        return self.phase in ("finished_success", "finished_failure")


@dataclass(kw_only=True)
class Step:
    id: str
    description: str
    type: str = "executing"
    status: str = "started"
    start_time: datetime | None = None
    end_time: datetime | None = None
    external: bool = False


@dataclass(kw_only=True)
class Job:
    id: str
    description: str
    correlation_id: str
    owner_id: str
    start_time: datetime
    status: str = "started"
    end_time: datetime | None = None
    external: bool = False
    auto_cleared: bool = True
    steps: list[Step] = field(default_factory=list)
