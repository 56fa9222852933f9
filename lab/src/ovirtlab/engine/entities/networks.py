# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks, the profiles and addresses of them, and the cards that VMs have in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True)
class Nic:
    """A network card of a VM, or of a template: that one has an address only when somebody gave it one."""

    id: str
    vm_id: str
    name: str
    mac: str
    interface: str = "virtio"
    vnic_profile_id: str = ""
    plugged: bool = True
    linked: bool = True


@dataclass(kw_only=True)
class Network:
    id: str
    name: str
    data_center_id: str
    description: str = ""
    comment: str = ""
    mtu: int = 0
    vlan: int | None = None
    label: str = ""
    clusters: dict[str, bool] = field(default_factory=dict)  # whether it is required there, by cluster id
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class VnicProfile:
    id: str
    name: str
    network_id: str
    description: str = ""
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class MacPool:
    id: str
    name: str
    start: str
    end: str
    description: str = ""
    default: bool = False
    allow_duplicates: bool = False
    more: tuple[tuple[str, str], ...] = ()  # ranges after the first
