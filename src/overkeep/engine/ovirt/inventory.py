# SPDX-License-Identifier: GPL-3.0-or-later
"""What the Manager has: VMs, hosts, clusters, storage domains and networks."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from overkeep.engine.errors import AmbiguousName, BadAnswer, NoSuchVm, NotFoundInEngine
from overkeep.engine.ovirt import values
from overkeep.engine.ovirt.session import Session
from overkeep.model.inventory import Host, Place, Vm
from overkeep.model.selection import Candidate


class Inventory:
    """Reads; nothing here changes anything."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def version(self) -> str:
        """Return the product version of the Manager; proves address, certificate and log-in."""
        with self._session.system("tell its version", what="the API") as system:
            product = system.get().product_info
        if product is None or product.version is None:
            raise BadAnswer(url=self._session.site.url, reason="its root does not name a product version")
        version = product.version
        return version.full_version or f"{version.major}.{version.minor}"

    def vm(self, vm_id: str) -> Vm:
        """Return a VM with its disks and interfaces; raise `NotFoundInEngine`."""
        with self._session.system(f"show VM {vm_id}", what=f"VM {vm_id}") as system:
            service = system.vms_service().vm_service(vm_id)
            vm = values.vm(service.get(), clusters=_names(system.clusters_service()))
            domains = _names(system.storage_domains_service())
            attachments = service.disk_attachments_service().list(follow="disk")
            disks = tuple(values.disk(a, attached_disk(system, a), domains=domains) for a in attachments)
            profiles = profile_names(system)
            nics = tuple(values.nic(nic, profiles=profiles) for nic in service.nics_service().list())
        return dataclasses.replace(vm, disks=disks, nics=nics)

    def find_vm(self, name_or_id: str) -> Vm:
        """Return the VM of an id or else of a name; raise `NoSuchVm` or `AmbiguousName`."""
        if _is_uuid(name_or_id):
            try:
                return self.vm(name_or_id)
            except NotFoundInEngine:
                pass  # a name may look like an id
        ids = self.ids_of(name_or_id)
        if not ids:
            raise NoSuchVm(name=name_or_id)
        if len(ids) > 1:
            raise AmbiguousName(count=len(ids), name=name_or_id, ids=", ".join(ids))
        return self.vm(ids[0])

    def ids_of(self, name: str) -> list[str]:
        """Return the ids of the VMs of this very name."""
        if not name or '"' in name or "*" in name:  # the Manager takes no such name, and its search would misread it
            return []
        with self._session.system(f"look up VM {name}", what=f"VM {name}") as system:
            found = system.vms_service().list(search=f'name="{name}"')
        return [vm.id for vm in found if vm.name == name]

    def vms(self) -> tuple[Vm, ...]:
        """Return all VMs, without disks and interfaces."""
        with self._session.system("list VMs", what="the VMs") as system:
            clusters = _names(system.clusters_service())
            return tuple(values.vm(found, clusters=clusters) for found in system.vms_service().list())

    def places(self, vm_ids: Sequence[str]) -> Mapping[str, Place]:
        """Return the hosts and storage domains of VMs, by name, with one request a VM."""
        with self._session.system("see where VMs are", what="the hosts and storage domains") as system:
            hosts, domains = _names(system.hosts_service()), _names(system.storage_domains_service())
        found = {vm_id: self._place(vm_id, hosts, domains) for vm_id in vm_ids}
        return {vm_id: place for vm_id, place in found.items() if place is not None}

    def _place(self, vm_id: str, hosts: Mapping[str, str], domains: Mapping[str, str]) -> Place | None:
        try:
            with self._session.system(f"see where VM {vm_id} is", what=f"VM {vm_id}") as system:
                vm = system.vms_service().vm_service(vm_id).get(follow="disk_attachments.disk")
                disks = [values.disk(a, attached_disk(system, a), domains=domains) for a in vm.disk_attachments or ()]
        except NotFoundInEngine:
            return None
        return Place.of(hosts.get(values.link_id(vm.host), ""), disks)

    def candidates(self, tags: Collection[str]) -> tuple[Candidate, ...]:
        """Return what rules look at in all VMs, with those of `tags` (patterns) that find them."""
        with self._session.system("list VMs with their tags", what="the VMs") as system:
            clusters = _names(system.clusters_service())
            service = system.vms_service()
            bearing = {tag: {vm.id for vm in service.list(search=f'tag="{tag}"')} for tag in tags}
            return tuple(
                values.candidate(
                    found, clusters=clusters, tags=(tag for tag, ids in bearing.items() if found.id in ids)
                )
                for found in service.list()
            )

    def hosts(self) -> tuple[Host, ...]:
        """Return all hosts."""
        with self._session.system("list hosts", what="the hosts") as system:
            return tuple(values.host(found) for found in system.hosts_service().list())

    def hosts_seeing(self, storage_domain_id: str) -> tuple[Host, ...]:
        """Return the hosts that are up in a data center in which this storage domain is active."""
        with self._session.system("see which hosts reach a storage domain", what="the hosts") as system:
            centers = system.data_centers_service()
            active = {
                center.id
                for center in centers.list()
                for domain in centers.data_center_service(center.id).storage_domains_service().list()
                if domain.id == storage_domain_id and values.word(domain.status) == "active"
            }
            clusters = {
                cluster.id
                for cluster in system.clusters_service().list()
                if values.link_id(cluster.data_center) in active
            }
            seeing = [host for host in system.hosts_service().list() if values.link_id(host.cluster) in clusters]
        return tuple(host for host in map(values.host, seeing) if host.status == "up")

    def clusters(self) -> Mapping[str, str]:
        """Return names to ids."""
        with self._session.system("list clusters", what="the clusters") as system:
            return {found.name: found.id for found in system.clusters_service().list()}

    def storage_domains(self, *, cluster_id: str | None) -> Mapping[str, str]:
        """Return names to ids of data domains that are up.

        The status of a domain is told by its data center, not by the list of all domains.
        """
        with self._session.system("list storage domains", what="the storage domains") as system:
            centers = system.data_centers_service()
            wanted = _center_of(system, cluster_id)
            ids = [wanted] if wanted else [center.id for center in centers.list()]
            return {
                domain.name: domain.id
                for center_id in ids
                for domain in centers.data_center_service(center_id).storage_domains_service().list()
                if values.word(domain.status) == "active" and values.word(domain.type) == "data"
            }

    def vnic_profiles(self, *, cluster_id: str | None) -> Mapping[str, str]:
        """Return `profile/network` to ids."""
        with self._session.system("list vNIC profiles", what="the vNIC profiles") as system:
            center = _center_of(system, cluster_id)
            networks = {
                network.id: network.name
                for network in system.networks_service().list()
                if center is None or values.link_id(network.data_center) == center
            }
            return {
                f"{profile.name}/{networks[network_id]}": profile.id
                for profile in system.vnic_profiles_service().list()
                if (network_id := values.link_id(profile.network)) in networks
            }


def attached_disk(system: Any, attachment: Any) -> Any:
    """Return the disk of an attachment, whether the Manager followed the link or only gave it."""
    disk = attachment.disk
    if disk is not None and disk.provisioned_size is not None:
        return disk
    return system.disks_service().disk_service(values.link_id(disk) or attachment.id).get()


def profile_names(system: Any) -> dict[str, tuple[str, str]]:
    """Return ids of vNIC profiles to the names of profile and network."""
    networks = _names(system.networks_service())
    return {
        profile.id: (profile.name or "", networks.get(values.link_id(profile.network), ""))
        for profile in system.vnic_profiles_service().list()
    }


def _names(service: Any) -> dict[str, str]:
    return {found.id: found.name or "" for found in service.list()}


def _center_of(system: Any, cluster_id: str | None) -> str | None:
    if cluster_id is None:
        return None
    cluster = system.clusters_service().cluster_service(cluster_id).get()
    return values.link_id(cluster.data_center) or None


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
