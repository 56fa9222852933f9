# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything the engine knows, as plain dictionaries of entities by id."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from ovirtlab.engine.clock import Clock
from ovirtlab.engine.entities.disks import Disk, DiskAttachment
from ovirtlab.engine.entities.infrastructure import Cluster, DataCenter, HostEntity, StorageDomain
from ovirtlab.engine.entities.networks import MacPool, Network, VnicProfile
from ovirtlab.engine.entities.people import Directory, Group, Permission, Role, User
from ovirtlab.engine.entities.tags import Tag
from ovirtlab.engine.entities.vms import Template, Vm
from ovirtlab.engine.events import EventLog
from ovirtlab.engine.faults import NotFound
from ovirtlab.engine.locks import LockTable
from ovirtlab.engine.policies import STORED, AffinityGroup, AffinityLabel, Quota, Stored
from ovirtlab.engine.records import Backup, Checkpoint, ImageTransfer, Job, Snapshot
from ovirtlab.engine.timers import Settings

T = TypeVar("T")

BLANK = "00000000-0000-0000-0000-000000000000"
SYSTEM = "aaa00000-0000-0000-0000-123456789aaa"
EVERYONE = "eee00000-0000-0000-0000-123456789eee"


class State:
    """The engine's data base in memory; touched only from the event loop, so no locks but the engine's own."""

    def __init__(self, clock: Clock, *, seed: int | None = None) -> None:
        self.clock = clock
        self.events = EventLog(clock)
        self.locks = LockTable()
        self.settings = Settings()
        self._random = random.Random(seed) if seed is not None else None  # noqa: S311 - ids, not secrets
        self.instance_id = self.new_id()
        self.data_centers: dict[str, DataCenter] = {}
        self.clusters: dict[str, Cluster] = {}
        self.hosts: dict[str, HostEntity] = {}
        self.storage_domains: dict[str, StorageDomain] = {}
        self.networks: dict[str, Network] = {}
        self.vnic_profiles: dict[str, VnicProfile] = {}
        self.mac_pools: dict[str, MacPool] = {}
        self.templates: dict[str, Template] = {BLANK: Template(id=BLANK, name="Blank", description="Blank template")}
        self.vms: dict[str, Vm] = {}
        self.disks: dict[str, Disk] = {}
        self.tags: dict[str, Tag] = {}
        self.affinity_groups: dict[str, AffinityGroup] = {}
        self.affinity_labels: dict[str, AffinityLabel] = {}
        self.quotas: dict[str, Quota] = {}
        self.stored: dict[str, dict[str, Stored]] = {member: {} for member in STORED}
        self.roles: dict[str, Role] = {}
        self.directory = Directory()
        self.users: dict[str, User] = {}
        self.groups: dict[str, Group] = {EVERYONE: Group(id=EVERYONE, name="Everyone", domain="")}
        self.permissions: dict[str, Permission] = {}
        self.jobs: dict[str, Job] = {}
        self.backups: dict[str, Backup] = {}
        self.checkpoints: dict[str, Checkpoint] = {}  # insertion order is creation order
        self.snapshots: dict[str, Snapshot] = {}
        self.transfers: dict[str, ImageTransfer] = {}
        self._owners: dict[str, dict[str, None]] = {}

    def new_id(self) -> str:
        """A fresh UUID; the same sequence for the same seed."""
        if self._random is None:
            return str(uuid.uuid4())
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def vm(self, vm_id: str) -> Vm:
        """The VM, or `NotFound`."""
        return _known(self.vms, vm_id)

    def disk(self, disk_id: str) -> Disk:
        """The disk, or `NotFound`."""
        return _known(self.disks, disk_id)

    def host(self, host_id: str) -> HostEntity:
        """The host's record, or `NotFound`."""
        return _known(self.hosts, host_id)

    def person(self, user_id: str) -> User | None:
        """Somebody the engine or the directory knows."""
        return self.users.get(user_id) or self.directory.users.get(user_id)

    def has(self, kind: str, key: str) -> bool:
        """Whether there is an object of a kind that permissions and events may be about."""
        tables: dict[str, Mapping[str, object]] = {
            "vm": self.vms,
            "disk": self.disks,
            "cluster": self.clusters,
            "cpu_profile": self.stored["cpu_profile"],
            "data_center": self.data_centers,
            "disk_profile": self.stored["disk_profile"],
            "host": self.hosts,
            "instance_type": self.stored["instance_type"],
            "mac_pool": self.mac_pools,
            "network": self.networks,
            "quota": self.quotas,
            "storage_domain": self.storage_domains,
            "template": self.templates,
            "vnic_profile": self.vnic_profiles,
        }
        return key in tables[kind]

    def tags_above(self, tag_id: str) -> list[str]:
        """A tag and the tags it lies below, from the inside out."""
        found: list[str] = []
        while tag_id in self.tags and tag_id not in found:
            found.append(tag_id)
            tag_id = self.tags[tag_id].parent_id
        return found

    def forget_stored(self, base: str) -> None:
        """Drop what is stored below the address of an object that is removed."""
        for table in self.stored.values():
            for key in [key for key, item in table.items() if item.base.startswith(f"{base}/")]:
                del table[key]

    def copy_stored(self, base: str, sink: str) -> None:
        """Store what lies below the address of an object below that of another, too."""
        for table in self.stored.values():
            for item in [item for item in table.values() if item.base.startswith(f"{base}/")]:
                new_id = self.new_id()
                table[new_id] = replace(item, id=new_id, base=sink + item.base.removeprefix(base), kept=dict(item.kept))

    def attach(self, attachment: DiskAttachment) -> None:
        """Record that a disk hangs on a VM."""
        self.vms[attachment.vm_id].attachments[attachment.disk_id] = attachment
        self._owners.setdefault(attachment.disk_id, {})[attachment.vm_id] = None

    def detach(self, vm_id: str, disk_id: str) -> None:
        """Record that a disk hangs on a VM no longer."""
        self.vms[vm_id].attachments.pop(disk_id, None)
        self._owners.get(disk_id, {}).pop(vm_id, None)

    def vms_of_disk(self, disk_id: str) -> Iterator[Vm]:
        """The VMs a disk hangs on; several only when it is shareable."""
        return (self.vms[vm_id] for vm_id in self._owners.get(disk_id, {}) if vm_id in self.vms)

    def disks_of(self, vm: Vm) -> list[Disk]:
        """The disks of a VM in the order they were attached."""
        return [self.disks[disk_id] for disk_id in vm.attachments]

    def level_of(self, vm: Vm) -> tuple[int, int]:
        """Compatibility level that counts for a VM: its own, else its cluster's."""
        return vm.level or self.clusters[vm.cluster_id].level


def _known(table: Mapping[str, T], key: str) -> T:
    try:
        return table[key]
    except KeyError:
        raise NotFound(key) from None
