# SPDX-License-Identifier: GPL-3.0-or-later
"""What an administrator says about groups of objects: affinity and quotas. Quotas are kept, not enforced."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

STORED = (
    "bookmark", "cpu_profile", "disk_profile", "external_host_provider", "instance_type", "network_filter",
    "network_filter_parameter", "openstack_image_provider", "openstack_network_provider", "openstack_volume_provider",
    "qos", "scheduling_policy", "watchdog",
)  # fmt: skip
"""The kinds of `Stored`, by the names that the API has for one of them."""


@dataclass(kw_only=True)
class AffinityLabel:
    """VMs and hosts that belong together; `implicit` ones would be an affinity group by themselves."""

    id: str
    name: str
    implicit: bool = False
    vms: dict[str, None] = field(default_factory=dict)
    hosts: dict[str, None] = field(default_factory=dict)


@dataclass(kw_only=True)
class AffinityRule:
    """Whether members should be (`positive` True) or should not be (False) together; None for a rule switched off."""

    positive: bool | None = None
    enforcing: bool = False

    def broken(self, together: bool) -> bool:
        """Whether the rule is on and things are not as it says."""
        return self.positive is not None and self.positive is not together


@dataclass(kw_only=True)
class AffinityGroup:
    """VMs of a cluster that should run together, or not, and hosts where they should run, or not."""

    id: str
    name: str
    cluster_id: str
    description: str = ""
    priority: float = 1.0
    vms_rule: AffinityRule = field(default_factory=AffinityRule)
    hosts_rule: AffinityRule = field(default_factory=AffinityRule)
    vms: dict[str, None] = field(default_factory=dict)
    hosts: dict[str, None] = field(default_factory=dict)
    vm_labels: dict[str, None] = field(default_factory=dict)
    host_labels: dict[str, None] = field(default_factory=dict)


@dataclass(kw_only=True)
class QuotaLimit:
    """A limit of one object, whose id is the limit's too; that of all of a kind has the id of the quota.

    `limit` is in GiB for storage and in MiB of memory for clusters, -1 without one; `vcpus` is for clusters only.
    """

    id: str
    name: str = ""
    description: str = ""
    limit: float = -1
    vcpus: int = -1


@dataclass(kw_only=True)
class Quota:
    """A quota of a data centre; percentages are of the limits."""

    id: str
    name: str
    data_center_id: str
    description: str = ""
    percentages: dict[str, int] = field(default_factory=dict)
    storage: dict[str, QuotaLimit] = field(default_factory=dict)
    clusters: dict[str, QuotaLimit] = field(default_factory=dict)


@dataclass(kw_only=True)
class Stored:
    """An object that the engine only stores: its properties as its client gave them. `base` is where it lies."""

    id: str
    base: str
    kept: dict[str, Any] = field(default_factory=dict)
