# SPDX-License-Identifier: GPL-3.0-or-later
"""From the SDK's objects to values: of the model, and plain ones that JSON can hold."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

import ovirtsdk4 as sdk

from overkeep.errors import BadRequest
from overkeep.model.inventory import Disk, DiskFormat, Host, Nic, Vm, VmStatus
from overkeep.model.selection import Candidate

_HOSTED_ENGINE = {"hosted_engine", "managed_hosted_engine"}


def word(value: Any) -> str:
    """Return the text of an enumeration of the SDK, or an empty one for None or an unknown member."""
    return str(value.value) if isinstance(value, Enum) else (str(value) if value is not None else "")


def member(kind: Any, text: str) -> Any:
    """Return the member of an enumeration of the SDK; raise `BadRequest` for a text that is none."""
    try:
        return kind(text)
    except ValueError as error:
        known = ", ".join(sorted(one.value for one in kind))
        raise BadRequest(what=f"The Manager knows no {kind.__name__} {text!r}", todo=f"use one of: {known}") from error


def link_id(value: Any) -> str:
    """Return the id of a linked object, or an empty text when there is no link."""
    return (value.id or "") if value is not None else ""


def vm(found: Any, *, clusters: Mapping[str, str]) -> Vm:
    """Return a VM without disks and NICs; `clusters` maps ids to names."""
    cluster_id = link_id(found.cluster)
    status = word(found.status)
    return Vm(
        id=found.id,
        name=found.name or "",
        status=VmStatus(status) if status in set(VmStatus) else VmStatus.OTHER,
        cluster_id=cluster_id,
        cluster=clusters.get(cluster_id, ""),
        host_id=link_id(found.host),
        hosted_engine=(found.origin or "") in _HOSTED_ENGINE,
    )


def candidate(found: Any, *, clusters: Mapping[str, str], tags: Iterable[str]) -> Candidate:
    """Return what rules look at in a VM that bears `tags`."""
    return Candidate(
        id=found.id,
        name=found.name or "",
        cluster=clusters.get(link_id(found.cluster), ""),
        tags=frozenset(tags),
        properties={each.name: each.value or "" for each in found.custom_properties or () if each.name},
    )


def disk(attachment: Any, found: Any, *, domains: Mapping[str, str]) -> Disk:
    """Return a disk as attached; `domains` maps ids of storage domains to names."""
    domain_id = next((link_id(domain) for domain in found.storage_domains or () if domain.id), "")
    return Disk(
        id=found.id,
        name=found.alias or found.name or "",
        size=found.provisioned_size or 0,
        format=DiskFormat.COW if word(found.format) == "cow" else DiskFormat.RAW,
        sparse=bool(found.sparse),
        tracks_changes=word(found.backup) == "incremental",
        interface=word(attachment.interface) or "virtio_scsi",
        bootable=bool(attachment.bootable),
        active=attachment.active is not False,
        storage=word(found.storage_type) or "image",
        shareable=bool(found.shareable),
        transient=found.snapshot is not None,  # a disk snapshot hung on this VM; writes to it are thrown away
        storage_domain_id=domain_id,
        storage_domain=domains.get(domain_id, ""),
        locked=word(found.status) == "locked",
    )


def nic(found: Any, *, profiles: Mapping[str, tuple[str, str]]) -> Nic:
    """Return an interface; `profiles` maps ids of vNIC profiles to names of profile and network."""
    profile_id = link_id(found.vnic_profile)
    profile, network = profiles.get(profile_id, ("", ""))
    return Nic(
        id=found.id,
        name=found.name or "",
        mac=(found.mac.address or "") if found.mac is not None else "",
        interface=word(found.interface) or "virtio",
        vnic_profile_id=profile_id,
        vnic_profile=profile,
        network=network,
    )


def host(found: Any) -> Host:
    """Return a host."""
    return Host(id=found.id, name=found.name or "", address=found.address or "", status=word(found.status))


def plain(value: Any) -> Any:
    """Return an object of the SDK as dictionaries, lists, texts and numbers, leaving out what is not set."""
    if isinstance(value, sdk.Struct):
        fields = {name.removeprefix("_"): plain(field) for name, field in vars(value).items() if name != "_href"}
        return {name: field for name, field in fields.items() if field is not None and field not in ({}, [])}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(value)
