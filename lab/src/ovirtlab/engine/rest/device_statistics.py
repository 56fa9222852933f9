# SPDX-License-Identifier: GPL-3.0-or-later
"""Statistics of disks and of the NICs of VMs and hosts: what an engine tells, at zero, as no traffic is measured."""

from __future__ import annotations

from dataclasses import dataclass

from ovirtlab.engine.rest.disks import get_disk
from ovirtlab.engine.rest.documents import Collection, Entity
from ovirtlab.engine.rest.host_nics import get_nic as get_host_nic
from ovirtlab.engine.rest.members import serve_members
from ovirtlab.engine.rest.nics import get_nic
from ovirtlab.engine.rest.routing import Call, Handler, Routes
from ovirtlab.engine.rest.shapes import statistic

routes = Routes()


@dataclass(frozen=True)
class _Figure:
    name: str
    text: str
    unit: str
    kind: str = "gauge"
    type: str = "decimal"


_OF_DISKS = (
    _Figure("data.current.read", "Read data rate", "bytes_per_second"),
    _Figure("data.current.read_ops", "Read data ops", "none", "counter"),
    _Figure("data.current.write", "Write data rate", "bytes_per_second"),
    _Figure("data.current.write_ops", "Write data ops", "none", "counter"),
    _Figure("disk.read.latency", "Read latency", "seconds"),
    _Figure("disk.write.latency", "Write latency", "seconds"),
    _Figure("disk.flush.latency", "Flush latency", "seconds"),
)
_OF_NICS = (
    _Figure("data.current.rx", "Receive data rate", "bytes_per_second"),
    _Figure("data.current.tx", "Transmit data rate", "bytes_per_second"),
    _Figure("data.current.rx.bps", "Receive data rate", "bits_per_second"),
    _Figure("data.current.tx.bps", "Transmit data rate", "bits_per_second"),
    _Figure("errors.total.rx", "Total receive errors", "none", "counter", "integer"),
    _Figure("errors.total.tx", "Total transmit errors", "none", "counter", "integer"),
    _Figure("data.total.rx", "Total received data", "bytes", "counter", "integer"),
    _Figure("data.total.tx", "Total transmitted data", "bytes", "counter", "integer"),
)


def _serve(pattern: str, device: Handler, figures: tuple[_Figure, ...]) -> None:
    @routes.get(pattern)
    async def list_statistics(call: Call) -> Collection:
        found = await device(call)
        assert isinstance(found, Entity)
        owner = Entity(found.tag, id=found.id, href=found.href, reference=True)
        return Collection("statistics", "statistic", [_show(found.href or "", figure, owner) for figure in figures])

    serve_members(routes, f"{pattern}/{{statistic}}", list_statistics)


def _show(base: str, figure: _Figure, owner: Entity) -> Entity:
    entity = statistic(base, figure.name, figure.text, unit=figure.unit, value=0.0, owner=owner)
    entity.fields = {**entity.fields, "kind": figure.kind, "type": figure.type}
    return entity


_serve("disks/{disk}/statistics", get_disk, _OF_DISKS)
_serve("vms/{vm}/nics/{nic}/statistics", get_nic, _OF_NICS)
_serve("hosts/{host}/nics/{nic}/statistics", get_host_nic, _OF_NICS)
