# SPDX-License-Identifier: GPL-3.0-or-later
"""The decision what a restore makes: the new VM, its disks with their storage, its interfaces with their networks."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from overkeep.errors import OverkeepError
from overkeep.model.inventory import DiskFormat
from overkeep.model.points import DiskImage, RestorePoint

_NAMESPACE = uuid.UUID("6f1c2c0e-5a0b-5d3c-9a52-0a6f5b1f7d11")  # of the ids of restored disks; must never change
_VM_NAME = re.compile(r"[\w.-]{1,255}")  # what the Manager takes as the name of a VM


class BadVmName(OverkeepError):
    """The Manager would not take the name."""

    code = "bad-vm-name"
    template = (
        "A VM cannot be named {name!r} in the Manager; "
        "use 1 to 255 letters, digits, dots, hyphens and underscores, without spaces."
    )
    status = 400


class NameTaken(OverkeepError):
    """Another VM has the name."""

    code = "vm-name-taken"
    template = "The Manager already has a VM named {name!r}; choose another name for the restored one."
    status = 409


class NoCluster(OverkeepError):
    """The cluster is not in the Manager."""

    code = "no-cluster"
    template = "The Manager has no cluster {cluster!r} to restore VM {vm!r} into; name one of: {choices}."
    status = 409


class NoStorageDomain(OverkeepError):
    """The storage domain is not in the Manager, or not up."""

    code = "no-storage-domain"
    template = (
        "There is no active storage domain {domain!r} in the Manager for disk {disk!r} of VM {vm!r}; "
        "name one of: {choices}."
    )
    status = 409


class NoSuchDiskInPoint(OverkeepError):
    """A disk was asked for that the restore point does not hold."""

    code = "no-such-disk-in-point"
    template = "Restore point {point} of VM {vm!r} holds no disk {disk!r}; it holds: {choices}."
    status = 404


@dataclass(frozen=True, kw_only=True)
class RestoreRequest:
    """What a user asks for.

    `cluster` and `storage_domain` are names or ids, None for those of the point. `keep_macs` gives the new VM the MAC
    addresses of the old one, which must be gone then. `disks` limits the restore to disks by id or name.
    """

    point_id: str
    name: str
    cluster: str | None = None
    storage_domain: str | None = None
    keep_macs: bool = False
    start: bool = False
    disks: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Names:
    """What the Manager has now, each from name to id; `storage_domains` are the active data domains.

    `vnic_profiles` has names of the form `profile/network`. Storage domains and profiles should be those of the data
    center of the cluster that is restored into, as their names need not differ between data centers.
    """

    vms: Mapping[str, str]
    clusters: Mapping[str, str]
    storage_domains: Mapping[str, str]
    vnic_profiles: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A cluster or a storage domain that a restore makes something in."""

    id: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Where a restore makes its VM and its disks; each storage domain once."""

    cluster: Target
    storage_domains: tuple[Target, ...]


@dataclass(frozen=True, kw_only=True)
class DiskRestore:
    """A disk to be made and filled from `image`; `id` follows from the job, so that a repeat finds the same disk."""

    id: str
    image: DiskImage
    name: str
    size: int
    format: DiskFormat
    sparse: bool
    tracks_changes: bool
    storage_domain_id: str
    interface: str
    bootable: bool


@dataclass(frozen=True, kw_only=True)
class NicRestore:
    """An interface to be made; an empty `mac` asks for a new one, an empty profile leaves it without a network."""

    name: str
    interface: str
    vnic_profile_id: str
    mac: str = ""


@dataclass(frozen=True, kw_only=True)
class RestorePlan:
    """What a restore makes; `warnings` are sentences for the user."""

    point_id: str
    vm_name: str
    cluster_id: str
    disks: tuple[DiskRestore, ...]
    nics: tuple[NicRestore, ...]
    start: bool
    warnings: tuple[str, ...] = field(default=())


def plan_restore(
    point: RestorePoint, request: RestoreRequest, *, document: Mapping[str, Any], names: Names, job_id: str
) -> RestorePlan:
    """Decide what restoring `point` makes.

    `document` is the configuration document kept with the point (`docs/format/configuration-1.md`); what it lacks is
    taken as unknown. Raises `BadVmName`, `NameTaken`, `NoCluster`, `NoStorageDomain` or `NoSuchDiskInPoint`.
    """
    if not _VM_NAME.fullmatch(request.name):
        raise BadVmName(name=request.name)
    if request.name in names.vms:
        raise NameTaken(name=request.name)
    cluster_id = choose_cluster(point, request, document=document, clusters=names.clusters)
    disks = tuple(_plan_disk(image, point, request, names, job_id) for image in _chosen(point, request.disks))
    nics, warnings = _plan_nics(document, names.vnic_profiles, keep_macs=request.keep_macs)
    return RestorePlan(
        point_id=point.id,
        vm_name=request.name,
        cluster_id=cluster_id,
        disks=disks,
        nics=nics,
        start=request.start,
        warnings=(*_about_disks(point, disks), *warnings),
    )


def targets_of(plan: RestorePlan, names: Names) -> Targets:
    """Return where a plan makes something, with the names that the Manager has for it."""
    clusters = {known: name for name, known in names.clusters.items()}
    domains = {known: name for name, known in names.storage_domains.items()}
    used = sorted({disk.storage_domain_id for disk in plan.disks})
    return Targets(
        cluster=Target(id=plan.cluster_id, name=clusters[plan.cluster_id]),
        storage_domains=tuple(Target(id=domain, name=domains[domain]) for domain in used),
    )


def choose_cluster(
    point: RestorePoint, request: RestoreRequest, *, document: Mapping[str, Any], clusters: Mapping[str, str]
) -> str:
    """Return the id of the cluster that is restored into: the one asked for, else the VM's own, by id and then name.

    Asked first, so that the caller can look up the storage domains and profiles of that cluster's data center.
    """
    kept = _mapping(document.get("cluster"))
    wanted = [request.cluster] if request.cluster else [_text(kept, "id"), _text(kept, "name")]
    found = _look_up(wanted, clusters)
    if found is None:
        raise NoCluster(cluster=wanted[-1], vm=point.vm_name, choices=_choices(clusters))
    return found


def restored_disk_id(job_id: str, disk_id: str) -> str:
    """Return the id of the disk that a job restores from a disk: always the same, so that repeats find it."""
    return str(uuid.uuid5(_NAMESPACE, f"{job_id}/{disk_id}"))


def _chosen(point: RestorePoint, wanted: tuple[str, ...] | None) -> tuple[DiskImage, ...]:
    if wanted is None:
        return point.images
    for word in wanted:
        if not any(word in (image.disk_id, image.name) for image in point.images):
            choices = ", ".join(image.name for image in point.images) or "none"
            raise NoSuchDiskInPoint(point=point.id, vm=point.vm_name, disk=word, choices=choices)
    return tuple(image for image in point.images if image.disk_id in wanted or image.name in wanted)


def _plan_disk(
    image: DiskImage, point: RestorePoint, request: RestoreRequest, names: Names, job_id: str
) -> DiskRestore:
    wanted = [request.storage_domain] if request.storage_domain else [image.storage_domain_id, image.storage_domain]
    domain_id = _look_up(wanted, names.storage_domains)
    if domain_id is None:
        raise NoStorageDomain(
            domain=wanted[-1], disk=image.name, vm=point.vm_name, choices=_choices(names.storage_domains)
        )
    tracks = image.tracks_changes and image.format is DiskFormat.COW  # the Manager refuses it for raw disks
    return DiskRestore(
        id=restored_disk_id(job_id, image.disk_id),
        image=image,
        name=_disk_name(image.name, point.vm_name, request.name),
        size=image.virtual_size,
        format=image.format,
        # the Manager takes a preallocated QCOW2 disk only when it tracks changes
        sparse=image.sparse or (image.format is DiskFormat.COW and not tracks),
        tracks_changes=tracks,
        storage_domain_id=domain_id,
        interface=image.interface,
        bootable=image.bootable,
    )


def _disk_name(name: str, old_vm: str, new_vm: str) -> str:
    """Exchange the VM's name at the front of a disk's name, which is how the Manager names disks (`vm_Disk1`)."""
    if old_vm and name.startswith(f"{old_vm}_"):
        return new_vm + name.removeprefix(old_vm)
    return name


def _about_disks(point: RestorePoint, disks: tuple[DiskRestore, ...]) -> Iterable[str]:
    if any(image.bootable for image in point.images) and not any(disk.bootable for disk in disks):
        yield "The disk that the VM boots from is not among the restored ones; the restored VM will not boot by itself."


def _plan_nics(
    document: Mapping[str, Any], profiles: Mapping[str, str], *, keep_macs: bool
) -> tuple[tuple[NicRestore, ...], tuple[str, ...]]:
    nics: list[NicRestore] = []
    warnings: list[str] = []
    for kept in _list(document.get("nics")):
        profile = _mapping(kept.get("vnic_profile"))
        label = f"{_text(profile, 'name')}/{_text(_mapping(kept.get('network')), 'name')}"
        profile_id = _look_up([_text(profile, "id"), label], profiles)
        if profile_id is None and profile:
            warnings.append(
                f"The Manager has no vNIC profile {label!r}; "
                f"interface {_text(kept, 'name')!r} is restored without a network."
            )
        nics.append(
            NicRestore(
                name=_text(kept, "name"),
                interface=_text(kept, "interface") or "virtio",
                vnic_profile_id=profile_id or "",
                mac=_text(kept, "mac") if keep_macs else "",
            )
        )
    return tuple(nics), tuple(warnings)


def _look_up(wanted: Iterable[str | None], known: Mapping[str, str]) -> str | None:
    """Return the id of the first of `wanted` that is an id or a name in `known`, a map from name to id."""
    ids = set(known.values())
    for word in wanted:
        if word and word in ids:
            return word
        if word and word in known:
            return known[word]
    return None


def _choices(known: Mapping[str, str]) -> str:
    return ", ".join(sorted(known)) or "(there is none)"


# The document is read from the backup target: whatever has another shape than expected counts as absent.


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Mapping[str, Any]]:
    return [_mapping(item) for item in value] if isinstance(value, list) else []


def _text(value: Mapping[str, Any], key: str) -> str:
    found = value.get(key)
    return found if isinstance(found, str) else ""
