# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that the engine cannot reach: what it then believes of them and of their VMs, and what their verbs do."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from ovirtlab.engine import running
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.infrastructure import HostEntity
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.host.api import Host, HostError

_NOT_RESPONDING, _DETECTED = 12, 13
_UNKNOWN, _FENCED = 142, 143


class Line:
    """The engine's line to a host: while it is cut, every verb fails as calls to VDSM do, and nothing is done."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.cuts = 0  # how many things keep it from working

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self.host, name)
        return self._no_answer if self.cuts and inspect.iscoroutinefunction(verb) else verb

    async def _no_answer(self, *_: Any, **__: Any) -> None:
        raise HostError(f"host {self.host.name} does not answer: heartbeat exceeded")


Lines = Mapping[str, Line]


def direct(host: Host) -> Host:
    """A host as other hosts reach it, whether the engine does or not."""
    return host.host if isinstance(host, Line) else host


def lose(context: Context, line: Line, record: HostEntity) -> None:
    """The engine has lost a host: it is non responsive, and nobody knows how its VMs are."""
    line.cuts += 1
    if line.cuts > 1:
        return
    record.status = "non_responsive"
    text = f"Host {record.name} is non responsive."
    context.state.events.add(_NOT_RESPONDING, "error", text, host=record.id, cluster=record.cluster_id)
    for vm in _vms_on(context, record):
        vm.status = "unknown"
        text = f"VM {vm.name} was set to the Unknown status."
        context.state.events.add(_UNKNOWN, "warning", text, vm=vm.id, host=record.id, cluster=vm.cluster_id)


def find(context: Context, line: Line, record: HostEntity) -> None:
    """What kept a host away is over: when nothing else does, it is up again, and its VMs are what it says."""
    line.cuts -= 1
    if line.cuts:
        return
    record.status = "up"
    text = f"Status of host {record.name} was set to Up."
    context.state.events.add(_DETECTED, "normal", text, host=record.id, cluster=record.cluster_id)
    for vm in _vms_on(context, record):
        running.believe(context, vm)


def fence(context: Context, record: HostEntity) -> None:
    """A lost host is known to be without power, so that its VMs are down and may be started elsewhere."""
    for vm in _vms_on(context, record):
        text = f"Vm {vm.name} was shut down due to {record.name} host reboot or manual fence"
        running.went_down(context, vm)
        context.state.events.add(_FENCED, "normal", text, vm=vm.id, host=record.id, cluster=vm.cluster_id)


def _vms_on(context: Context, record: HostEntity) -> list[Vm]:
    return [vm for vm in context.state.vms.values() if vm.host_id == record.id]
