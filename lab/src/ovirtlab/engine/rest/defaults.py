# SPDX-License-Identifier: GPL-3.0-or-later
"""What every engine has when it is new, besides its hosts and machines: profiles, policies, filters and types."""

from __future__ import annotations

import uuid

from ovirtlab.engine.policies import Stored
from ovirtlab.engine.rest.documents import Entity, Value, link_to
from ovirtlab.engine.state import State

DEFAULT_FILTER = "d2370ab4-fee3-11e9-a310-8c1645ce738e"
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
        add_cpu_profile(state, cluster.id, cluster.name)
    for profile in state.vnic_profiles.values():
        profile.kept.setdefault("network_filter", link_to("network_filter", DEFAULT_FILTER))


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
