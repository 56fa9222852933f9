# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts run in and lie on: data centres, clusters, hosts and storage domains."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(kw_only=True)
class DataCenter:
    id: str
    name: str
    description: str = ""
    comment: str = ""
    status: str = "up"
    level: tuple[int, int] = (4, 7)
    local: bool = False
    spm_host_id: str = ""  # the host that was chosen to manage the storage; empty for any
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ClusterUpgrade:
    """That somebody upgrades the hosts of a cluster one after the other, and how far that is."""

    correlation_id: str
    percent: int = 0


@dataclass(kw_only=True)
class Cluster:
    """`level` is the compatibility level; it decides between live and hybrid backups, among others."""

    id: str
    name: str
    data_center_id: str
    description: str = ""
    comment: str = ""
    level: tuple[int, int] = (4, 7)
    cpu_type: str = "Intel Nehalem Family"
    mac_pool_id: str = ""
    upgrade: ClusterUpgrade | None = None  # while one is under way
    migration_mbps: int = 0  # how much a migration may take of the network, in megabits a second; 0 for all there is
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class FenceAgent:
    """How a host could be fenced; the lab keeps it and never uses it."""

    id: str
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class HostEntity:
    """What the engine knows of a host; the host itself is `Context.hosts[id]`."""

    id: str
    name: str
    address: str
    hw_id: str
    cluster_id: str
    imageio_port: int
    status: str = "up"
    external_status: str = "ok"
    comment: str = ""
    updates: tuple[str, ...] = ()  # packages that a check would find
    update_available: bool = False  # whether the last check has found any
    checking: bool = False
    fence_agents: dict[str, FenceAgent] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    kept: dict[str, Any] = field(default_factory=dict)  # properties that are shown again, without effect


@dataclass(kw_only=True)
class StorageDomain:
    """A file domain; `path` is where its volumes lie (`images/<disk id>/<image id>`)."""

    id: str
    name: str
    data_center_id: str
    path: Path
    type: str = "data"
    status: str = "active"
    master: bool = False
    size: int = 1 << 42
    description: str = ""
    comment: str = ""
    kept: dict[str, Any] = field(default_factory=dict)
