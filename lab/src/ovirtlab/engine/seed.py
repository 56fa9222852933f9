# SPDX-License-Identifier: GPL-3.0-or-later
"""The state an engine starts with: an environment's hosts, domains and VMs, and what every engine has."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

from ovirtlab.engine import accounts, networks, roles
from ovirtlab.engine.entities.disks import Disk, DiskAttachment
from ovirtlab.engine.entities.infrastructure import Cluster, DataCenter, HostEntity, StorageDomain
from ovirtlab.engine.entities.networks import MacPool, Network, Nic, VnicProfile
from ovirtlab.engine.entities.people import Permission, User
from ovirtlab.engine.entities.tags import Tag
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.state import BLANK, SYSTEM, State
from ovirtlab.environment import Disk as DiskPlan
from ovirtlab.environment import Environment
from ovirtlab.environment import Vm as VmPlan
from ovirtlab.host.api import Host

ADMIN_ID = "fdfc627c-d875-11e0-90f0-83df133b58cc"
_NAMESPACE = uuid.UUID("52b0a1f8-7d3c-4c54-9f0e-6f6ad0e1e2d3")


def stable_id(kind: str, name: str) -> str:
    """The id of something the environment names; the same in every lab made from it."""
    return str(uuid.uuid5(_NAMESPACE, f"{kind}/{name}"))


def fill(state: State, environment: Environment, hosts: Sequence[Host], *, directory: Path) -> None:
    """Put everything into the state; disks are locked until their volumes exist, VMs are down."""
    _users(state, environment)
    data_center = DataCenter(id=stable_id("datacenter", "Default"), name="Default")
    cluster = Cluster(id=stable_id("cluster", "Default"), name="Default", data_center_id=data_center.id)
    state.data_centers[data_center.id] = data_center
    state.clusters[cluster.id] = cluster
    _networks(state, cluster)
    state.tags[BLANK] = Tag(id=BLANK, name="root", description="root")
    updates = {plan.name: plan.updates for plan in environment.hosts}
    for host in hosts:
        state.hosts[host.id] = HostEntity(
            id=host.id,
            name=host.name,
            address=host.address,
            hw_id=host.hw_id,
            cluster_id=cluster.id,
            imageio_port=host.imageio_port,
            updates=updates[host.name],
        )
    _storage_domains(state, environment, data_center.id, directory=directory)
    by_name = {host.name: host.id for host in hosts}
    for plan in environment.vms:
        _vm(state, plan, cluster.id, host_id=by_name[plan.host])
    accounts.fill(state, environment.accounts)


def _users(state: State, environment: Environment) -> None:
    state.roles = {role.id: role for role in roles.predefined()}
    name, _, domain = environment.username.rpartition("@")
    admin = User(
        id=ADMIN_ID,
        name=name or environment.username,
        domain=domain if name else "internal",
        password=environment.password,
        first_name="admin",
    )
    state.users[admin.id] = state.directory.users[admin.id] = admin
    super_user = next(role for role in state.roles.values() if role.name == "SuperUser")
    permission = Permission(
        id=stable_id("permission", "admin"), user_id=admin.id, role_id=super_user.id, on=("system", SYSTEM)
    )
    state.permissions[permission.id] = permission


def _networks(state: State, cluster: Cluster) -> None:
    network = Network(
        id=stable_id("network", "ovirtmgmt"),
        name="ovirtmgmt",
        data_center_id=cluster.data_center_id,
        description="Management Network",
        clusters={cluster.id: True},
    )
    state.networks[network.id] = network
    profile = VnicProfile(id=stable_id("vnicprofile", "ovirtmgmt"), name="ovirtmgmt", network_id=network.id)
    state.vnic_profiles[profile.id] = profile
    pool = MacPool(
        id=stable_id("macpool", "Default"),
        name="Default",
        start="56:6f:1a:2b:00:00",
        end="56:6f:1a:2b:ff:ff",
        default=True,
    )
    state.mac_pools[pool.id] = pool
    cluster.mac_pool_id = pool.id


def _storage_domains(state: State, environment: Environment, data_center_id: str, *, directory: Path) -> None:
    for number, plan in enumerate(environment.storage_domains):
        key = stable_id("storagedomain", plan.name)
        state.storage_domains[key] = StorageDomain(
            id=key,
            name=plan.name,
            data_center_id=data_center_id,
            path=directory / "storage" / key,
            master=number == 0,
            size=plan.size or StorageDomain.size,
        )


def _vm(state: State, plan: VmPlan, cluster_id: str, *, host_id: str) -> None:
    vm = Vm(
        id=stable_id("vm", plan.name),
        name=plan.name,
        cluster_id=cluster_id,
        memory=plan.memory_mib << 20,
        home_host_id=host_id,
        os_cmdline=f"lab.guest={plan.guest} lab.agent={int(plan.agent)}",
        os_kernel="/usr/share/ovirtlab/vmlinuz" if plan.guest == "linux" else "",
        creation_time=state.clock.now(),
        creator_id=ADMIN_ID,
    )
    state.vms[vm.id] = vm
    domains = {domain.name: domain for domain in state.storage_domains.values()}
    for disk_plan in plan.disks:
        domain = domains.get(disk_plan.storage_domain) or next(iter(domains.values()))
        _disk(state, vm, disk_plan, domain)
    nic = Nic(
        id=stable_id("nic", plan.name),
        vm_id=vm.id,
        name="nic1",
        mac=networks.allocate_mac(state),
        vnic_profile_id=next(iter(state.vnic_profiles)),
    )
    vm.nics[nic.id] = nic


def _disk(state: State, vm: Vm, plan: DiskPlan, domain: StorageDomain) -> None:
    key = f"{vm.name}/{plan.name}"
    disk_id, image_id = stable_id("disk", key), stable_id("image", key)
    state.disks[disk_id] = Disk(
        id=disk_id,
        image_id=image_id,
        alias=plan.name,
        provisioned_size=plan.size,
        storage_domain_id=domain.id,
        path=domain.path / "images" / disk_id / image_id,
        format="cow" if plan.format == "qcow2" else "raw",
        backup=plan.backup,
        status="locked",
        creation_date=state.clock.now(),
    )
    state.attach(DiskAttachment(disk_id=disk_id, vm_id=vm.id, interface="virtio", bootable=plan.bootable))
