# SPDX-License-Identifier: GPL-3.0-or-later
"""Chains of volumes under a running VM: external snapshots and merges, in the QMP commands libvirt sends for them.

Bitmaps follow as in libvirt: an overlay goes on with every bitmap that records in the volume below it, and a merge adds
what the upper volume has recorded to the lower one, so that a checkpoint survives both.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from ovirtlab.host.checkpoints import Bitmaps, bitmaps_of_nodes, usable
from ovirtlab.host.live_backup import frozen
from ovirtlab.machine.blockio import remove_nodes
from ovirtlab.machine.errors import HostError
from ovirtlab.machine.nodes import DiskNode, Layer, format_options, storage_options
from ovirtlab.machine.qemu import Machine

log = logging.getLogger(__name__)

POLL = 0.01
MERGE_TIMEOUT = 600.0


async def snapshot(machine: Machine, overlays: Mapping[str, Path], *, freeze: bool) -> None:
    """Let the disks (by target) go on in empty qcow2 volumes, all in one moment; after an error none does.

    A guest that cannot be frozen is taken as it is.
    """
    async with AsyncExitStack() as undo:
        changed = [await _open_overlay(machine, machine.disks[target], path, undo) for target, path in overlays.items()]
        actions = [action for disk in changed for action in await _propagation(machine, disk)]
        for disk in changed:
            data = {"node": disk.backing[0].node, "overlay": disk.node}
            actions.append({"type": "blockdev-snapshot", "data": data})
        async with AsyncExitStack() as quiet:
            if freeze:
                await quiet.enter_async_context(frozen(machine, required=False))
            await machine.execute("transaction", {"actions": actions})
        undo.pop_all()
    for disk in changed:
        machine.disks[disk.target] = disk


async def merge(machine: Machine, disk: DiskNode, *, top: Path, base: Path) -> None:
    """Write the volume `top` into the one below it, which takes its place; both stay as files."""
    upper, lower = _neighbours(machine, disk, top, base)
    job = f"commit-{disk.target}"
    command: dict[str, Any] = {"job-id": job, "device": disk.node, "base-node": lower.node, "top-node": upper.node}
    is_active = upper.node == disk.node
    if not is_active:
        # Volumes lie side by side, and an overlay names its backing file without a folder.
        command["backing-file"] = lower.path.name
    await machine.execute("block-commit", {**command, "auto-finalize": is_active, "auto-dismiss": False})
    try:
        if await _reached(machine, job, {"ready" if is_active else "pending", "concluded"}) != "concluded":
            await _merge_bitmaps(machine, upper, lower)
            await machine.execute("job-complete" if is_active else "job-finalize", {"id": job})
    except HostError:
        await _cancel(machine, job)
        raise
    await _end(machine, job)
    machine.disks[disk.target] = _without(disk, upper, lower)
    await remove_nodes(machine, (upper,))


async def _open_overlay(machine: Machine, disk: DiskNode, path: Path, undo: AsyncExitStack) -> DiskNode:
    """Open `path` beside a disk, to be put over it; return the disk as it will be."""
    names = await bitmaps_of_nodes(machine)
    node = next(name for name in _names(disk.target) if name not in names)
    overlay = replace(disk, path=path, format="qcow2", active=node, backing=disk.chain)
    for options in (storage_options(overlay), {**format_options(overlay), "backing": None}):
        await machine.execute("blockdev-add", options)
        undo.push_async_callback(machine.execute, "blockdev-del", {"node-name": options["node-name"]})
    return overlay


def _names(target: str) -> Iterator[str]:
    number = 1
    while True:
        yield f"{target}-{number}"
        number += 1


async def _propagation(machine: Machine, overlay: DiskNode) -> list[dict[str, Any]]:
    """Actions that give an overlay the bitmaps that record in the volume below it."""
    present = await bitmaps_of_nodes(machine)
    below, above = present[overlay.backing[0].node], present[overlay.node]
    wanted = [bitmap for bitmap in below.values() if bitmap.get("persistent") and usable(bitmap)]
    return [_added(overlay.node, bitmap) for bitmap in wanted if bitmap["name"] not in above]


def _added(node: str, like: Mapping[str, Any]) -> dict[str, Any]:
    bitmap = {"node": node, "name": like["name"], "granularity": like["granularity"], "persistent": True}
    return {"type": "block-dirty-bitmap-add", "data": {**bitmap, "disabled": False}}


def _neighbours(machine: Machine, disk: DiskNode, top: Path, base: Path) -> tuple[Layer, Layer]:
    for upper, lower in zip(disk.chain, disk.chain[1:], strict=False):
        if (upper.path, lower.path) == (top, base):
            return upper, lower
    raise HostError(f"VM {machine.spec.name} does not use {top.name} over {base.name} as disk {disk.target}")


async def _merge_bitmaps(machine: Machine, upper: Layer, lower: Layer) -> None:
    """Add what the upper volume's bitmaps have recorded to those of the lower one, which is writable by now."""
    if lower.format == "raw":
        return
    present = await bitmaps_of_nodes(machine)
    actions = list(_bitmap_merges(upper, lower, present[upper.node], present[lower.node]))
    if actions:
        await machine.execute("transaction", {"actions": actions})


def _bitmap_merges(upper: Layer, lower: Layer, above: Bitmaps, below: Bitmaps) -> Iterator[dict[str, Any]]:
    for name, bitmap in above.items():
        if not bitmap.get("persistent") or bitmap.get("inconsistent"):
            continue
        if name not in below:
            yield _added(lower.node, bitmap)
        elif below[name].get("inconsistent"):
            continue
        source = [{"node": upper.node, "name": name}]
        yield {
            "type": "block-dirty-bitmap-merge",
            "data": {"node": lower.node, "target": name, "bitmaps": source},
        }


async def _reached(machine: Machine, job: str, states: set[str]) -> str:
    """Wait until a job is in one of `states`, and return which."""
    try:
        async with asyncio.timeout(MERGE_TIMEOUT):
            while (status := (await _job(machine, job))["status"]) not in states:
                await asyncio.sleep(POLL)
    except TimeoutError as error:
        raise HostError(f"the merge {job} of VM {machine.spec.name} is {status} for too long") from error
    return str(status)


async def _job(machine: Machine, job: str) -> Mapping[str, Any]:
    for found in await machine.execute("query-jobs"):
        if found["id"] == job:
            return dict(found)
    raise HostError(f"VM {machine.spec.name} has no job {job}")


async def _end(machine: Machine, job: str) -> None:
    """Wait for the end of a job and dismiss it; `HostError` with QEMU's words when it has failed."""
    await _reached(machine, job, {"concluded"})
    error = (await _job(machine, job)).get("error")
    await machine.execute("job-dismiss", {"id": job})
    if error:
        raise HostError(f"the merge {job} of VM {machine.spec.name} failed: {error}")


async def _cancel(machine: Machine, job: str) -> None:
    try:
        await machine.execute("job-cancel", {"id": job})
        await _end(machine, job)
    except HostError as error:
        log.info("The merge %s of VM %s has ended: %s", job, machine.spec.name, error)


def _without(disk: DiskNode, upper: Layer, lower: Layer) -> DiskNode:
    """The disk after `upper` has been written into `lower`."""
    if upper.node != disk.node:
        return replace(disk, backing=tuple(layer for layer in disk.backing if layer != upper))
    return replace(disk, path=lower.path, format=lower.format, active=lower.node, backing=disk.backing[1:])
