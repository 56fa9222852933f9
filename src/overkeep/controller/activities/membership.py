# SPDX-License-Identifier: GPL-3.0-or-later
"""Which VMs a workload has now: the rules ask the Manager anew before each run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from overkeep.controller.ports import Ports
from overkeep.controller.records import Member, Workload
from overkeep.errors import OverkeepError
from overkeep.model.selection import NAMED, Choice, Rules, choose


class NoVms(OverkeepError):
    """A run of a workload has nothing to do."""

    code = "no-vms"
    template = (
        "Workload {workload!r} has no VMs: none was named, and its rules find none ({rules}); "
        "look at them with `overkeep workload preview`."
    )
    status = 409


def choices(ports: Ports, rules: Rules, picked: Collection[str]) -> tuple[Choice, ...]:
    """What the rules find in the Manager now, and what they leave out; the VMs that are `picked` (ids) are taken."""
    return choose(rules, picked, ports.engine.candidates(rules.tags))


def found(ports: Ports, rules: Rules, named: tuple[Member, ...]) -> tuple[Member, ...]:
    """The VMs that are named, in their order, and those that the rules find; the Manager is asked only for rules."""
    if not rules.include:
        return named
    chosen = choices(ports, rules, {member.vm_id for member in named})
    joined = (
        Member(vm_id=choice.vm.id, vm_name=choice.vm.name, by_rule=True)
        for choice in chosen
        if choice.taken and choice.why != NAMED
    )
    return (*named, *joined)


def settled(ports: Ports, workload: Workload) -> Workload:
    """A workload with what its rules find now, written down; raises `NoVms` and the errors of the Manager."""
    named = tuple(member for member in workload.members if not member.by_rule)
    now = replace(workload, members=found(ports, workload.rules, named))
    if not now.members:
        raise NoVms(workload=workload.name, rules=", ".join(map(str, workload.rules.include)) or "it has none")
    if now.members != workload.members:
        ports.store.workloads.settle(now)
    return now
