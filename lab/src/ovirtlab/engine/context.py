# SPDX-License-Identifier: GPL-3.0-or-later
"""What every part of the engine works with: its state, its hosts, its clock and its background work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ovirtlab.engine.background import Background
from ovirtlab.engine.clock import Clock
from ovirtlab.engine.entities.disks import Disk
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import Conflict
from ovirtlab.engine.hooks import Hooks
from ovirtlab.engine.state import State
from ovirtlab.host.api import Host, Tickets


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """The imageio daemon at the engine's own address, which passes data on to the hosts' daemons."""

    port: int
    tickets: Tickets


@dataclass(frozen=True, kw_only=True)
class Context:
    """Handed to every handler as `call.context`. `base_url` is `https://name:port` without a path."""

    state: State
    hosts: Mapping[str, Host]
    clock: Clock
    background: Background
    directory: Path
    base_url: str
    ca_pem: str
    proxy: Proxy | None = None
    faults: Hooks = field(default_factory=Hooks)

    def host_of(self, vm: Vm) -> Host:
        """The host a VM runs on; `Conflict` when it runs on none."""
        if not vm.host_id:
            raise Conflict("[Cannot perform the operation: VM is not running.]")
        return self.hosts[vm.host_id]

    def any_host(self, preferred: str = "") -> Host:
        """A host that is up: the preferred one when it is, else the first; storage work may be done by any."""
        up = [host_id for host_id, host in self.state.hosts.items() if host.status == "up"]
        if not up:
            raise Conflict("[Cannot perform the operation: there is no Up host in the Data Center.]")
        return self.hosts[preferred if preferred in up else up[0]]

    def volume_path(self, disk: Disk, image_id: str = "") -> Path:
        """Where a volume of a disk lies in its domain: `images/<disk id>/<image id>`."""
        domain = self.state.storage_domains[disk.storage_domain_id]
        return domain.path / "images" / disk.id / (image_id or disk.image_id)
