# SPDX-License-Identifier: GPL-3.0-or-later
"""A large site in memory: hosts with movers, storage domains, workloads of VMs that are all due in the same minute."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.controller.account import Account
from overkeep.config import WatchedTarget
from overkeep.controller.desks.policies import PolicyDesk
from overkeep.controller.durable import Durable
from overkeep.controller.ports import Patience, Ports
from overkeep.controller.records import Member
from overkeep.controller.store import Store
from overkeep.controller.targets.configured import Targets
from overkeep.errors import NotFound
from overkeep.model.inventory import Disk, DiskFormat, Host, Vm, VmStatus
from overkeep.model.policy import Policy
from overkeep.model.schedule import Schedule
from overkeep.mover.api import Mover
from overkeep.mover.orders import CopyOrder, CopyResult, Image
from overkeep.testing.engine import MemoryEngine
from overkeep.testing.mover import MemoryMover

TARGET = "nfs1"
DUE = dt.datetime(2026, 5, 1, 22, tzinfo=dt.UTC)
_SIZE = 1 << 20
_HOSTS, _DOMAINS = 50, 20
_PATIENCE = Patience(poll=0.05, lease=600)  # the twin goes on by one phase at each look


@dataclass(frozen=True, kw_only=True)
class Size:
    """How many workloads, and how many VMs in each."""

    workloads: int
    vms_each: int

    @property
    def vms(self) -> int:
        """All of them."""
        return self.workloads * self.vms_each


class Movers:
    """The movers of all hosts; each image is one more name of an empty one, for the data are not what is measured."""

    def __init__(self, root: Path, empty: Path, account: Account) -> None:
        self._root = root
        self._empty = empty
        names = {f"host-{number}": f"host{number}" for number in range(_HOSTS)}
        self._movers = {
            host_id: MemoryMover(name, targets=frozenset({TARGET}), outcome=self._copy)
            for host_id, name in names.items()
        }
        for mover in self._movers.values():
            account.charge(mover)

    def at(self, host_id: str) -> Mover:
        """The mover of a host."""
        if host_id not in self._movers:
            raise NotFound(kind="host", name=host_id, how="overkeep movers")
        return self._movers[host_id]

    def _copy(self, order: CopyOrder) -> CopyResult:
        if isinstance(order.sink, Image):
            os.link(self._empty, self._root / order.sink.folder / order.sink.name)
        return CopyResult(virtual_size=_SIZE, covered=_SIZE, moved=0, stored=1 << 18, seconds=0.0)


def make_ports(folder: Path, store: Store, durable: Durable, size: Size, account: Account) -> Ports:
    """The outside world of the controller, with its VMs; what the twins in it use is charged to an account."""
    root = folder / "target"
    root.mkdir()
    empty = folder / "empty.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", empty, str(_SIZE)], check=True, timeout=30)
    engine = MemoryEngine()
    engine.known_hosts = [
        Host(id=f"host-{n}", name=f"host{n}", address="127.0.0.1", status="up") for n in range(_HOSTS)
    ]
    for number in range(size.vms):
        engine.add_vm(_vm(number))
    account.charge(engine)
    return Ports(
        engine=engine,
        targets=Targets((WatchedTarget(name=TARGET, kind="path", mountpoint=root),), store),
        movers=Movers(root, empty, account),
        store=store,
        patience=_PATIENCE,
        stopping=durable.stopping,
    )


def plan_all(ports: Ports, size: Size) -> None:
    """Make the workloads and give them one policy, whose first run is at `DUE`."""
    desk = PolicyDesk(ports, clock=lambda: DUE - dt.timedelta(hours=1))
    nightly = desk.create(Policy(name="nightly", schedules=(Schedule(when="daily at 22:00"),)))
    for number in range(size.workloads):
        numbers = range(number * size.vms_each, (number + 1) * size.vms_each)
        members = [Member(vm_id=f"vm-{n}", vm_name=f"vm{n}") for n in numbers]
        desk.give(ports.store.workloads.create(f"workload{number}", members, target=TARGET), nightly)


def _vm(number: int) -> Vm:
    disk = Disk(
        id=f"disk-{number}",
        name=f"disk{number}",
        size=_SIZE,
        format=DiskFormat.COW,
        tracks_changes=True,
        bootable=True,
        storage_domain_id=f"domain-{number % _DOMAINS}",
        storage_domain=f"data{number % _DOMAINS}",
    )
    return Vm(
        id=f"vm-{number}",
        name=f"vm{number}",
        status=VmStatus.UP,
        cluster_id="cluster-1",
        cluster="Default",
        host_id=f"host-{number % _HOSTS}",
        disks=(disk,),
    )
