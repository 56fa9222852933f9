# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts affinity groups leave to a VM that is started."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ovirtlab.engine.entities.infrastructure import HostEntity
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.policies import AffinityGroup, AffinityRule
from ovirtlab.engine.state import State


def order(state: State, vm: Vm, hosts: Sequence[HostEntity]) -> list[HostEntity]:
    """Those of the hosts on which the VM breaks no rule that is enforced, the ones that break no other rule first."""
    broken = {host.id: list(_broken(state, vm, host)) for host in hosts}
    fit = [host for host in hosts if not any(rule.enforcing for rule in broken[host.id])]
    return sorted(fit, key=lambda host: len(broken[host.id]))


def _broken(state: State, vm: Vm, host: HostEntity) -> Iterator[AffinityRule]:
    """The rules that the VM would break on a host."""
    for group in state.affinity_groups.values():
        if vm.id not in group.vms:
            continue
        if group.hosts and group.hosts_rule.broken(host.id in group.hosts):
            yield group.hosts_rule
        if any(group.vms_rule.broken(place == host.id) for place in _places(state, group, vm)):
            yield group.vms_rule


def _places(state: State, group: AffinityGroup, vm: Vm) -> Iterator[str]:
    """The hosts of the other VMs of a group that run."""
    others = (state.vms[key] for key in group.vms if key != vm.id and key in state.vms)
    return (other.host_id for other in others if other.host_id)
