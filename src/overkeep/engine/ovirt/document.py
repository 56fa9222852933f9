# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of a VM that is kept with its backups: the OVF and a document of what OVF leaves out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from overkeep.engine.api import VmConfiguration
from overkeep.engine.errors import BadAnswer, EngineRefused
from overkeep.engine.ovirt import values
from overkeep.engine.ovirt.inventory import attached_disk, profile_names
from overkeep.engine.ovirt.session import Session
from overkeep.engine.ovirt.waits import Patience

VERSION = 1  # of the document; docs/format/configuration-1.md
_OVF_SECONDS = 60.0
_SECRET_OR_KEPT_ELSEWHERE = {"initialization", "display", "payloads", "next_run_exists", "statistics"}


class Configurations:
    """Reads configurations; nothing here changes anything."""

    def __init__(self, session: Session, *, patience: Patience) -> None:
        self._session = session
        self._patience = patience

    def read(self, vm_id: str) -> VmConfiguration:
        """Return OVF and document of a VM; raise `NotReadyInTime` when the Manager withholds the OVF for a minute."""
        ovf = self._patience.until(
            lambda: self._ovf(vm_id), f"give the OVF of VM {vm_id}", what=f"VM {vm_id}", seconds=_OVF_SECONDS
        )
        return VmConfiguration(ovf=ovf, document=self._document(vm_id))

    def _ovf(self, vm_id: str) -> tuple[str | None, str]:
        """The Manager leaves it out while a disk is locked and while it is writing a new one itself."""
        with self._session.system(f"give the OVF of VM {vm_id}", what=f"VM {vm_id}") as system:
            initialization = system.vms_service().vm_service(vm_id).get(all_content=True).initialization
        configuration = initialization.configuration if initialization is not None else None
        data = configuration.data if configuration is not None else None
        return data or None, "no OVF; a disk of the VM is locked or its configuration has just changed"

    def _document(self, vm_id: str) -> Mapping[str, object]:
        with self._session.system(f"show VM {vm_id}", what=f"VM {vm_id}") as system:
            found = system.vms_service().vm_service(vm_id).get()
        gathering = _Gathering(self._session, vm_id, found)
        vm = values.plain(found)
        document: dict[str, object] = {
            "version": VERSION,
            "vm": {name: value for name, value in vm.items() if name not in _SECRET_OR_KEPT_ELSEWHERE},
        }
        for name, read in gathering.parts().items():
            document |= gathering.attempt(name, read)
        document["missing"] = sorted(gathering.missing)
        return document


class _Gathering:
    """Reads the parts of one document; a part that this Manager or this account does not give is noted as missing."""

    def __init__(self, session: Session, vm_id: str, vm: Any) -> None:
        self._session = session
        self._vm_id = vm_id
        self._vm = vm
        self.missing: list[str] = []

    def parts(self) -> dict[str, Callable[[Any], Any]]:
        """Return the readers of all parts by their names in the document; each takes the system service."""
        return {
            "cluster": lambda system: _named(system.clusters_service().cluster_service, self._vm.cluster),
            "template": lambda system: _named(system.templates_service().template_service, self._vm.template),
            "quota": self._quota,
            "disks": self._disks,
            "nics": self._nics,
            "tags": lambda system: [tag.name for tag in self._service(system).tags_service().list()],
            "permissions": self._permissions,
            "affinity_groups": self._affinity_groups,
            "affinity_labels": lambda system: [
                label.name or label.id for label in self._service(system).affinity_labels_service().list()
            ],
            "watchdogs": lambda system: values.plain(self._service(system).watchdogs_service().list()),
            "cdroms": lambda system: values.plain(self._service(system).cdroms_service().list()),
            "host_devices": lambda system: values.plain(self._service(system).host_devices_service().list()),
            "graphics_consoles": lambda system: values.plain(self._service(system).graphics_consoles_service().list()),
            "numa_nodes": lambda system: values.plain(self._service(system).numa_nodes_service().list()),
        }

    def attempt(self, name: str, read: Callable[[Any], Any]) -> dict[str, object]:
        """Return `{name: part}`, or nothing when the part cannot be had."""
        try:
            with self._session.system(f"show {name} of VM {self._vm_id}", what=f"{name} of the VM") as system:
                part = read(system)
        except (EngineRefused, BadAnswer):
            self.missing.append(name)
            return {}
        return {} if part is None else {name: part}

    def _service(self, system: Any) -> Any:
        return system.vms_service().vm_service(self._vm_id)

    def _quota(self, system: Any) -> dict[str, str] | None:
        if self._vm.quota is None or not self._vm.quota.id:
            return None
        cluster = system.clusters_service().cluster_service(values.link_id(self._vm.cluster)).get()
        center = system.data_centers_service().data_center_service(values.link_id(cluster.data_center))
        return _named(center.quotas_service().quota_service, self._vm.quota)

    def _disks(self, system: Any) -> list[dict[str, Any]]:
        domains = {domain.id: domain.name for domain in system.storage_domains_service().list()}
        attachments = self._service(system).disk_attachments_service().list(follow="disk")
        return [_disk_part(attachment, attached_disk(system, attachment), domains) for attachment in attachments]

    def _nics(self, system: Any) -> list[dict[str, Any]]:
        profiles = profile_names(system)
        return [_nic_part(nic, profiles) for nic in self._service(system).nics_service().list()]

    def _permissions(self, system: Any) -> list[dict[str, str]]:
        roles = {role.id: role.name for role in system.roles_service().list()}
        return [
            {
                "role": roles.get(values.link_id(permission.role), values.link_id(permission.role)),
                "user_id": values.link_id(permission.user),
                "group_id": values.link_id(permission.group),
            }
            for permission in self._service(system).permissions_service().list()
        ]

    def _affinity_groups(self, system: Any) -> list[str]:
        groups = system.clusters_service().cluster_service(values.link_id(self._vm.cluster)).affinity_groups_service()
        return [
            group.name
            for group in groups.list()
            if any(vm.id == self._vm_id for vm in groups.group_service(group.id).vms_service().list())
        ]


def _named(service_of: Callable[[str], Any], link: Any) -> dict[str, str] | None:
    if link is None or not link.id:
        return None
    return {"id": link.id, "name": service_of(link.id).get().name or ""}


def _disk_part(attachment: Any, disk: Any, domains: Mapping[str, str]) -> dict[str, Any]:
    value = values.disk(attachment, disk, domains=domains)
    return {
        "id": value.id,
        "name": value.name,
        "description": disk.description or "",
        "size": value.size,
        "format": value.format.value,
        "sparse": value.sparse,
        "tracks_changes": value.tracks_changes,
        "storage": value.storage,
        "shareable": value.shareable,
        "interface": value.interface,
        "bootable": value.bootable,
        "active": value.active,
        "read_only": bool(attachment.read_only),
        "pass_discard": bool(attachment.pass_discard),
        "wipe_after_delete": bool(disk.wipe_after_delete),
        "storage_domain": {"id": value.storage_domain_id, "name": value.storage_domain},
    }


def _nic_part(found: Any, profiles: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    value = values.nic(found, profiles=profiles)
    part: dict[str, Any] = {
        "id": value.id,
        "name": value.name,
        "mac": value.mac,
        "interface": value.interface,
        "plugged": found.plugged is not False,
        "linked": found.linked is not False,
    }
    if value.vnic_profile_id:
        part["vnic_profile"] = {"id": value.vnic_profile_id, "name": value.vnic_profile}
        part["network"] = {"name": value.network}
    return part
