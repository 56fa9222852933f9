# SPDX-License-Identifier: GPL-3.0-or-later
"""What each kind of object is found by in a search: its own words, and those of the objects it goes with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar

from ovirtlab.engine.entities.disks import Disk
from ovirtlab.engine.entities.infrastructure import Cluster, DataCenter, HostEntity, StorageDomain
from ovirtlab.engine.entities.networks import Network
from ovirtlab.engine.entities.vms import Template, Vm
from ovirtlab.engine.search import Word
from ovirtlab.engine.state import State

T = TypeVar("T")

Readers: TypeAlias = dict[str, Callable[[Any], Word]]
Reach: TypeAlias = Callable[[Any], Iterable[Any]]
GIB = 30
MIB = 20
_SINGULAR = ("storage", "datacenter", "network")  # have no plural in searches


def of_vms(state: State) -> Readers:
    return _vms(state) | _across(
        host=(_hosts(state), lambda vm: _existing(state.hosts, [vm.host_id])),
        template=(_templates(state), lambda vm: _existing(state.templates, [vm.template_id])),
        storage=(_domains(state), lambda vm: _domains_of(state, state.disks_of(vm))),
    )


def of_hosts(state: State) -> Readers:
    return _hosts(state) | _across(
        vm=(_vms(state), lambda host: (vm for vm in state.vms.values() if vm.host_id == host.id)),
        storage=(_domains(state), lambda host: _domains_at(state, state.clusters[host.cluster_id].data_center_id)),
    )


def of_templates(state: State) -> Readers:
    return _templates(state) | _across(
        vm=(_vms(state), lambda item: (vm for vm in state.vms.values() if vm.template_id == item.id)),
        storage=(_domains(state), lambda item: _domains_of(state, _existing(state.disks, item.attachments))),
    )


def of_disks(state: State) -> Readers:
    return _disks(state) | _across(
        storage=(_domains(state), lambda disk: _domains_of(state, [disk])),
        datacenter=(_data_centers(state), lambda disk: _data_centers_of(state, disk)),
    )


def of_domains(state: State) -> Readers:
    return _domains(state) | _across(
        host=(_hosts(state), lambda item: _hosts_at(state, item.data_center_id)),
        cluster=(_clusters(state), lambda item: _clusters_at(state, item.data_center_id)),
    )


def of_data_centers(state: State) -> Readers:
    return _data_centers(state) | _across(
        cluster=(_clusters(state), lambda item: _clusters_at(state, item.id)),
        storage=(_domains(state), lambda item: _domains_at(state, item.id)),
        network=(_networks(state), lambda item: _networks_at(state, item.id)),
    )


def of_clusters(state: State) -> Readers:
    return _clusters(state) | _across(
        datacenter=(_data_centers(state), lambda item: _existing(state.data_centers, [item.data_center_id])),
        storage=(_domains(state), lambda item: _domains_at(state, item.data_center_id)),
    )


def of_networks(state: State) -> Readers:
    def assigned(item: Network) -> Word:
        return tuple(state.clusters[key].name for key in item.clusters)

    return _networks(state) | {"cluster_network.cluster_name": assigned}


def _across(**others: tuple[Readers, Reach]) -> Readers:
    """Words of other objects, under the names of their kind in singular and plural: `vm.name`, `vms.status`."""
    found: Readers = {}
    for kind, (readers, reach) in others.items():
        for key, read in readers.items():
            for name in (kind,) if kind in _SINGULAR else (kind, f"{kind}s"):
                found[f"{name}.{key}"] = _joined(read, reach)
    return found


def _joined(read: Callable[[Any], Word], reach: Reach) -> Callable[[Any], Word]:
    def words(item: Any) -> tuple[str, ...]:
        return tuple(_texts(read(other) for other in reach(item)))

    return words


def _texts(words: Iterable[Word]) -> Iterator[str]:
    for word in words:
        if isinstance(word, tuple):
            yield from word
        elif word is not None:
            yield str(word)


def _vms(state: State) -> Readers:
    def host(vm: Vm) -> Word:
        return state.hosts[vm.host_id].name if vm.host_id else None

    return {
        "name": lambda vm: vm.name,
        "id": lambda vm: vm.id,
        "status": lambda vm: vm.status.replace("_", ""),
        "host": host,
        "on_host": host,
        "cluster": lambda vm: state.clusters[vm.cluster_id].name,
        "datacenter": lambda vm: _center_of_cluster(state, vm.cluster_id),
        "tag": lambda vm: _tags(state, vm.tags),
        "description": lambda vm: vm.description,
        "comment": lambda vm: vm.comment,
        "type": lambda vm: vm.vm_type,
        "os": lambda vm: vm.os_type,
        "memory": lambda vm: vm.memory >> MIB,
        "vcpus": lambda vm: vm.cores * vm.sockets * vm.threads,
        "bios_type": lambda vm: vm.bios_type.replace("_", ""),
        "creationdate": lambda vm: vm.creation_time,
        "created_by_user_id": lambda vm: vm.creator_id or None,
        "compatibility_level": lambda vm: _level(state.level_of(vm)),
        "custom_compatibility_level": lambda vm: _level(vm.level) if vm.level else None,
        "guaranteed_memory": lambda vm: vm.memory >> MIB,
        "has_illegal_images": lambda vm: _word(any(disk.status == "illegal" for disk in state.disks_of(vm))),
        "cpu_usage": lambda vm: 0,
        "network_usage": lambda vm: 0,
        **_none("apps", "fqdn", "ip", "loggedinuser", "pool", "quota"),
        **_GENERAL,
    }


def _hosts(state: State) -> Readers:
    def running(host: HostEntity) -> int:
        return sum(vm.host_id == host.id for vm in state.vms.values())

    def migrating(host: HostEntity) -> int:
        return sum(vm.host_id == host.id and vm.status == "migrating" for vm in state.vms.values())

    return {
        "name": lambda host: host.name,
        "id": lambda host: host.id,
        "address": lambda host: host.address,
        "hw_id": lambda host: host.hw_id,
        "status": lambda host: host.status.replace("_", ""),
        "external_status": lambda host: host.external_status,
        "comment": lambda host: host.comment,
        "cluster": lambda host: state.clusters[host.cluster_id].name,
        "datacenter": lambda host: _center_of_cluster(state, host.cluster_id),
        "tag": lambda host: _tags(state, host.tags),
        "active_vms": running,
        "migrating_vms": migrating,
        "type": lambda host: "rhel",
        "cpu_model": lambda host: state.clusters[host.cluster_id].cpu_type,
        "cpu_usage": lambda host: 0,
        "load": lambda host: 0,
        "network_usage": lambda host: 0,
        "update_available": lambda host: _word(host.update_available),
        **_GENERAL,
    }


def _templates(state: State) -> Readers:
    def center(item: Template) -> Word:
        """Blank is found in every data centre."""
        if item.cluster_id in state.clusters:
            return _center_of_cluster(state, item.cluster_id)
        return tuple(center.name for center in state.data_centers.values())

    return {
        "name": lambda item: item.name,
        "id": lambda item: item.id,
        "description": lambda item: item.description,
        "comment": lambda item: item.comment,
        "status": lambda item: item.status,
        "cluster": lambda item: state.clusters[item.cluster_id].name if item.cluster_id in state.clusters else None,
        "datacenter": center,
        "tag": lambda item: _tags(state, item.tags),
        "version_name": lambda item: item.version_name,
        "version_number": lambda item: item.version,
        "mem": lambda item: item.memory >> MIB,
        "creationdate": lambda item: item.creation_time,
        "childcount": lambda item: sum(vm.template_id == item.id for vm in state.vms.values()),
        **_none("quota"),
        **_GENERAL,
    }


def _disks(state: State) -> Readers:
    def names(disk: Disk) -> Word:
        return tuple(vm.name for vm in state.vms_of_disk(disk.id))

    return {
        "name": lambda disk: disk.alias,
        "alias": lambda disk: disk.alias,
        "id": lambda disk: disk.id,
        "status": lambda disk: disk.status,
        "description": lambda disk: disk.description,
        "disk_type": lambda disk: "image",
        "format": lambda disk: disk.format,
        "vm_names": names,
        "number_of_vms": lambda disk: len(list(state.vms_of_disk(disk.id))),
        "provisioned_size": lambda disk: disk.provisioned_size >> GIB,
        "size": lambda disk: disk.provisioned_size >> GIB,
        "actual_size": lambda disk: disk.actual_size >> GIB,
        "allocation_policy": lambda disk: "thin" if disk.sparse else "preallocated",
        "last_modified": lambda disk: disk.creation_date,
        **_none("quota"),
        "shareable": lambda disk: _word(disk.shareable),
        "wipe_after_delete": lambda disk: _word(disk.wipe_after_delete),
        "disk_content_type": lambda disk: disk.content_type,
        "creation_date": lambda disk: disk.creation_date,
    }


def _domains(state: State) -> Readers:
    def used(domain: StorageDomain) -> int:
        return sum(disk.actual_size for disk in state.disks.values() if disk.storage_domain_id == domain.id) >> GIB

    return {
        "name": lambda item: item.name,
        "id": lambda item: item.id,
        "description": lambda item: item.description,
        "comment": lambda item: item.comment,
        "status": lambda item: item.status,
        "external_status": lambda item: "ok",
        "type": lambda item: "nfs",
        "shared_status": lambda item: item.status,
        "total_size": lambda item: item.size >> GIB,
        "used_size": used,
        "free_size": lambda item: (item.size >> GIB) - used(item),
        "backup": lambda item: "false",
        "datacenter": lambda item: _name(state.data_centers, item.data_center_id),
    }


def _data_centers(state: State) -> Readers:
    return {
        "name": lambda item: item.name,
        "id": lambda item: item.id,
        "description": lambda item: item.description,
        "comment": lambda item: item.comment,
        "status": lambda item: item.status,
        "local": lambda item: _word(item.local),
        "compatibility_version": lambda item: _level(item.level),
    }


def _clusters(state: State) -> Readers:
    return {
        "name": lambda item: item.name,
        "id": lambda item: item.id,
        "description": lambda item: item.description,
        "comment": lambda item: item.comment,
        "architecture": lambda item: "x86_64",
        "cpu_type": lambda item: item.cpu_type,
        "compatibility_level": lambda item: _level(item.level),
        "datacenter": lambda item: _name(state.data_centers, item.data_center_id),
    }


def _networks(state: State) -> Readers:
    return {
        "name": lambda item: item.name,
        "id": lambda item: item.id,
        "description": lambda item: item.description,
        "comment": lambda item: item.comment,
        "vlanid": lambda item: item.vlan,
        "mtu": lambda item: item.mtu,
        "label": lambda item: item.label or None,
        "stp": lambda item: "false",
        "vm_network": lambda item: "true",
        **_none("provider_name", "qos"),
        "datacenter": lambda item: _name(state.data_centers, item.data_center_id),
    }


def _level(level: tuple[int, int]) -> str:
    return f"{level[0]}.{level[1]}"


def _word(value: bool) -> str:
    return str(value).lower()


def _none(*keys: str) -> Readers:
    """Words that nothing in the lab has."""
    return dict.fromkeys(keys, lambda item: None)


_GENERAL: Readers = {"architecture": lambda item: "x86_64"}


def _tags(state: State, tags: Iterable[str]) -> Word:
    """A tag finds what has it, and what has one of those below it."""
    return tuple(state.tags[key].name for tag in tags for key in state.tags_above(tag))


def _name(table: Mapping[str, DataCenter], key: str) -> str | None:
    return table[key].name if key in table else None


def _center_of_cluster(state: State, cluster_id: str) -> str | None:
    return _name(state.data_centers, state.clusters[cluster_id].data_center_id)


def _existing(table: Mapping[str, T], keys: Iterable[str]) -> Iterator[T]:
    return (table[key] for key in keys if key in table)


def _domains_of(state: State, disks: Iterable[Disk]) -> Iterator[StorageDomain]:
    return _existing(state.storage_domains, {key for disk in disks for key in disk.domain_ids})


def _data_centers_of(state: State, disk: Disk) -> Iterator[DataCenter]:
    return _existing(state.data_centers, (domain.data_center_id for domain in _domains_of(state, [disk])))


def _domains_at(state: State, data_center_id: str) -> Iterator[StorageDomain]:
    return (item for item in state.storage_domains.values() if item.data_center_id == data_center_id)


def _clusters_at(state: State, data_center_id: str) -> Iterator[Cluster]:
    return (item for item in state.clusters.values() if item.data_center_id == data_center_id)


def _hosts_at(state: State, data_center_id: str) -> Iterator[HostEntity]:
    places = {cluster.id for cluster in _clusters_at(state, data_center_id)}
    return (item for item in state.hosts.values() if item.cluster_id in places)


def _networks_at(state: State, data_center_id: str) -> Iterator[Network]:
    return (item for item in state.networks.values() if item.data_center_id == data_center_id)
