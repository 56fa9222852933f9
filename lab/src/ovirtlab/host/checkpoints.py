# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints of a running VM: what libvirt knows of them, and the bitmaps that carry them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovirtlab.host.api import DisksOf
from ovirtlab.machine.errors import INCONSISTENT_CHECKPOINT, NO_CHECKPOINT, OPERATION_FAILED, HostError
from ovirtlab.machine.qemu import Machine

Bitmaps = Mapping[str, Mapping[str, Any]]


async def bitmaps(machine: Machine) -> Mapping[str, Bitmaps]:
    """By target, the bitmaps of the active volume of each disk by name, as QEMU describes them."""
    found = await bitmaps_of_nodes(machine)
    return {target: found.get(disk.node, {}) for target, disk in machine.disks.items()}


async def bitmaps_of_nodes(machine: Machine) -> Mapping[str, Bitmaps]:
    """The same by node, for every volume that is open."""
    nodes = await machine.execute("query-named-block-nodes", {"flat": True})
    # Jobs such as a merge have bitmaps without a name.
    return {
        node["node-name"]: {item["name"]: item for item in node.get("dirty-bitmaps", []) if "name" in item}
        for node in nodes
    }


def usable(bitmap: Mapping[str, Any] | None) -> bool:
    """Whether a bitmap covers all writes since its checkpoint."""
    return bitmap is not None and not bitmap.get("inconsistent") and bool(bitmap.get("recording"))


class Checkpoints:
    """The checkpoints libvirt knows of one running VM; it knows none when the VM has just been started."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._known: set[str] = set()

    @property
    def known(self) -> frozenset[str]:
        """Those that were made or redefined since the VM was started."""
        return frozenset(self._known)

    def add(self, checkpoint_id: str) -> None:
        """A backup has made the checkpoint."""
        self._known.add(checkpoint_id)

    def require(self, checkpoint_id: str) -> None:
        """Raise `HostError` 103 unless the checkpoint was made or redefined since the VM was started."""
        if checkpoint_id not in self._known:
            raise HostError(f"no domain checkpoint with matching name '{checkpoint_id}'", code=NO_CHECKPOINT)

    async def redefine(self, checkpoints: DisksOf) -> None:
        """Tell libvirt of checkpoints of an earlier run and validate them; `HostError` 109 when one is broken.

        A checkpoint need not cover every disk (one may be newer than it), but each that it covers must carry its
        bitmap, as far as it is plugged.
        """
        present = await bitmaps(self._machine)
        plugged = {disk.serial: present[target] for target, disk in self._machine.disks.items()}
        for checkpoint_id, disk_ids in checkpoints.items():
            carried = [plugged[disk_id].get(checkpoint_id) for disk_id in disk_ids if disk_id in plugged]
            if not carried or not all(usable(bitmap) for bitmap in carried):
                raise inconsistent(checkpoint_id)
            self._known.add(checkpoint_id)

    async def delete(self, checkpoint_id: str) -> None:
        """Remove a checkpoint with its bitmaps; `HostError` 1 when no disk carries one."""
        self.require(checkpoint_id)
        present = await bitmaps(self._machine)
        carriers = [target for target, found in present.items() if checkpoint_id in found]
        if not carriers:
            raise HostError(f"bitmap '{checkpoint_id}' not found in backing chain", code=OPERATION_FAILED)
        actions = [
            {
                "type": "block-dirty-bitmap-remove",
                "data": {"node": self._machine.disks[target].node, "name": checkpoint_id},
            }
            for target in carriers
        ]
        await self._machine.execute("transaction", {"actions": actions})
        self._known.discard(checkpoint_id)


def inconsistent(checkpoint_id: str) -> HostError:
    text = f"checkpoint inconsistent: missing or broken bitmap '{checkpoint_id}'"
    return HostError(text, code=INCONSISTENT_CHECKPOINT)
