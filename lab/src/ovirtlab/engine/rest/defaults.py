# SPDX-License-Identifier: GPL-3.0-or-later
"""What every engine has when it is new, besides its hosts and machines: profiles, policies, filters and types."""

from __future__ import annotations

import uuid

from ovirtlab.engine.policies import Stored
from ovirtlab.engine.rest.documents import Entity, Items, Value, link_to
from ovirtlab.engine.state import State

DEFAULT_FILTER = "d2370ab4-fee3-11e9-a310-8c1645ce738e"
MIGRATION_POLICY = "80554327-0569-496b-bdeb-fcbbf52b827b"
DEFAULT_POLICY = "b4ed2332-a7ac-4d5f-9596-99a439cb2812"
_NAMESPACE = uuid.UUID("0c1d6f0a-3a54-4b58-9a0c-6de2a6b4f1a7")
_FILTERS = (
    "allow-arp", "allow-dhcp", "allow-dhcp-server", "allow-incoming-ipv4", "allow-ipv4", "clean-traffic",
    "no-arp-ip-spoofing", "no-arp-mac-spoofing", "no-arp-spoofing", "no-ip-multicast", "no-ip-spoofing",
    "no-mac-broadcast", "no-mac-spoofing", "no-other-l2-traffic", "no-other-rarp-traffic", "qemu-announce-self",
    "qemu-announce-self-rarp",
)  # fmt: skip
_POLICIES = {
    "none": DEFAULT_POLICY,
    "evenly_distributed": "20d25257-b4bd-4589-92a6-c4c5c5d3fd1a",
    "power_saving": "5a2b0939-7d46-4b73-a469-e9c2c7fc6a53",
    "vm_evenly_distributed": "8d5d7bec-68de-4a67-b53e-0ac54686d579",
    "cluster_maintenance": "7677771e-5eab-422e-83fa-dc04080d21b7",
}
_TYPES = {"Tiny": (512, 1), "Small": (2048, 1), "Medium": (4096, 2), "Large": (8192, 2), "XLarge": (16384, 4)}
_ON, _OFF = {"enabled": True}, {"enabled": False}


def cluster_properties() -> dict[str, Value]:
    """What a cluster is like before anybody changes it, as far as the lab does nothing with it."""
    fencing: dict[str, Value] = {
        "enabled": True,
        "skip_if_connectivity_broken": Entity("skip_if_connectivity_broken", {**_OFF, "threshold": 50}),
        "skip_if_gluster_bricks_up": False,
        "skip_if_gluster_quorum_not_met": False,
        "skip_if_sd_active": Entity("skip_if_sd_active", _OFF),
    }
    overcommit = Entity("over_commit", {"percent": 100})
    bandwidth = Entity("bandwidth", {"assignment_method": "auto"})
    inherited = dict.fromkeys(("auto_converge", "compressed", "encrypted"), "inherit")
    return {
        "ballooning_enabled": True,
        "error_handling": Entity("error_handling", {"on_error": "migrate"}),
        "fencing_policy": Entity("fencing_policy", fencing),
        "fips_mode": "disabled",
        "firewall_type": "firewalld",
        "ha_reservation": False,
        "ksm": Entity("ksm", {**_ON, "merge_across_nodes": True}),
        "log_max_memory_used_threshold": 95,
        "log_max_memory_used_threshold_type": "percentage",
        "maintenance_reason_required": False,
        "memory_policy": Entity(
            "memory_policy", {"over_commit": overcommit, "transparent_hugepages": Entity("transparent_hugepages", _ON)}
        ),
        "migration": Entity(
            "migration", {**inherited, "bandwidth": bandwidth, "policy": Entity("policy", id=MIGRATION_POLICY)}
        ),
        "optional_reason": False,
        "required_rng_sources": Items("required_rng_source", ["urandom"]),
        "scheduling_policy": link_to("scheduling_policy", DEFAULT_POLICY),
        "switch_type": "legacy",
        "threads_as_cores": False,
        "trusted_service": False,
        "tunnel_migration": False,
        "vnc_encryption": False,
    }


def profile_properties() -> dict[str, Value]:
    """What a vNIC profile is like before anybody changes it."""
    return {
        "network_filter": link_to("network_filter", DEFAULT_FILTER),
        "pass_through": Entity("pass_through", {"mode": "disabled"}),
        "port_mirroring": False,
    }


def network_properties() -> dict[str, Value]:
    """What a network is like before anybody changes it."""
    return {"port_isolation": False, "stp": False, "usages": Items("usage", ["vm"])}


def fill(state: State) -> None:
    """Put them into a state that has its storage domains and clusters already."""
    for name, key in {"vdsm-no-mac-spoofing": DEFAULT_FILTER, **{name: _id(name) for name in _FILTERS}}.items():
        level = (3, 2) if key == DEFAULT_FILTER else (3, 6)
        state.stored["network_filter"][key] = Stored(id=key, base="networkfilters", kept={"name": name, "level": level})
    for name, key in _POLICIES.items():
        kept: dict[str, Value] = {"name": name, "default_policy": key == DEFAULT_POLICY, "locked": True}
        _store(state, "scheduling_policy", "schedulingpolicies", key, kept)
    for name, (memory, cores) in _TYPES.items():
        topology = Entity("topology", {"cores": 1, "sockets": cores, "threads": 1})
        kept = {"name": name, "memory": memory << 20, "cpu": Entity("cpu", {"topology": topology})}
        _store(state, "instance_type", "instancetypes", _id(name), kept)
    for domain in state.storage_domains.values():
        kept = {"name": domain.name, "storage_domain": link_to("storage_domain", domain.id)}
        _store(state, "disk_profile", "diskprofiles", _id(domain.id), kept)
    for cluster in state.clusters.values():
        cluster.kept = cluster_properties()
        add_cpu_profile(state, cluster.id, cluster.name)
    for network in state.networks.values():
        network.kept = network_properties()
        network.kept["usages"] = Items("usage", ["management", "vm"])
    for profile in state.vnic_profiles.values():
        profile.kept = profile_properties()


def add_cpu_profile(state: State, cluster_id: str, name: str) -> None:
    """The profile that a cluster has from the beginning."""
    kept: dict[str, Value] = {"name": name, "cluster": link_to("cluster", cluster_id)}
    _store(state, "cpu_profile", "cpuprofiles", _id(cluster_id), kept)


def profiles_of(state: State, member: str, owner_id: str) -> list[str]:
    """The ids of the disk or CPU profiles of a storage domain or cluster; the first counts where none is named."""
    owner = "storage_domain" if member == "disk_profile" else "cluster"
    found = ((item.id, item.kept.get(owner)) for item in state.stored[member].values())
    return [key for key, link in found if isinstance(link, Entity) and link.id == owner_id]


def drop_profiles(state: State, member: str, owner_id: str) -> None:
    """Forget the profiles of a storage domain or cluster that is no more."""
    for key in profiles_of(state, member, owner_id):
        del state.stored[member][key]


def _store(state: State, member: str, base: str, key: str, kept: dict[str, Value]) -> None:
    state.stored[member][key] = Stored(id=key, base=base, kept=kept)


def _id(name: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, name))
